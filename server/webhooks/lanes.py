"""Who may be called now: bounds on how many calls one receiver, or one tenant, can hold open."""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_PACE_S, _LONGEST_PACE_S = 0.05, 10.0
_LONGEST_WAIT_S = 300.0
_REMEMBERED = 1024


@dataclass(slots=True)
class _Lane:
    """One receiver or tenant: calls open, calls allowed, and when the next one that must wait has its turn."""

    limit: int
    open: int = 0
    pace_s: float = _LEAST_PACE_S
    turn: float = 0.0

    def next_turn(self, now: float) -> float:
        """Seconds to wait; everyone who asks gets a later turn, as far apart as calls have been ending."""
        self.turn = min(max(self.turn, now) + self.pace_s, now + _LONGEST_WAIT_S)
        return self.turn - now


class Lanes:
    """Bounds per receiving host and per tenant.

    A host that did not answer its last call gets one at a time until it does, so that dead receivers hold few calls.
    The tenant's bound is for one that names ever new hosts. `now` is any clock that only goes forward, in seconds.
    """

    def __init__(self, *, per_host: int = 4, per_tenant: int = 32) -> None:
        self._per_host, self._per_tenant = per_host, per_tenant
        self._hosts: dict[str, _Lane] = {}
        self._tenants: dict[str, _Lane] = {}

    def enter(self, host: str, tenant: str, *, now: float) -> float:
        """0 when the call may be made, which `leave` must follow; otherwise the seconds after which to ask again."""
        lanes = (
            self._hosts.setdefault(host, _Lane(self._per_host)),
            self._tenants.setdefault(tenant, _Lane(self._per_tenant)),
        )
        for lane in lanes:
            if lane.open >= lane.limit:
                return lane.next_turn(now)
        for lane in lanes:
            lane.open += 1
        return 0.0

    def leave(self, host: str, tenant: str, *, answered: bool, took_s: float, now: float) -> None:
        """The call is over after `took_s` seconds, with any answer or with none."""
        self._hosts[host].limit = self._per_host if answered else 1
        for lane in (self._hosts[host], self._tenants[tenant]):
            lane.open -= 1
            lane.pace_s = min(max(took_s / lane.limit, _LEAST_PACE_S), _LONGEST_PACE_S)
        for lanes in (self._hosts, self._tenants):
            _forget_idle(lanes, now)


def _forget_idle(lanes: dict[str, _Lane], now: float) -> None:
    if len(lanes) > _REMEMBERED:
        for name in [name for name, lane in lanes.items() if not lane.open and lane.turn <= now]:
            del lanes[name]
