"""Which films a package is compiled for: bounds on size, length and rows, and what they make of a model's card."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from engines.card import ModelCard
from engines.errors import BuildRefused, InvalidRequest
from engines.limits import check_spec
from engines.types import VideoSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProfile:
    """Bounds of the films of a package, all inclusive: pixels, frames, and the rows of one transformer call.

    A film with guidance needs two rows.
    """

    min_width: int
    max_width: int
    min_height: int
    max_height: int
    min_frames: int
    max_frames: int
    max_rows: int

    def corners(self, card: ModelCard) -> tuple[VideoSpec, VideoSpec]:
        """The smallest and the largest film."""
        fps = card.defaults.fps
        return (
            VideoSpec(width=self.min_width, height=self.min_height, num_frames=self.min_frames, fps=fps),
            VideoSpec(width=self.max_width, height=self.max_height, num_frames=self.max_frames, fps=fps),
        )

    def usual(self, card: ModelCard) -> VideoSpec:
        """The film that compilers and measurements take: the model's default one."""
        d = card.defaults
        return VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps)

    def check(self, card: ModelCard) -> None:
        """BuildRefused unless the model can make every film of the profile, and its default one is among them."""
        if self.max_rows < 2:
            raise BuildRefused(f"a profile of {self.max_rows} rows has no room for guidance; allow 2 or more")
        for spec in self.corners(card):
            try:
                check_spec(spec, card.limits)
            except InvalidRequest as error:
                raise BuildRefused(f"the model {card.name} cannot make the profile's films: {error}") from None
        narrowed_card(card, self, name=card.name)

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def narrowed_card(card: ModelCard, profile: ShapeProfile, *, name: str, steps: int | None = None) -> ModelCard:
    """The card of a package: the model's, under another name, with limits that its engine can keep, and its own steps.

    BuildRefused where the model's default film is outside of them.
    """
    if steps is not None:
        if not 1 <= steps <= card.limits.max_steps:
            raise BuildRefused(f"{name} asks for {steps} steps; {card.name} takes 1 to {card.limits.max_steps}")
        card = replace(card, defaults=replace(card.defaults, num_inference_steps=steps))
    bounds = {k: getattr(profile, k) for k in ("min_width", "max_width", "min_height", "max_height")}
    bounds |= {"min_frames": profile.min_frames, "max_frames": profile.max_frames}
    narrowed = replace(card, name=name, limits=replace(card.limits, **bounds))
    try:
        check_spec(profile.usual(card), narrowed.limits)
    except InvalidRequest as error:
        raise BuildRefused(f"the profile leaves out the default film of {card.name}: {error}") from None
    return narrowed
