"""The page for human ratings is blind, balanced and whole in one file, and works in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from post_train.evaluation import rating_page
from post_train.evaluation.rating_page import RatedArms, RatedPair, sides_of, write_page
from post_train.evaluation.ratings import rated_summary, read_ratings
from tests.browser.devtools import Page, chromium

ARMS = RatedArms(
    a={"name": "candidate-model", "weights": "a" * 64},
    b={"name": "baseline-model", "weights": "b" * 64},
    prompts="mine",
)
PROMPTS = ("a red ball rolls left", "a cat </script><b>bounces</b>", "a tree sways", "a bus drives right", "a bee")


def _pairs() -> list[RatedPair]:
    """A's films are red, B's are blue, each a little different, as 9 frames of 32x32."""
    pairs = []
    for index, prompt in enumerate(PROMPTS):
        a, b = np.zeros((9, 32, 32, 3), np.uint8), np.zeros((9, 32, 32, 3), np.uint8)
        a[..., 0], b[..., 2] = 200 + index, 200 + index
        pairs.append(RatedPair(prompt=prompt, seed=index, a=a, b=b, fps=8))
    return pairs


def _data(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    write_page(path, _pairs(), ARMS, shuffle_seed=3)
    return path


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_sides_are_balanced_and_recorded(count: int) -> None:
    """A is on the left in half of the items, in an order that the seed gives again."""
    sides = sides_of(count, 5)
    assert sides == sides_of(count, 5)
    assert abs(2 * sum(sides) - count) <= 1
    assert count < 7 or sides not in ([i % 2 == 0 for i in range(count)], sides_of(count, 6))


def test_one_file_holds_everything(page: Path) -> None:
    """No address leads out of it, each prompt is there once, and no prompt can end the script that holds it."""
    text = page.read_text("utf-8")
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", text)
    assert text.count("</script>") == 2
    assert sorted(i["prompt"] for i in _data(page)["items"]) == sorted(PROMPTS)
    assert [p.name for p in page.parent.iterdir()] == ["page.html"]


def test_nothing_shown_tells_whose_film_it_is(page: Path) -> None:
    """The models' names stand in the data alone, which a rater does not see before the end."""
    outside = re.sub(r'<script type="application/json".*?</script>', "", page.read_text("utf-8"), flags=re.DOTALL)
    assert "candidate-model" not in outside
    assert "baseline-model" not in outside


