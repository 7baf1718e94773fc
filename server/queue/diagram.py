"""The transition table as a mermaid diagram, for the README; `python -m server.queue.diagram` prints it."""

from __future__ import annotations

import sys

from server.queue.types import TERMINAL, TRANSITIONS, Action, State


def transitions_mermaid() -> str:
    """A `stateDiagram-v2` with one arrow for each pair of states, labelled with the actions that go along it."""
    arrows: dict[tuple[State | None, State], list[Action]] = {}
    for (before, action), afters in TRANSITIONS.items():
        for after in sorted(afters, key=list(State).index):
            arrows.setdefault((before, after), []).append(action)
    lines = ["stateDiagram-v2"]
    for (before, after), actions in arrows.items():
        lines.append(f"    {before or '[*]'} --> {after}: {', '.join(actions)}")
    lines += [f"    {state} --> [*]" for state in State if state in TERMINAL]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(transitions_mermaid() + "\n")
