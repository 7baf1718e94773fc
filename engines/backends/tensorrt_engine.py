"""From an ONNX graph to a serialized TensorRT engine: a strongly typed network, one profile, a timing cache.

TensorRT and TensorRT for RTX have one API; `trt` is either's module. The second builds without a GPU, for named ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.errors import BuildRefused
from engines.parts import ModelPart

Shape = tuple[int, ...]


def serialized_engine(
    trt: Any, graph: Path, part: ModelPart, *, capabilities: Sequence[str] = (), timing_cache: Path | None = None
) -> bytes:
    """The engine of the graph of `part`, for the GPU at hand, or with `capabilities` ("sm_89") for others.

    BuildRefused with TensorRT's own words: for a type that a GPU has not, say.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        found = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise BuildRefused(f"TensorRT cannot read the graph of {part.name}: {found[0] if found else 'no reason given'}")
    config = builder.create_builder_config()
    _add_profile(builder, config, part)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for index, name in enumerate(capabilities):
            config.set_compute_capability(_capability(trt, name), index)
    _read_timings(config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        told = logger.errors[-1] if logger.errors else "no reason given"
        raise BuildRefused(f"TensorRT cannot build {part.name} for {', '.join(capabilities) or 'this GPU'}: {told}")
    _write_timings(config, timing_cache)
    return bytes(engine)


def profile_shapes(part: ModelPart) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Of every input that has a dimension which may vary: its smallest, usual and largest shape."""
    shapes = {}
    for name, example, dynamic in zip(part.inputs, part.examples, part.dynamic, strict=True):
        if dynamic:
            usual = tuple(example.shape)
            low, high = ([*usual], [*usual])
            for at, dim in dynamic.items():
                low[at], high[at] = bounds_of(dim)
            shapes[name] = (tuple(low), usual, tuple(high))
    return shapes


def bounds_of(dim: Any) -> tuple[int, int]:
    """The least and the largest size of a `torch.export.Dim`, or of a multiple of one."""
    root = getattr(dim, "root", None)
    if root is None:
        return dim.min, dim.max
    return dim.fn(root.min), dim.fn(root.max)


def _add_profile(builder: Any, config: Any, part: ModelPart) -> None:
    shapes = profile_shapes(part)
    if not shapes:
        return
    profile = builder.create_optimization_profile()
    for name, (low, usual, high) in shapes.items():
        profile.set_shape(name, low, usual, high)
    config.add_optimization_profile(profile)


def _capability(trt: Any, name: str) -> Any:
    known = trt.ComputeCapability
    word = name.replace("_", "").upper()
    if not hasattr(known, word):
        raise BuildRefused(f"this TensorRT builds for no {name}; it knows {', '.join(sorted(known.__members__))}")
    return getattr(known, word)


def _read_timings(config: Any, path: Path | None) -> None:
    if path is not None and hasattr(config, "create_timing_cache"):
        known = path.read_bytes() if path.exists() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)


def _write_timings(config: Any, path: Path | None) -> None:
    if path is not None and hasattr(config, "get_timing_cache"):
        found = config.get_timing_cache()
        if found is not None:
            path.write_bytes(bytes(found.serialize()))


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):
        """Keeps errors, since a build that fails returns nothing but None."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

    return Logger()
