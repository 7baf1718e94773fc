"""TensorRT for RTX really builds a Wan's step for GPUs that are not here, and refuses what one of them has not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from engines.backends.onnx_graph import write_onnx
from engines.backends.onnx_qdq import quantize_layers
from engines.backends.tensorrt_engine import profile_shapes, serialized_engine
from engines.backends.tensorrt_rtx import FORM
from engines.backends.tensorrt_running import running_engine
from engines.errors import BuildRefused, PackageRefused
from engines.operators.wan_parts import step_part
from engines.operators.wan_prompt import prompt_keys
from engines.parts import ModelPart
from engines.profile import ShapeProfile
from engines.quantization.forms import STATIC_INPUTS, Form, QuantizedLayers, bears
from tests.engines.operators.test_wan import _small

PROFILE = ShapeProfile(
    min_width=32, max_width=128, min_height=32, max_height=128, min_frames=5, max_frames=33, max_rows=8
)
STORED: dict[Form, int] = {
    "int8-static": onnx.TensorProto.INT8,
    "fp8": onnx.TensorProto.FLOAT8E4M3FN,
    "nvfp4": onnx.TensorProto.FLOAT4E2M1,
    "int8-weights": onnx.TensorProto.INT8,
    "int4-weights": onnx.TensorProto.INT4,
}
FORMS: tuple[Form | None, ...] = (None, *STORED)
ADDED = {"QuantizeLinear", "DequantizeLinear", "TRT_FP4DynamicQuantize", "Cast", "Transpose"}
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def _part(dtype: torch.dtype) -> ModelPart:
    model = _small().eval().requires_grad_(requires_grad=False)
    model.to(dtype=dtype)
    channels, text = model.config["in_channels"], model.config["text_dim"]
    with torch.no_grad():
        rows = [prompt_keys(model, torch.randn(16, text).to(dtype), length) for length in (5, 3)]
    return step_part("step", model, rows, (channels, 3, 8, 8), ((channels, 2, 4, 4), (channels, 9, 16, 16)), PROFILE)


def _layers(module: nn.Module, form: Form) -> dict[str, float]:
    """Every layer of the blocks that a step goes through and that divides as the form wants it, with inputs up to 4."""
    named = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and "blocks" in name and bears(layer.weight, form)
    ]
    return {name: 4.0 for name in named if "attn2.to_k" not in name and "attn2.to_v" not in name}


@pytest.fixture(
    scope="module", params=[pytest.param(torch.float16, marks=pytest.mark.long), torch.bfloat16], ids=NAMES.get
)
def part(request: pytest.FixtureRequest) -> ModelPart:
    return _part(request.param)


@pytest.fixture(scope="module")
def graphs(part: ModelPart, tmp_path_factory: pytest.TempPathFactory) -> dict[Form | None, Path]:
    """The part's graph as it is, and with its layers in fewer bits."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {form: folder / f"{form}.onnx" for form in FORMS}
    write_onnx(part, found[None])
    for form in STORED:
        found[form].write_bytes(found[None].read_bytes())
        quantize_layers(found[form], part.module, QuantizedLayers(form=form, largest=_layers(part.module, form)))
    return found


def test_rope_is_exported_without_scattering(graphs: dict[Form | None, Path]) -> None:
    """ScatterND, which a rotation by slices becomes, is poor for TensorRT."""
    kinds = {node.op_type for node in onnx.load(graphs[None]).graph.node}
    assert "MatMul" in kinds
    assert not any(kind.startswith("Scatter") for kind in kinds)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("capability", ["sm_80", pytest.param("sm_86", marks=pytest.mark.long), "sm_89", "sm_120"])
def test_a_step_is_built_for_gpus_that_are_not_here(
    part: ModelPart, graphs: dict[Form | None, Path], capability: str, form: Form | None
) -> None:
    """fp16, bf16, int8, fp8, NVFP4, and weights alone in int8 and int4.

    What hardware lacks is refused in TensorRT's words: fp8 for Ampere, NVFP4 for all before Blackwell.
    """

    def build() -> bytes:
        return serialized_engine(FORM.library, graphs[form], part, capabilities=[capability])

    lacking = {"fp8": {"sm_80", "sm_86"}, "nvfp4": {"sm_80", "sm_86", "sm_89"}}
    if capability in lacking.get(form or "", ()):
        with pytest.raises(
            BuildRefused, match=rf"cannot build step for {capability}: .*HW-specific datatypes: .*fp[48]"
        ):
            build()
    else:
        assert len(build()) > 100_000


def test_one_engine_for_several_gpus(part: ModelPart, graphs: dict[Form | None, Path]) -> None:
    """What all of them have; a GPU that this TensorRT knows nothing of is refused by name."""
    several = ["sm_80", "sm_86", "sm_89", "sm_120"]
    assert serialized_engine(FORM.library, graphs[None], part, capabilities=several)
    with pytest.raises(BuildRefused, match=r"builds for no sm_90; it knows .*SM89"):
        serialized_engine(FORM.library, graphs[None], part, capabilities=["sm_90"])


def test_layers_in_fewer_bits_are_in_the_graph(part: ModelPart, graphs: dict[Form | None, Path]) -> None:
    """One node for each layer's weight, which is in few bits alone, and a pair for an input that is rounded."""
    plain = onnx.load(graphs[None])
    for form, kind in STORED.items():
        layers, graph = _layers(part.module, form), onnx.load(graphs[form]).graph
        assert layers
        kinds = [node.op_type for node in graph.node]
        inputs = len(layers) if form in {*STATIC_INPUTS, "nvfp4"} else 0
        assert kinds.count("QuantizeLinear") + kinds.count("TRT_FP4DynamicQuantize") == inputs
        # NVFP4 has scales of scales.
        assert kinds.count("DequantizeLinear") == (len(layers) + inputs) * (2 if form == "nvfp4" else 1)
        stored = {c.name: c.data_type for c in graph.initializer}
        assert all(stored[f"{name}.w4" if form == "nvfp4" else f"{name}.w8"] == kind for name in layers)
        assert len(graphs[form].read_bytes()) < len(graphs[None].read_bytes())
        assert sum(k not in ADDED for k in kinds) == sum(n.op_type not in ADDED for n in plain.graph.node)


def test_bounds_of_a_profile_are_those_of_the_part(part: ModelPart) -> None:
    """Smallest, usual and largest shape of each input that varies."""
    shapes = profile_shapes(part)
    channels = part.examples[0].shape[1]
    assert shapes["latents"] == ((1, channels, 2, 4, 4), (2, channels, 3, 8, 8), (8, channels, 9, 16, 16))
    assert [shape[3] for shape in shapes["keys"]] == [64, 128, 512]
    assert "time" not in shapes


def test_a_graph_that_is_none_is_refused(part: ModelPart, tmp_path: Path) -> None:
    """In a sentence."""
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BuildRefused, match="cannot read the graph of step"):
        serialized_engine(FORM.library, path, part, capabilities=["sm_89"])


def test_an_engine_is_not_run_without_a_gpu(tmp_path: Path) -> None:
    """The file is not even read."""
    with pytest.raises(PackageRefused, match="runs on an NVIDIA GPU, and cpu was asked for"):
        running_engine(FORM.library, tmp_path / "none.rtx", torch.device("cpu"))
