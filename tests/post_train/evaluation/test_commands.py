"""`rushes evaluate`, run for real on tiny models with rewards that need no weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from post_train.evaluation import commands, judging, scale
from post_train.evaluation.scoring import VBENCH, Judges
from tests.post_train.evaluation.simple_rewards import simple_judges

pytestmark = pytest.mark.timeout(600)  # each loads engines, which is slow on a busy machine

PROMPTS = """# my own
a red ball rolls left on a meadow
a cat jumps up and down at night

two unicorns
a blue box spins in place in the snow
a red ball rolls left on a meadow
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny models of other weights that differ from each other."""
    from tests.tiny_wan import save_tiny_wan

    folder = tmp_path_factory.mktemp("models")
    return save_tiny_wan(folder / "one", seed=1), save_tiny_wan(folder / "two", seed=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Judges:
    found = simple_judges()
    monkeypatch.setattr(judging, "load_judges", lambda _: found)
    # The scale that ships is frozen with the judges that ship, and would be refused to these.
    monkeypatch.setattr(scale, "FROZEN", tmp_path / "frozen")
    return found


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(PROMPTS, encoding="utf-8")
    return path


def run(*arguments: str | Path) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(commands.evaluate)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def told(result: Result) -> dict[str, Any]:
    assert result.exception is None, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("judges")
def test_the_object_that_is_printed(models: tuple[Path, Path], cache: Path, prompts: Path, tmp_path: Path) -> None:
    """One JSON object with every promised figure for both sides; what was not scored is named; the files are there."""
    out = tmp_path / "report"
    found = told(run(*models, "--prompts", prompts, "--seeds", "2", "--out", out, "--cache", cache, "--json"))
    assert found["n"] == 3
    assert found["seeds"] == 2
    assert -1 <= found["gsb_low"] <= found["gsb"] <= found["gsb_high"] <= 1
    assert found["good"] + found["same"] + found["bad"] == 6
    for side in ("a", "b"):
        assert set(found[side]) >= {"ta", "mq", "vq", *VBENCH, "diversity", "nfe", "seconds"}
        assert found[side]["nfe"] == 8  # four steps, guided
        assert found[side]["seconds"] > 0
        assert 0 < found[side]["diversity"] < 1
    assert found["a"]["weights"] != found["b"]["weights"]
    assert [r["prompt"] for r in found["refused"]] == ["two unicorns", "a red ball rolls left on a meadow"]
    assert found["scale"]["provisional"]
    report = (out / "report.md").read_text(encoding="utf-8")
    assert f"{found['gsb']:+.3f}" in report
    assert "two unicorns" in report
    assert "nan" not in report.lower()
    kept = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert len(kept["items"]) == 6
    assert {k: v for k, v in kept.items() if k != "items"} == found
    for picture in ("plots/differences.png", "plots/pairs.png", "sheets/first.png"):
        assert f"({picture})" in report
        with Image.open(out / picture) as image:
            image.verify()


@pytest.mark.usefixtures("judges")
def test_the_sign_and_the_swap(models: tuple[Path, Path], cache: Path, prompts: Path, tmp_path: Path) -> None:
    """Swapping A and B turns every figure around; positive means that A has the higher scores."""
    arguments = ("--prompts", prompts, "--out", tmp_path / "r", "--cache", cache, "--json")
    ahead, behind = told(run(*models, *arguments)), told(run(*models[::-1], *arguments))
    difference = ahead["differences"]["vq"]["mean"]
    assert difference == pytest.approx(ahead["a"]["vq"] - ahead["b"]["vq"])
    assert difference != 0
    assert ahead["differences"]["vq"]["mean"] == pytest.approx(-behind["differences"]["vq"]["mean"])
    assert ahead["a"]["vq"] == behind["b"]["vq"]


def test_films_and_scores_are_made_once(
    models: tuple[Path, Path],
    cache: Path,
    prompts: Path,
    tmp_path: Path,
    judges: Judges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second run of the same comparison loads no engine and asks no judge; a judge of another hash is asked anew."""
    arguments = (*models, "--prompts", prompts, "--out", tmp_path / "r", "--cache", cache, "--json")
    first = told(run(*arguments))
    seen = judges.rewards[0].seen  # type: ignore[attr-defined]
    monkeypatch.setattr("engines.load_engine", lambda *_, **__: pytest.fail("an engine was loaded"))
    assert told(run(*arguments)) == first
    assert judges.rewards[0].seen == seen  # type: ignore[attr-defined]
    other = simple_judges(digest="2")
    monkeypatch.setattr(judging, "load_judges", lambda _: other)
    assert told(run(*arguments))["a"]["ta"] == first["a"]["ta"]
    assert other.rewards[0].seen == 6  # type: ignore[attr-defined]


