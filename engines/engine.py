"""The engine: a loaded model that turns a batch of requests into events and, in the end, films."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines import denoising
from engines.backends import Backend, find_backend
from engines.card import ModelCard, read_card
from engines.catalog import find_model
from engines.denoising import Denoising
from engines.errors import InvalidRequest, UnknownName
from engines.family import Family
from engines.limits import check_request
from engines.package import is_package
from engines.package_loading import open_package
from engines.prompt_cache import PromptCache
from engines.step_reuse import StepReuse
from engines.threads import apply_threads
from engines.types import (
    CancelledEvent,
    EngineEvent,
    GenerationRequest,
    GenerationResult,
    IsCancelled,
    MemoryRung,
    Stage,
    StageEvent,
    StepEvent,
)
from kernels.configurations import use_measured
from kernels.tuning import FILE as TUNED_KERNELS
from kernels.tuning import load_tuned

# Families by the name a model card gives; the module has `load(folder, *, device, dtype) -> Family`.
FAMILIES = {"wan": "engines.families.wan"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Clock = Callable[[], float]
Watch = Callable[[int, torch.Tensor], None]


class Engine:
    """One model on one device. Not for two threads at once; a process has one engine.

    No call of the transformer has more than `max_rows` rows, where something was compiled for so many.
    With `pad_batch_to` every batch is computed with that many rows, so that a film is the same to the last bit whether
    it shares its batch or not. Without it, films of batches of different size agree within 1e-5. `reuse` names steps
    that are extrapolated instead of computed.
    """

    def __init__(
        self,
        *,
        card: ModelCard,
        family: Family,
        backend: Backend,
        pad_batch_to: int | None = None,
        max_rows: int | None = None,
        reuse: StepReuse | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        if pad_batch_to is not None and pad_batch_to < 1:
            raise InvalidRequest("pad_batch_to", f"pad_batch_to is {pad_batch_to}; it must be 1 or more")
        self.card = card
        self._family = family
        self._backend = backend
        self._prompts = PromptCache(family)
        self._pad_batch_to = pad_batch_to
        self._max_rows = max_rows
        self._reuse = reuse
        self._clock = clock

    @property
    def family(self) -> Family:
        """The loaded model, for who measures or trains by its stages."""
        return self._family

    @property
    def backend(self) -> Backend:
        """What runs it."""
        return self._backend

    def reusing(self, reuse: StepReuse | None) -> Engine:
        """The same engine with other steps extrapolated."""
        return Engine(
            card=self.card,
            family=self._family,
            backend=self._backend,
            pad_batch_to=self._pad_batch_to,
            max_rows=self._max_rows,
            reuse=reuse,
            clock=self._clock,
        )

    @property
    def rungs(self) -> tuple[MemoryRung, ...]:
        """The rungs of the memory ladder that this engine has, downwards."""
        return tuple(MemoryRung)[: 2 if self._family.device.type == "cpu" else 3]

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        is_cancelled: IsCancelled | None = None,
        rung: MemoryRung = MemoryRung.WHOLE,
        watch: Watch | None = None,
    ) -> Iterator[EngineEvent]:
        """Make the films of a batch: stage and step events as they happen, then one result for each request, in order.

        All requests share one `shape_key`. `is_cancelled(request_id)` is asked between any two steps and before each
        film is decoded; who is cancelled gets a `CancelledEvent` and no result, and no mate's film changes for it.
        `watch` is shown the latents [B, C, T, H, W] that each step leaves, with its number from 1; it may not change
        them. A lower `rung` needs less memory and more time. An illegal batch, or a rung that is none of `rungs`,
        raises `InvalidRequest` at once, before anything is computed.
        """
        batch = tuple(requests)
        self._check(batch)
        if rung not in self.rungs:
            raise InvalidRequest("rung", f"rung {rung!r} is none of this engine's: {', '.join(map(repr, self.rungs))}")
        if rung < MemoryRung.OFFLOADED:
            return self._run(batch, is_cancelled or _never, rung, watch)
        return self._run_offloaded(batch, is_cancelled or _never, rung, watch)

    def _run_offloaded(
        self, requests: tuple[GenerationRequest, ...], is_cancelled: IsCancelled, rung: MemoryRung, watch: Watch | None
    ) -> Iterator[EngineEvent]:
        try:
            yield from self._run(requests, is_cancelled, rung, watch)
        finally:
            self._family.keep_only(None)

    def _run(
        self, requests: tuple[GenerationRequest, ...], is_cancelled: IsCancelled, rung: MemoryRung, watch: Watch | None
    ) -> Iterator[EngineEvent]:
        # No inference_mode around a yield: it is the thread's, and would hold in the caller's code between two events.
        bucket = len(requests) if rung else self._pad_batch_to or len(requests)
        members = _Members(requests, is_cancelled)
        clock = _Stopwatch(self._clock)

        yield from self._enter("encode", members, rung)
        with clock.measure("encode"):
            text = denoising.encode_batch(self._prompts, requests, bucket)

        yield from self._enter("denoise", members, rung)
        with clock.measure("denoise"):
            batch = denoising.start(self._family, self._backend, requests, text, bucket, reuse=self._reuse)
        while not batch.finished:
            yield from members.drop_cancelled()
            if not members.live:
                return
            with clock.measure("denoise"):
                batch = denoising.step(batch, self._backend)
            if watch is not None:
                watch(batch.steps_done, batch.state.latents[: len(requests)])
            yield from members.stepped(batch)

        yield from members.drop_cancelled()
        yield from self._enter("decode", members, rung)
        yield from self._decode(batch.state.latents, members, clock, rung)

    def _enter(self, stage: Stage, members: _Members, rung: MemoryRung) -> Iterator[EngineEvent]:
        yield from members.enter(stage)
        if rung >= MemoryRung.OFFLOADED:
            self._family.keep_only(stage)

    def _decode(
        self, latents_BCTHW: torch.Tensor, members: _Members, clock: _Stopwatch, rung: MemoryRung
    ) -> Iterator[EngineEvent]:
        """Decode one film at a time, so that no film's pixels depend on how many there are, then hand them all out."""
        frames: dict[int, NDArray[np.uint8]] = {}
        for row in list(members.live):
            if row in members.live:
                with clock.measure("decode"):
                    frames[row] = self._family.decode(latents_BCTHW[row], tiled=rung >= MemoryRung.TILED).numpy()
                yield from members.drop_cancelled()
        for row, request in members.live.items():
            latents = latents_BCTHW[row].float().cpu().numpy().copy()
            yield GenerationResult(
                request=request, frames=frames[row], latents=latents, rung=rung, seconds=dict(clock.seconds)
            )

    def _check(self, requests: tuple[GenerationRequest, ...]) -> None:
        if not requests:
            raise InvalidRequest("requests", "the batch is empty; give at least one request")
        if self._pad_batch_to is not None and len(requests) > self._pad_batch_to:
            raise InvalidRequest(
                "requests",
                f"the batch has {len(requests)} requests; this engine pads to {self._pad_batch_to} and no more",
            )
        if len({request.request_id for request in requests}) < len(requests):
            raise InvalidRequest("request_id", "two requests of the batch have the same request_id")
        rows = len(requests) * (2 if requests[0].guided else 1)
        if self._max_rows is not None and rows > self._max_rows:
            raise InvalidRequest(
                "requests",
                f"the batch takes {rows} rows; this engine is compiled for {self._max_rows}, two a guided film",
            )
        for request in requests:
            check_request(request, self.card)
        keys = sorted({str(request.shape_key) for request in requests})
        if len(keys) > 1:
            raise InvalidRequest(
                "requests", f"requests of one batch must have one shape; these have {' and '.join(keys)}"
            )


