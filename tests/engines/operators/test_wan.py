"""A Wan transformer with our operators computes what diffusers' own does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from engines.errors import InvalidModel
from engines.operators import wan as wan_operators
from engines.operators.wan import OperatorBlock, use_operators
from kernels.dispatch import recorded


def _small(**changes: object) -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        **{
            "patch_size": (1, 2, 2),
            "num_attention_heads": 2,
            "attention_head_dim": 24,
            "in_channels": 4,
            "out_channels": 4,
            "text_dim": 16,
            "freq_dim": 32,
            "ffn_dim": 64,
            "num_layers": 2,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "rope_max_seq_len": 32,
            **changes,
        }  # type: ignore[arg-type]
    ).eval()


def _inputs(*, each_token: bool = False) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(2, 4, 3, 6, 4, generator=g),
        "timestep": torch.randint(0, 1000, (2, 18) if each_token else (2,), generator=g),
        "encoder_hidden_states": torch.randn(2, 7, 16, generator=g),
    }


@pytest.mark.parametrize("each_token", [False, True])
def test_the_swapped_forward_is_diffusers(each_token: bool) -> None:
    """A whole forward agrees within 1e-5 of the largest value, with a time for all tokens or one for each."""
    model, inputs = _small(), _inputs(each_token=each_token)
    with torch.no_grad():
        (want,) = model(**inputs, return_dict=False)
        names = set(model.state_dict())
        use_operators(model)
        with recorded() as ran:
            (got,) = model(**inputs, return_dict=False)
    assert float((got - want).abs().max() / want.abs().max()) <= 1e-5
    assert set(model.state_dict()) == names, "the weights have other names"
    assert [name for name, _ in ran] == 2 * [
        "modulated_norm",
        "qk_norm_rope",
        "attention",
        "gated_norm",
        "qk_norm_rope",
        "attention",
        "gated_norm",
        "gated_residual",
    ]


def test_so_is_the_twins() -> None:
    """The same forward with every Triton kernel in its interpreter, in a process that interprets."""
    code = (
        "import torch; from tests.engines.operators.test_wan import _small, _inputs\n"
        "from engines.operators.wan import use_operators\n"
        "from kernels.dispatch import Implementation, using\n"
        "model, inputs = _small(), _inputs()\n"
        "with torch.no_grad():\n"
        "    (want,) = model(**inputs, return_dict=False)\n"
        "    use_operators(model)\n"
        "    with using(Implementation.INTERPRETER):\n"
        "        (got,) = model(**inputs, return_dict=False)\n"
        "print(float((got - want).abs().max() / want.abs().max()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert 0 < float(done.stdout) <= 1e-5


def test_training_goes_through() -> None:
    """Gradients of all weights agree with diffusers' own."""
    inputs, gradients = _inputs(), []
    for swap in (False, True):
        model = _small()
        if swap:
            use_operators(model)
        model(**inputs, return_dict=False)[0].square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, want in gradients[0].items():
        assert float((gradients[1][name] - want).abs().max()) <= 1e-4 * float(want.abs().max()) + 1e-9, name


def test_what_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another diffusers, another block, image attention, no cross norm: one sentence each, and nothing is changed."""
    model = _small()
    with monkeypatch.context() as patched:
        patched.setattr(wan_operators, "version", lambda _: "0.99.0")
        with pytest.raises(InvalidModel, match=r"diffusers 0\.99\.0 is installed"):
            use_operators(model)
    with pytest.raises(InvalidModel, match="cross_attn_norm"):
        use_operators(_small(cross_attn_norm=False))
    with pytest.raises(InvalidModel, match="attends to an image"):
        use_operators(_small(added_kv_proj_dim=16, image_dim=16))
    model.blocks[0] = nn.Identity()
    with pytest.raises(InvalidModel, match="block 0 is a Identity"):
        use_operators(model)
    assert not any(isinstance(block, OperatorBlock) for block in model.blocks)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=str)
def test_so_is_the_forward_on_a_gpu(dtype: torch.dtype, bound: float) -> None:
    """With every Triton kernel compiled; fp32 products may go by another order there, bf16 keeps eight bits."""
    model = _small().to("cuda", dtype)
    inputs = {k: v.to("cuda", dtype if v.is_floating_point() else v.dtype) for k, v in _inputs().items()}
    with torch.no_grad():
        (want,) = model(**inputs, return_dict=False)
        use_operators(model)
        with recorded() as ran:
            (got,) = model(**inputs, return_dict=False)
    assert {way.value for name, way in ran if name != "attention"} == {"triton"}
    assert float((got - want).abs().max() / want.abs().max()) <= bound


def test_a_processor_of_its_own_is_refused() -> None:
    """What somebody set, operators would drop without a word: the sentence says where, and neither model is touched."""

    class Processor:
        def __call__(self, *_: object) -> None: ...

    first, second = _small(), _small()
    second.blocks[1].attn2.set_processor(Processor())
    with pytest.raises(InvalidModel, match="attn2 of block 1 has a processor or an attention backend of its own"):
        use_operators(first, second)
    assert not any(isinstance(block, OperatorBlock) for model in (first, second) for block in model.blocks)