@pytest.mark.usefixtures("judges")
def test_a_model_against_itself_is_a_tie(models: tuple[Path, Path], cache: Path, tmp_path: Path) -> None:
    """The same weights under both names: no difference at all, on a named set with paraphrases and vague texts."""
    same = (models[0], models[0])
    found = told(run(*same, "--prompts", "validation", "--n", "6", "--out", tmp_path / "r", "--cache", cache, "--json"))
    assert (found["n"], found["gsb"], found["good"], found["bad"]) == (6, 0, 0, 0)
    assert found["gsb_low"] < 0 < found["gsb_high"]
    assert set(found["kinds"]) == {"familiar", "composition", "paraphrase", "short", "vague"}
    assert found["a"]["prompt_sensitivity"]["mean"] is not None


def test_a_scale_is_frozen_and_guarded(
    models: tuple[Path, Path],
    cache: Path,
    prompts: Path,
    tmp_path: Path,
    judges: Judges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen scale is used as it stands, and refused once a judge is another."""
    assert judges.role == "held_out"
    scale = tmp_path / "scale.json"
    common = ("--prompts", prompts, "--out", tmp_path / "r", "--cache", cache, "--scale", scale, "--json")
    frozen = told(run(models[1], models[1], *common, "--freeze"))["scale"]
    assert not frozen["provisional"]
    assert json.loads(scale.read_text())["dimensions"] == frozen["dimensions"]
    used = told(run(*models, *common))
    assert used["scale"] == frozen
    changed = simple_judges(digest="other")
    monkeypatch.setattr(judging, "load_judges", lambda _: changed)
    result = run(*models, *common)
    assert isinstance(result.exception, ValueError)
    assert "was frozen with another held_out judge of mq, ta, vq" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name a candidate A and a baseline B"),
        (("base",), "name a candidate A and a baseline B"),
        (("nowhere", "base"), "'nowhere' is neither shipped weights (base, sft, grpo, student) nor a model folder"),
        (("base", "base", "--prompts", "none.txt"), "none.txt is no prompt set (held_out, validation) and no file"),
        (("base", "base", "--prompts", "bad.txt"), "bad.txt has no prompt that can be scored"),
        (("base", "base", "--judge", "mine"), "judge 'mine' is unknown; use reward, validation, held_out"),
        (("--ratings", "bad.txt"), "bad.txt holds no ratings of the page"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before any film is made, and stdout stays empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text("an unknown thing\n", encoding="utf-8")
    result = run(*arguments)
    assert isinstance(result.exception, ValueError)
    assert sentence in str(result.exception)
    assert result.stdout == ""


def test_as_it_is_typed(tmp_path: Path) -> None:
    """The command line finds it by its entry point; a mistake is one sentence on stderr and exit code 2."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rushes")), "evaluate", "nowhere", "base", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("rushes: 'nowhere' is neither shipped weights")
    assert done.stdout == ""


def test_an_installation_without_weights_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`student` before it was trained is a sentence, not a search on some hub."""
    from post_train.evaluation import arms

    monkeypatch.setattr(arms, "shipped_folder", lambda name: tmp_path / name)
    result = run("student", "base")
    assert isinstance(result.exception, ValueError)
    assert "the weights 'student' are not part of this installation" in str(result.exception)


def test_a_page_is_made_without_a_judge(models: tuple[Path, Path], cache: Path, prompts: Path, tmp_path: Path) -> None:
    """Where no judge's weights are, people can still rate: the page holds every pair once, in mixed order."""
    page = tmp_path / "page.html"
    found = told(run(*models, "--prompts", prompts, "--cache", cache, "--page", page, "--shuffle-seed", "4", "--json"))
    assert found == {"page": str(page), "n": 3, "shuffle_seed": 4}
    assert page.read_text(encoding="utf-8").count("data:video/mp4;base64,") == 6


def test_the_scale_that_ships_is_of_what_ships() -> None:
    """Frozen on this installation's base by its held-out judge: whoever replaces either must freeze anew."""
    found = scale.read_scale(scale.frozen_file("held_out"), judging.load_judges("held_out"))
    assert (found.model, found.films) == ("base", 300)
    assert not found.provisional
