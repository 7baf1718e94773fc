"""Prompt sets are what they say: held out, split as told, and every prompt of them can be scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from post_train.data.diorama.asked import Asked
from post_train.data.diorama.holdout import held_out_triple
from post_train.data.diorama.parse import parse_prompt
from post_train.evaluation.prompts import PromptKind, PromptSet, load_prompts
from post_train.recipes import diorama_base


@pytest.fixture(scope="module")
def held_out() -> PromptSet:
    return load_prompts("held_out")


def _held(asked: Asked) -> bool:
    assert asked.ground is not None
    return any(o.action is not None and held_out_triple(o.name, o.action, asked.ground) for o in asked.objects)


def test_three_hundred_captions_and_other_ways_to_tell_them(held_out: PromptSet) -> None:
    """300 full captions, half of them of compositions never trained on, and paraphrases and vague texts on top."""
    count = Counter(p.kind for p in held_out.prompts)
    assert len(held_out.headline) == 300
    assert count == {
        PromptKind.FAMILIAR: 150,
        PromptKind.COMPOSITION: 150,
        PromptKind.PARAPHRASE: 60,
        PromptKind.SHORT: 30,
        PromptKind.VAGUE: 30,
    }
    assert len({p.text for p in held_out.headline}) > 297


def test_compositions_are_those_that_training_leaves_out(held_out: PromptSet) -> None:
    """Each asks for a held-out triple, and no familiar caption does."""
    for prompt in held_out.headline:
        assert _held(parse_prompt(prompt.text).asked) is (prompt.kind is PromptKind.COMPOSITION), prompt.text


def test_every_prompt_can_be_scored(held_out: PromptSet) -> None:
    """Not a word of any of them is unread."""
    for prompt in held_out.prompts:
        assert parse_prompt(prompt.text).readable, prompt.text


def test_a_paraphrase_asks_for_the_same_in_other_words(held_out: PromptSet) -> None:
    """The same is asked of the same clip, and the text is another."""
    full = {p.clip: p.text for p in held_out.headline}
    for prompt in held_out.prompts:
        if prompt.kind is PromptKind.PARAPHRASE:
            assert prompt.text != full[prompt.clip]
            assert parse_prompt(prompt.text).asked == parse_prompt(full[prompt.clip]).asked
        elif prompt.kind in {PromptKind.SHORT, PromptKind.VAGUE}:
            assert len(prompt.text) < len(full[prompt.clip])


def test_sets_share_no_clip_with_each_other_or_with_training() -> None:
    """Choices between runs are made on clips that the published figures never saw, and no run trains on either."""
    held, chosen = ({p.clip for p in load_prompts(name, 50).prompts} for name in ("held_out", "validation"))
    assert not held & chosen
    latents = diorama_base.recipe().base.latents
    last_trained = latents.first_seed + latents.shards * latents.shard_clips
    assert all(clip is not None and clip > last_trained for clip in held | chosen)


def test_fewer_prompts_are_the_first_of_more(held_out: PromptSet) -> None:
    """`--n 40` takes the first forty of the set, so that kept films serve again."""
    few = load_prompts("held_out", 40)
    assert few.headline == held_out.headline[:40]


def test_a_persons_own_file(tmp_path: Path) -> None:
    """A prompt a line, blank lines and remarks left out; what cannot be scored is told with its reason."""
    path = tmp_path / "mine.txt"
    long = "a red ball " * 60
    lines = ["\ufeffa red ball", "", "# remark", "two cats", "a red ball", long.strip(), "sushi", "a cat at sea  "]
    path.write_text("\r\n".join(lines), encoding="utf-8")
    found = load_prompts(str(path))
    assert [p.text for p in found.prompts] == ["a red ball", "a cat at sea"]
    assert [r.why for r in found.refused] == [
        "not of this world: two",
        "it is in the file already",
        "it has 659 characters; models take 500",
        "not of this world: sushi",
    ]
    assert len(load_prompts(str(path), 1).prompts) == 1


@pytest.mark.parametrize("content", [b"", b"# only remarks\n", b"\xff\xfe\x00", b"two unicorns\n"])
def test_a_file_without_prompts_is_refused(content: bytes, tmp_path: Path) -> None:
    """An empty file, one in another encoding and one of foreign words get a sentence that names the file."""
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.txt (has no prompt that can be scored|is not a text file in UTF-8)"):
        load_prompts(str(path))


def test_what_is_neither_a_set_nor_a_file_is_refused() -> None:
    """A misspelt set name says which sets there are."""
    with pytest.raises(ValueError, match=r"heldout is no prompt set \(held_out, validation\) and no file"):
        load_prompts("heldout")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        load_prompts("held_out", 0)
