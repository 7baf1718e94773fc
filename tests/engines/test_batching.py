"""What a film looks like does not depend on who shares its batch, and a batch costs one transformer call a step."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from engines import load_engine
from engines.engine import Engine
from engines.errors import InvalidRequest
from engines.row_exact import RowExact, make_row_exact
from engines.types import CancelledEvent, GenerationRequest, GenerationResult, StageEvent, StepEvent
from tests.engines.making import films, request

ME = request("me", seed=5, prompt="a cat walks on grass", negative_prompt="blurry", guidance_scale=4.0)
MATES = (
    request("a", seed=6, prompt="two robots dance at sunset " * 5, negative_prompt="", guidance_scale=2.0),
    request("b", seed=7, prompt="a ball", negative_prompt="low quality, distorted", guidance_scale=7.0),
    request("c", seed=8, prompt="a small red ball rolls over a snowy field", guidance_scale=3.0),
)


@pytest.fixture(scope="module", params=["eager", "fused"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend keeps every promise."""
    return request.param


@pytest.fixture(scope="module")
def engine(tiny_wan: Path, backend: str) -> Engine:
    return load_engine(tiny_wan, backend=backend)


@pytest.fixture(scope="module")
def padded(tiny_wan: Path, backend: str) -> Engine:
    return load_engine(tiny_wan, backend=backend, pad_batch_to=4)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Several threads split tensors in other places, so every promise is kept with one and with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def mine(results: list[GenerationResult]) -> GenerationResult:
    return next(result for result in results if result.request.request_id == "me")


def same(one: GenerationResult, other: GenerationResult) -> bool:
    return np.array_equal(one.latents, other.latents) and np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("sampler", ["unipc", "euler"])
def test_mates_and_position_change_no_bit(engine: Engine, threads: int, sampler: str) -> None:
    """At equal batch size a film is the same to the last bit, whoever its mates are and wherever it stands."""
    me, a, b, c = (change(wanted, sampler=sampler) for wanted in (ME, *MATES))
    first = mine(films(engine, me, a, b))
    for batch in ((a, me, b), (b, a, me), (c, me, a), (c, b, me)):
        assert same(mine(films(engine, *batch)), first)


@pytest.mark.parametrize(
    "geometry", [{"width": 48, "num_frames": 5}, {"width": 80, "height": 48, "num_frames": 1}, {"guidance_scale": 1.0}]
)
def test_odd_shapes_change_no_bit(engine: Engine, threads: int, geometry: dict[str, int]) -> None:
    """Token counts that fill no vector evenly, and unguided batches, keep the promise too."""
    me, a, b, c = (change(wanted, **geometry) for wanted in (ME, *MATES))
    first = mine(films(engine, me, a, b))
    for batch in ((a, b, me), (c, me, b)):
        assert same(mine(films(engine, *batch)), first)


def test_batch_size_changes_almost_nothing(engine: Engine) -> None:
    """Across batch sizes latents agree within 1e-5."""
    alone = mine(films(engine, ME))
    for size in (1, 2, 3):
        together = mine(films(engine, *MATES[:size], ME))
        assert np.abs(together.latents - alone.latents).max() < 1e-5


def test_padding_makes_batch_size_change_no_bit(padded: Engine, threads: int) -> None:
    """With pad_batch_to a film is the same to the last bit, alone or in any batch."""
    alone = mine(films(padded, ME))
    for batch in ((ME, MATES[0]), (MATES[0], MATES[1], ME), (MATES[2], ME, MATES[0], MATES[1])):
        assert same(mine(films(padded, *batch)), alone)


def test_padding_is_no_other_film(engine: Engine, padded: Engine) -> None:
    """Padding rows change the film no more than mates do."""
    assert np.abs(films(padded, ME)[0].latents - films(engine, ME)[0].latents).max() < 1e-5


