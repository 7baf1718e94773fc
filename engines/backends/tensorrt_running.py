"""A serialized TensorRT engine as a function of tensors, on torch's stream and memory. Not run yet: it wants a GPU.

An engine is native code, so that only a package whose signature was checked comes here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engines.errors import PackageRefused
from engines.parts import CompiledPart


def running_engine(trt: Any, path: Path, device: torch.device) -> CompiledPart:
    """The engine of a file, for TensorRT's module `trt`; PackageRefused where the library does not take it."""
    if device.type != "cuda":
        raise PackageRefused(f"{path.name} runs on an NVIDIA GPU, and {device.type} was asked for")
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise PackageRefused(f"TensorRT does not load {path.name}: it was built by another version, or for another GPU")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    (output,) = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
    kinds = {name: _torch_type(trt, engine.get_tensor_dtype(name)) for name in names}

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        # Held until the work is queued: what torch frees it may hand to other work on the same stream alone.
        held = [x.to(device, kinds[name]).contiguous() for name, x in zip(inputs, tensors, strict=True)]
        for name, x in zip(inputs, held, strict=True):
            if not context.set_input_shape(name, tuple(x.shape)):
                raise PackageRefused(f"{path.name} was not built for {name} of shape {list(x.shape)}")
            context.set_tensor_address(name, x.data_ptr())
        out = torch.empty(tuple(context.get_tensor_shape(output)), dtype=kinds[output], device=device)
        context.set_tensor_address(output, out.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream(device).cuda_stream):
            raise RuntimeError(f"TensorRT could not run {path.name}; its log has the reason")
        return out

    return call


def _torch_type(trt: Any, kind: Any) -> torch.dtype:
    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
    }
    return known[kind]
