"""When silence counts as a hang."""

from __future__ import annotations

from server.worker.stall import StallClock


def _clock() -> StallClock:
    return StallClock(floor_s=5.0, patience_s=600.0)


def test_what_is_not_known_is_given_patience() -> None:
    """Loading, encoding and the first step, which may compile, have the long limit."""
    clock = _clock()
    assert clock.limit_s == 600.0
    clock.stage()
    clock.step(1, 40.0)
    assert clock.limit_s == 600.0


def test_steps_set_the_pace() -> None:
    """Ten median steps are the limit: one slow step does not move it."""
    clock = _clock()
    for step, now in enumerate([0.0, 2.0, 4.0, 60.0, 62.0, 64.0], start=1):
        clock.step(step, now)
    assert clock.limit_s == 20.0


def test_the_limit_has_a_floor() -> None:
    """Steps of milliseconds do not make a pause of a second a hang."""
    clock = _clock()
    for step in range(1, 9):
        clock.step(step, step * 0.01)
    assert clock.limit_s == 5.0


def test_mates_report_one_step() -> None:
    """A batch's jobs report the same step one after the other; that is one interval, not many short ones."""
    clock = _clock()
    for step in range(1, 5):
        for mate in range(4):
            clock.step(step, step * 3.0 + mate * 0.001)
    assert round(clock.limit_s, 3) == 30.0


def test_steps_that_were_not_reported_count() -> None:
    """Of quick steps only some are told; what counts is the time of one."""
    clock = _clock()
    for step in range(1, 90, 4):
        clock.step(step, step * 3.0)
    assert clock.limit_s == 30.0


def test_a_new_stage_begins_anew() -> None:
    """Decoding is not judged by the pace of denoising, nor a batch's second try by its first."""
    clock = _clock()
    for step in range(1, 5):
        clock.step(step, float(step))
    clock.stage()
    assert clock.limit_s == 600.0
    clock.step(1, 100.0)
    assert clock.limit_s == 600.0