def test_row_exact_activations_are_needed_and_enough() -> None:
    """The plain activation gives the last row of an unevenly long batch other bits; row by row none differs."""
    # 13 x 27 numbers a row: never a whole number of vectors, so that the left-over falls into the last row.
    rows = torch.randn(1, 13, 27, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1).contiguous()
    exact = RowExact(torch.nn.GELU(approximate="tanh"))(rows)
    assert all(torch.equal(row, exact[0]) for row in exact)
    torch.testing.assert_close(exact, torch.nn.functional.gelu(rows, approximate="tanh"))


def test_place_in_the_batch_changes_no_bit_at_working_size(threads: int) -> None:
    """The products, norms and attention of a 3M transformer with 80 tokens, too, give a row the same bits anywhere."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=64, in_channels=48, out_channels=48, text_dim=192, ffn_dim=1000,
        num_layers=2,
    ).eval()  # fmt: skip
    make_row_exact(transformer)
    latents_BCTHW, embeds_BLD = torch.randn(6, 48, 5, 8, 8), torch.randn(6, 512, 192)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.inference_mode():
        (straight,) = transformer(latents_BCTHW, torch.tensor([500]), embeds_BLD, return_dict=False)
        (mixed,) = transformer(latents_BCTHW[order], torch.tensor([500]), embeds_BLD[order], return_dict=False)
    assert torch.equal(straight[order], mixed)


def test_one_transformer_call_a_step(tiny_wan: Path) -> None:
    """Guided or not, each step calls the transformer once, with every row of the batch in it."""
    engine = load_engine(tiny_wan)
    rows: list[int] = []
    engine._family.parts.transformer.register_forward_pre_hook(
        lambda _module, _args, kwargs: rows.append(len(kwargs["hidden_states"])), with_kwargs=True
    )
    films(engine, ME, *MATES)
    assert rows == [8] * ME.num_inference_steps
    rows.clear()
    films(engine, *(change(wanted, guidance_scale=1.0) for wanted in (ME, MATES[0])))
    assert rows == [2] * ME.num_inference_steps


def test_scales_of_one_batch_may_differ(engine: Engine) -> None:
    """Each row is guided by its own scale: in a mixed batch each film is the one its scale makes alone."""
    wanted = [request(str(scale), guidance_scale=scale) for scale in (1.5, 3.0, 9.0)]
    for result in films(engine, *wanted):
        (alone,) = films(engine, result.request)
        assert np.abs(result.latents - alone.latents).max() < 1e-5


def test_events_come_in_order(engine: Engine) -> None:
    """Stages, then every step of every request, then results in the order of the requests."""
    events = list(engine.generate([ME, MATES[0]]))
    assert [event.stage for event in events if isinstance(event, StageEvent) and event.request_id == "me"] == [
        "encode",
        "denoise",
        "decode",
    ]
    steps = [(event.step, event.num_steps) for event in events if isinstance(event, StepEvent)]
    assert steps == [(step, 3) for step in (1, 1, 2, 2, 3, 3)]
    results = [event for event in events if isinstance(event, GenerationResult)]
    assert events[-2:] == results
    assert [result.request.request_id for result in results] == ["me", "a"]
    assert set(results[0].seconds) == {"encode", "denoise", "decode"}
    assert all(value > 0 for value in results[0].seconds.values())


def test_the_caller_is_not_left_in_inference_mode(engine: Engine) -> None:
    """Between two events, and after them, gradients work in the caller's code."""
    for _event in engine.generate([ME]):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_cancelled_mate_changes_no_bit(engine: Engine, after: int) -> None:
    """Cancelling after any step ends that request alone: it gets no result, and its mate's film is untouched."""
    whole = mine(films(engine, ME, MATES[0]))
    cancelled: set[str] = set()
    seen = []
    for event in engine.generate([ME, MATES[0]], is_cancelled=cancelled.__contains__):
        seen.append(event)
        started = isinstance(event, StageEvent) and event.stage == "denoise" and after == 0
        if started or (isinstance(event, StepEvent) and event.step == after):
            cancelled.add("a")
    told = [type(event) for event in seen if getattr(event, "request_id", None) == "a"]
    assert told.count(CancelledEvent) == 1
    assert told[-1] is CancelledEvent
    assert told.count(StepEvent) == after
    (result,) = [event for event in seen if isinstance(event, GenerationResult)]
    assert same(result, whole)


