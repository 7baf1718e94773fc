"""What a chaos run tells: one JSON object, or a table with a verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from server.bench.auditor import Audit
from server.bench.chaos_blows import Kind, percentiles
from server.bench.chaos_drains import Drains
from server.bench.chaos_plan import ChaosPlan
from server.bench.chaos_real import RealKills
from server.bench.chaos_run import Inflicted

_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was measured; `unswept` are files that even the sweeper left, `seconds` is the time of the main run."""

    plan: ChaosPlan
    inflicted: Inflicted
    audit: Audit
    unswept: list[str]
    control: Audit
    drains: Drains | None
    real: RealKills | None
    seconds: float
    machine: dict[str, Any]

    @property
    def faults(self) -> list[str]:
        """Why the run failed, a sentence each; empty when it held."""
        faults = [f"lost: {job_id}: {why}" for job_id, why in self.audit.lost.items()]
        faults += [f"duplicated: {job_id}: {why}" for job_id, why in self.audit.duplicated.items()]
        if not self.control.duplicated:
            faults.append("the control found no duplicate although the fence was missing: the bench proves nothing")
        if self.drains is not None:
            faults += self.drains.faults()
        if self.real is not None:
            faults += [
                f"another film after a kill of the real model's child: {job_id}" for job_id in self.real.differing
            ]
        return faults

    @property
    def _zombies_refused(self) -> int:
        return sum((blow.job_id, blow.attempt) in self.audit.refused for blow in self.inflicted.zombies)

    def document(self) -> dict[str, Any]:
        """The JSON object."""
        inflicted, audit = self.inflicted, self.audit
        child, host = inflicted.of(Kind.CHILD), inflicted.of(Kind.HOST)
        real = {} if self.real is None else {"kills": self.real.kills, "differing": len(self.real.differing)}
        return {
            "jobs": audit.accepted,
            "kills": len(child) + len(host) + inflicted.missed_kills,
            "kills_of_holders": len(child) + len(host),
            "kills_of_children": len(child),
            "kills_of_hosts": len(host),
            "zombies": len(inflicted.zombies),
            "zombies_refused": self._zombies_refused,
            "redis_kills": inflicted.redis_kills,
            "succeeded": audit.states.get("succeeded", 0),
            "cancelled": audit.states.get("cancelled", 0),
            "failed": audit.errors,
            "lost": len(audit.lost),
            "duplicated": len(audit.duplicated),
            "refused": len(audit.refused),
            "turned_away": len(audit.turned_away),
            "leftovers": len(audit.leftovers),
            "leftovers_after_sweep": len(self.unswept),
            "recovery_child_s": percentiles(inflicted.recoveries(Kind.CHILD)),
            "recovery_host_s": percentiles(inflicted.recoveries(Kind.HOST)),
            "control_jobs": self.control.accepted,
            "control_duplicated": len(self.control.duplicated),
            "drains": {} if self.drains is None else self.drains.document(),
            "real": real,
            "seconds": round(self.seconds, 1),
            "lease_s": self.plan.lease_s,
            "workers": self.plan.workers,
            "seed": self.plan.seed,
            **self.machine,
            "faults": self.faults,
        }

    def show(self, console: Console) -> None:
        """The same in words."""
        told, plan = self.document(), self.plan
        table = Table("what", "asked", "found", title="rushes bench chaos")
        table.add_row("jobs accepted", str(plan.jobs), str(told["jobs"]))
        table.add_row("kill -9 of lease holders", str(plan.kills), str(told["kills_of_holders"]))
        table.add_row("  the engine's process alone", "", str(told["kills_of_children"]))
        table.add_row("  supervisor and engine at once", "", str(told["kills_of_hosts"]))
        table.add_row("workers frozen past their lease", str(plan.zombies), str(told["zombies"]))
        table.add_row("  whose late outcome was refused", "", str(told["zombies_refused"]))
        table.add_row("kill -9 of the queue server", str(plan.redis_kills), str(told["redis_kills"]))
        failed = ", ".join(f"{count} {code}" for code, count in told["failed"].items()) or "none"
        table.add_row("succeeded / cancelled / failed", "", f"{told['succeeded']} / {told['cancelled']} / {failed}")
        table.add_row("leased again after a child's death", "", _seconds(told["recovery_child_s"]))
        table.add_row(f"leased again after a host's, lease {plan.lease_s:g} s", "", _seconds(told["recovery_host_s"]))
        table.add_row("files that no job names, and after a sweep", "", f"{told['leftovers']}, {len(self.unswept)}")
        if self.drains is not None:
            drained = self.drains.document()
            table.add_row("workers drained while they made a film", str(plan.drains), str(drained["drains"]))
            table.add_row("  ended after one SIGTERM", "", _seconds(drained["exit_after_one_s"]))
            table.add_row("  ended after two", "", _seconds(drained["exit_after_two_s"]))
        if self.real is not None:
            same = self.real.kills - len(self.real.differing)
            table.add_row("real films, the same although killed", str(plan.real_kills), str(same))
        table.add_row("duplicated without the fence (control)", "1 or more", str(told["control_duplicated"]))
        table.add_row("lost", "0", str(told["lost"]))
        table.add_row("duplicated", "0", str(told["duplicated"]))
        console.print(table)
        console.print(self._verdict(), highlight=False, soft_wrap=True)

    def _verdict(self) -> str:
        if not self.faults:
            return f"Nothing was lost and nothing counted twice, in {self.seconds:.0f} s (seed {self.plan.seed})."
        more = len(self.faults) - _SHOWN
        lines = ["FAILED:", *self.faults[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        return "\n".join(lines)


def _seconds(found: dict[str, Any]) -> str:
    if not found["n"]:
        return "none"
    return f"p50 {found['p50']:.2f} s, p99 {found['p99']:.2f} s, max {found['max']:.2f} s of {found['n']}"
