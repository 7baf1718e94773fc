"""When a webhook that failed is tried again: fourteen attempts, ever further apart, over about a day."""

from __future__ import annotations

from collections.abc import Sequence

# Three times as long each time, up to four hours: 5 s, 15 s, 45 s, 2 min, 7 min, 20 min, 1 h, 3 h, then 5 x 4 h.
RETRY_DELAYS_S = tuple(min(5.0 * 3**failures, 14_400.0) for failures in range(13))
_SPREAD = 0.2


def delay_after(failures: int, chance: float, delays_s: Sequence[float] = RETRY_DELAYS_S) -> float | None:
    """Seconds until the next attempt after so many failures, 1 or more; None when there is none.

    `chance` is from 0 to 1 and spreads what failed together by a fifth to either side.
    """
    if failures > len(delays_s):
        return None
    return delays_s[failures - 1] * (1 - _SPREAD + 2 * _SPREAD * chance)