def test_films_too_large_for_one_file_stand_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of mp4s whose names tell nothing."""
    monkeypatch.setattr(rating_page, "_EMBEDDED", 1000)
    path = tmp_path / "page.html"
    write_page(path, _pairs(), ARMS, shuffle_seed=3)
    names = [name for item in _data(path)["items"] for name in item["films"]]
    assert all(re.fullmatch(r"page_films/[0-9a-f]{20}\.mp4", n) and (tmp_path / n).is_file() for n in names)


def test_a_page_of_nothing_is_refused(tmp_path: Path) -> None:
    """No pairs, no page."""
    with pytest.raises(ValueError, match="at least one pair"):
        write_page(tmp_path / "page.html", [], ARMS, shuffle_seed=0)


def _ratings(page: Path, choices: list[str]) -> dict[str, Any]:
    """What the page would write for these choices."""
    data = _data(page)
    items = []
    for item, choice in zip(data["items"], choices, strict=True):
        outcome = 0 if choice == "same" else 1 if (choice == "left") == (item["left"] == "a") else -1
        kept = {k: item[k] for k in ("prompt", "seed", "left")}
        items.append({**kept, "choice": choice, "outcome": outcome})
    figures = {"n": len(items), "seeds": 1, "gsb": 0, "gsb_low": 0, "gsb_high": 0, "good": 0, "same": 0, "bad": 0}
    who = {"by": "person", "rater": "Ann", "skipped": 0, "items": items}
    return {"schema": 1, **figures, **who, **{k: data[k] for k in ("a", "b", "prompts", "shuffle_seed")}}


def test_ratings_are_recomputed_from_the_choices(page: Path, tmp_path: Path) -> None:
    """What the file says of itself is not believed: figures come from the single choices."""
    path = tmp_path / "ratings.json"
    choices = ["left" if i["left"] == "a" else "right" for i in _data(page)["items"]]
    path.write_text(json.dumps(_ratings(page, choices)), encoding="utf-8")
    told = rated_summary(read_ratings(path))
    assert (told["n"], told["gsb"], told["good"], told["gsb_high"]) == (5, 1, 5, 1)
    assert told["gsb_low"] < 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rater": ""}, "rater"),
        ({"items": []}, "items"),
        ({"by": "judge"}, "by"),
        ({"surprise": 1}, "surprise"),
        ({"schema": 2}, "schema"),
    ],
)
def test_ratings_of_another_shape_are_refused(
    change: dict[str, Any], sentence: str, page: Path, tmp_path: Path
) -> None:
    """Each with the field that is wrong."""
    path = tmp_path / "ratings.json"
    path.write_text(json.dumps({**_ratings(page, ["same"] * 5), **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=f"holds no ratings of the page: {sentence}"):
        read_ratings(path)


def test_an_outcome_that_its_choice_belies_is_refused(page: Path, tmp_path: Path) -> None:
    """Turning outcomes around by hand is noticed."""
    told = _ratings(page, ["same"] * 5)
    told["items"][0]["outcome"] = 1
    path = tmp_path / "ratings.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match="but its choice says otherwise"):
        read_ratings(path)


def _start(browser: Page, page: Path, rater: str) -> None:
    browser.open(page)
    browser.value("document.getElementById('rater').focus()")
    browser.type(rater)
    browser.press("Enter")
    browser.until("!document.getElementById('rate').hidden")


def _shown(browser: Page) -> str:
    return browser.value("document.getElementById('prompt').textContent")


@pytest.mark.browser
def test_a_person_rates_stops_and_goes_on(page: Path, tmp_path: Path) -> None:
    """Films play in a loop without sound; keys choose; after a restart the rating goes on; the file reads back."""
    data = _data(page)
    order = [item["prompt"] for item in data["items"]]
    profile, downloads = tmp_path / "profile", tmp_path / "downloads"
    with chromium(profile) as browser:
        _start(browser, page, "Ann <b>")
        assert _shown(browser) == order[0]
        for side in ("left", "right"):
            video = f"document.getElementById('{side}')"
            browser.until(f"{video}.readyState >= 2 && !{video}.paused")
            assert browser.value(f"[{video}.videoWidth, {video}.loop, {video}.muted]") == [256, True, True]
            assert browser.value(f"{video}.clientWidth") > 256
        browser.press("ArrowLeft")
        browser.press("2")
        assert _shown(browser) == order[2]
        browser.press("Backspace")
        assert _shown(browser) == order[1]
        browser.press("ArrowRight")
        asked = [
            e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"
        ]
        assert {url.split(":")[0] for url in asked} <= {"file", "data"}
        assert not [e for e in browser.events if e.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}]
    with chromium(profile) as browser:
        browser.open(page)
        browser.until("!document.getElementById('rate').hidden")
        assert _shown(browser) == order[2]
        for key in ("3", "1", "ArrowDown"):
            browser.press(key)
        browser.until("!document.getElementById('end').hidden")
        told = browser.value("document.getElementById('result').textContent")
        assert "5 pairs rated. GSB of candidate-model over baseline-model" in told
        browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True)
        browser.value("document.getElementById('download').click()")
        while browser.wait_for("Browser.downloadProgress")["state"] != "completed":
            pass
    ratings = read_ratings(downloads / "ratings.json")
    assert ratings.rater == "Ann <b>"
    assert [i.choice for i in ratings.items] == ["left", "right", "right", "left", "same"]
    assert [i.prompt for i in ratings.items] == order
    assert [i.left for i in ratings.items] == [i["left"] for i in data["items"]]
    counted = rated_summary(ratings)
    for name in ("n", "gsb", "good", "same", "bad"):
        assert getattr(ratings, name) == counted[name]
    assert ratings.gsb_low == pytest.approx(counted["gsb_low"], abs=0.01)
    assert ratings.gsb_high == pytest.approx(counted["gsb_high"], abs=0.01)


@pytest.mark.browser
def test_what_is_on_the_left_is_who_the_page_says(page: Path, tmp_path: Path) -> None:
    """The film shown on the left is A's, the red one, exactly where the data says so."""
    script = """(() => {
      const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
      const context = canvas.getContext("2d");
      context.drawImage(document.getElementById("left"), 0, 0, 1, 1);
      const [red, , blue] = context.getImageData(0, 0, 1, 1).data; return red > blue ? "a" : "b"; })()"""
    seen = []
    with chromium(tmp_path / "profile") as browser:
        _start(browser, page, "Ann")
        for _ in PROMPTS:
            browser.until("document.getElementById('left').readyState >= 2")
            seen.append(browser.value(script))
            browser.press("ArrowDown")
        assert "0 good, 5 same, 0 bad" in browser.value("document.getElementById('result').textContent")
    assert seen == [item["left"] for item in _data(page)["items"]]
    assert set(seen) == {"a", "b"}
