"""The two random Wans that both servers serve: `models.py FOLDER` writes FOLDER/tiny and FOLDER/slow.

`tiny` is the tests' tiny Wan: a step takes about 10 ms, so that the server's own share shows. `slow` is the same but
for a transformer wide enough that a step takes 0.2 s, about as long as a Wan 1.3B's on a data-centre GPU.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from tests.tiny_wan import CARD, build_tiny_wan, save_pipeline

_MOST_STEPS = 1000


def main(folder: Path) -> None:
    """Save both."""
    card = copy.deepcopy(CARD)
    # The tests' card allows too few steps for films that last.
    card["limits"].update(max_steps=_MOST_STEPS, max_work=64 * 64 * 9 * _MOST_STEPS)
    save_pipeline(build_tiny_wan(), folder / "tiny", {**card, "name": "tiny"})
    slow = build_tiny_wan()
    torch.manual_seed(0)
    slow.register_modules(transformer=_wide_transformer())
    save_pipeline(slow, folder / "slow", {**card, "name": "slow"})


def _wide_transformer() -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=8,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=2048,
        num_layers=8,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    ).eval()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
