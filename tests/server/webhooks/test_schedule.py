"""When failures are tried again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from server.webhooks.schedule import RETRY_DELAYS_S, delay_after


def test_attempts_spread_over_about_a_day() -> None:
    """Fourteen attempts, each wait at least as long as the one before, the last after 19 to 30 hours."""
    assert len(RETRY_DELAYS_S) == 13
    assert all(shorter <= longer for shorter, longer in pairwise(RETRY_DELAYS_S))
    for chance in (0.0, 0.5, 1.0):
        delays = [delay_after(failures, chance) for failures in range(1, 14)]
        assert 19 * 3600 < sum(delay for delay in delays if delay is not None) < 30 * 3600
    assert delay_after(14, 0.5) is None


def test_chance_moves_a_wait_by_a_fifth() -> None:
    """What failed together does not come back together."""
    assert [delay_after(1, chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx([4.0, 5.0, 6.0])
