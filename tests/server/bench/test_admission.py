"""The admission bench by its command: what it counts must be as promised; what it times is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.bench.figures import latencies_ms, percentile, slope

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE_S = 230.0


def _bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server.cli", "bench", "admission", "--json", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)


def _found(*options: str) -> dict[str, Any]:
    done = _bench(*options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_small_flood_keeps_to_its_bounds() -> None:
    """What waits never exceeds the bound, every refusal says when to come back, the quiet tenant is served first."""
    found = _found("--only", "flood,fairness", "--flood-seconds", "2")
    flood = found["flood"]
    assert flood["refused"] > 0
    assert (flood["other_answers"], flood["refused_without_retry_after"]) == (0, 0)
    assert 0 < flood["deepest"] <= flood["bound"]
    assert found["fairness"]["flood_jobs_left"] > 0


@pytest.mark.timeout(240)
def test_a_small_run_of_the_other_parts_finds_no_fault() -> None:
    """Every request is answered as it should be, no event is missed or seen twice, no file stays open."""
    found = _found("--only", "rate,streams,leak", "--seconds", "1", "--streams", "20", "--leak-jobs", "100",
                   "--leak-engine", "sleeping:0.001")  # fmt: skip
    for part in ("create", "status"):
        assert found["rate"][part]["errors"] == 0
        assert found["rate"][part]["latency_ms"]["n"] > 0
    streams = found["streams"]
    assert (streams["missed"], streams["seen_twice"], streams["cuts"]) == (0, 0, 20)
    assert all(0 < late <= early + 2 for early, late in found["leak"]["open_files"].values())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--only", "rat"], "--only names 'rat'; the parts are rate, flood, fairness, streams, leak"),
        (["--connections", "0"], "--connections is 0; use 1 to 1000"),
        (["--leak-engine", "fast"], "--leak-engine is 'fast'; use real or sleeping:STEP_SECONDS"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options: list[str], told: str) -> None:
    """One sentence with the option, the value and what to use, before anything is started."""
    done = _bench(*options)
    assert (done.returncode, done.stderr.strip()) == (2, f"rushes: {told}")


def test_percentiles_and_slopes() -> None:
    """Percentiles are values that were measured; a slope is told of points on a line, and of too few it is none."""
    assert [percentile(range(1, 101), share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([], 0.5) is None
    assert latencies_ms([0.001, 0.003]) == {"p50": 1.0, "p95": 3.0, "p99": 3.0, "max": 3.0, "n": 2}
    assert slope([(0, 5), (1, 7), (2, 9)]) == pytest.approx(2.0)
    assert slope([(3, 1)]) == 0.0
