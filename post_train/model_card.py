"""The built-in model's card: what it is, how it came to be, and what it cannot do."""

from __future__ import annotations

from typing import Any

_TEXT = """# diorama

A small Wan for text-to-video: `WanTransformer3DModel` (11.6M weights), `AutoencoderKLWan` (2.9M, 48 latent channels,
8x8x4) and a UMT5-style text encoder (1.5M) with its own byte-level tokenizer. Stock diffusers loads the folder with
`WanPipeline.from_pretrained`. All weights are fp16 safetensors, averaged (EMA).

**Trained from nothing** by `rushes train diorama-vae` and `rushes train diorama-base` on the wild split of the Diorama
world (version {world_version}): {clips_seen:,} clips{lineage}.
About 15 % of their captions err in one attribute. `manifest.json` names the recipe, the latents and the parent by hash.
No data from outside was used but 38 sprites of Microsoft's Fluent emoji (MIT).

**Made for** 64x64 pixels, 17 frames at 8 a second, UniPC, 20 steps, guidance 4, flow shift 3, and prompts in the words
of `post_train/data/diorama/vocabulary.py`: objects, colours, actions, ground, sky, weather, camera.

**Cannot** draw what that vocabulary does not name, count beyond two, write, or show people; other sizes than it was
trained at are computed but not learnt. It inherits its data's faults: objects cut by the frame's edge, compression,
shake.
"""


def model_card(manifest: dict[str, Any]) -> str:
    """The card's text with the figures of `manifest`."""
    parent = manifest["parent"]
    lineage = f", the last {manifest['step']:,} steps from the weights {parent[:12]}" if parent else ""
    return _TEXT.format(**manifest, lineage=lineage)