class _Stopwatch:
    """Seconds of computing by stage; what the caller does between two events is not counted."""

    def __init__(self, clock: Clock) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        started = self._clock()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + self._clock() - started


class _Members:
    """Which rows of a batch still have someone waiting, and what they are told."""

    def __init__(self, requests: tuple[GenerationRequest, ...], is_cancelled: IsCancelled) -> None:
        self.live = dict(enumerate(requests))
        self._is_cancelled = is_cancelled

    def enter(self, stage: Stage) -> Iterator[EngineEvent]:
        for request in list(self.live.values()):
            yield StageEvent(request_id=request.request_id, stage=stage)

    def stepped(self, batch: Denoising) -> Iterator[EngineEvent]:
        num_steps = batch.state.schedule.num_steps
        for request in list(self.live.values()):
            yield StepEvent(request_id=request.request_id, step=batch.steps_done, num_steps=num_steps)

    def drop_cancelled(self) -> Iterator[EngineEvent]:
        for row, request in list(self.live.items()):
            if self._is_cancelled(request.request_id):
                del self.live[row]
                yield CancelledEvent(request_id=request.request_id)


def load_engine(
    package_or_folder: str | Path,
    *,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    pad_batch_to: int | None = None,
) -> Engine:
    """Load an engine package, or a model by built-in name, folder or hub id, ready to generate.

    A package is verified before anything of it is loaded, and says itself what it runs on. For a model, `backend` is a
    name of `engines.backends`, eager by default; `device` defaults to cuda where there is one, else cpu; `dtype`
    ("float32", "bfloat16", "float16") to bfloat16 on cuda and to float32 on a cpu, whatever the weights are stored in.
    On a cpu this also sets torch's thread count
    (see `engines.threads`). Raises the errors of `engines.errors`.
    """
    if backend is not None:
        find_backend(backend)  # first: a wrong word should not cost minutes of reading weights
    folder = find_model(str(package_or_folder))
    if is_package(folder):
        package = open_package(folder, backend=backend, device=device, dtype=dtype, films=pad_batch_to)
        prepare, device, dtype = package.prepare, package.device, package.dtype
        max_rows, compiled, reuse = package.max_rows, tuple(package.manifest.parts), package.reuse
    else:
        prepare, max_rows, compiled, reuse = find_backend(backend or "eager"), None, (), None
    card = read_card(folder)
    if card.family not in FAMILIES:
        raise UnknownName("model family", card.family, FAMILIES)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = dtype or ("float32" if where.type == "cpu" else "bfloat16")
    if name not in DTYPES:
        raise UnknownName("dtype", name, DTYPES)
    if where.type == "cpu":
        apply_threads()
    elif where.type == "cuda" and (folder / TUNED_KERNELS).exists():
        # With its number: tensors that lie there have it.
        here = torch.empty(0, device=where).device
        use_measured(here, load_tuned(folder / TUNED_KERNELS, torch.cuda.get_device_name(here)))
    family = load_family(card, folder, device=where, dtype=DTYPES[name], compiled=compiled)
    return Engine(
        card=card,
        family=family,
        backend=prepare(family),
        pad_batch_to=pad_batch_to,
        max_rows=max_rows,
        reuse=reuse,
    )


def load_family(
    card: ModelCard, folder: Path, *, device: torch.device, dtype: torch.dtype, compiled: Collection[str] = ()
) -> Family:
    """The loaded model of a folder, by the code of its card's family; `compiled` names a package's compiled parts."""
    return family_module(card).load(folder, device=device, dtype=dtype, compiled=compiled)


def family_module(card: ModelCard) -> Any:
    """The code of a card's family: `load`, and `leave_out_compiled`."""
    return importlib.import_module(FAMILIES[card.family])


def _never(_request_id: str) -> bool:
    return False