def test_when_all_are_cancelled_computing_stops(tiny_wan: Path) -> None:
    """With nobody left waiting no further transformer call is made, and nothing is decoded."""
    engine = load_engine(tiny_wan)
    calls = []
    engine._family.parts.transformer.register_forward_pre_hook(lambda _module, _args: calls.append(1))
    engine._family.parts.vae.decoder.register_forward_pre_hook(lambda _module, _args: pytest.fail("decoded"))
    cancelled: set[str] = set()
    seen = []
    for event in engine.generate([ME, MATES[0]], is_cancelled=cancelled.__contains__):
        seen.append(event)
        if isinstance(event, StepEvent) and event.step == 2:
            cancelled |= {"me", "a"}
    assert len(calls) == 2
    assert {event.request_id for event in seen if isinstance(event, CancelledEvent)} == {"me", "a"}
    assert not any(isinstance(event, GenerationResult) for event in seen)


def test_cancelling_before_decoding_saves_the_decoding(tiny_wan: Path) -> None:
    """Who is cancelled after the last step, or while a mate is decoded, is not decoded."""
    engine = load_engine(tiny_wan)
    decoded: list[int] = []
    decode = engine._family.decode
    engine._family.decode = lambda latents, **how: (decoded.append(1), decode(latents, **how))[1]
    wanted = [ME, *MATES]
    results = [
        event
        for event in engine.generate(wanted, is_cancelled=lambda request_id: bool(decoded) and request_id in {"a", "c"})
        if isinstance(event, GenerationResult)
    ]
    assert [result.request.request_id for result in results] == ["me", "b"]
    assert len(decoded) == 2


def test_the_same_request_is_the_same_film_in_another_process(tiny_wan: Path) -> None:
    """The same request twice, in two processes, gives the same latents, bit for bit."""
    program = (
        "import hashlib, sys; from engines import load_engine; from tests.engines.making import films, request; "
        "(film,) = films(load_engine(sys.argv[1]), request(seed=42)); "
        "print(hashlib.sha256(film.latents.tobytes() + film.frames.tobytes()).hexdigest())"
    )
    environ = {**os.environ, "RUSHES_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(Path.cwd())}
    told = subprocess.run(
        [sys.executable, "-c", program, str(tiny_wan)], env=environ, capture_output=True, text=True, check=True
    )
    (film,) = films(load_engine(tiny_wan), request(seed=42))
    here = hashlib.sha256(film.latents.tobytes() + film.frames.tobytes()).hexdigest()
    assert told.stdout.strip() == here


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([], "empty"),
        ([ME, request("big", width=48)], "one shape"),
        ([ME, request("quick", num_inference_steps=2)], "one shape"),
        ([ME, request("unguided", guidance_scale=1.0)], "one shape"),
        ([ME, ME], "same request_id"),
        ([request(width=33)], "multiple of 16"),
    ],
)
def test_an_illegal_batch_is_refused_at_once(engine: Engine, batch: list[GenerationRequest], said: str) -> None:
    """The error comes from the call itself, before the first event is asked for."""
    with pytest.raises(InvalidRequest, match=said):
        engine.generate(batch)


def test_a_batch_larger_than_its_bucket_is_refused(tiny_wan: Path) -> None:
    """pad_batch_to is a fixed number of rows, not a wish."""
    with pytest.raises(InvalidRequest, match="pads to 1"):
        load_engine(tiny_wan, pad_batch_to=1).generate([ME, MATES[0]])
    with pytest.raises(InvalidRequest, match="1 or more"):
        load_engine(tiny_wan, pad_batch_to=0)


def change(wanted: GenerationRequest, **changes: object) -> GenerationRequest:
    """The request with some fields, of itself or of its spec, replaced."""
    fields = {
        name: getattr(wanted, name) for name in ("prompt", "negative_prompt", "guidance_scale", "seed", "sampler")
    }
    return request(wanted.request_id, **(fields | changes))
