"""Run in an environment that has hpsv3: writes a tiny HPSv3 of random weights, with its configuration, into argv[1]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hpsv3
import torch
import yaml
from hpsv3.train import create_model_and_processor
from hpsv3.utils.parser import DataConfig, ModelConfig, PEFTLoraConfig, TrainingConfig, parse_args_with_yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

_MARKS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def _tokenizer(folder: Path) -> Qwen2TokenizerFast:
    """Bytes and marks, in the files that Qwen's tokenizer reads."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(["a"], trainers.BpeTrainer(vocab_size=257, initial_alphabet=alphabet))
    (folder / "vocab.json").write_text(json.dumps(json.loads(raw.to_str())["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
    return Qwen2TokenizerFast(*files, additional_special_tokens=_MARKS)


def _base(folder: Path) -> None:
    """A Qwen2-VL of two layers and 32 channels, as a folder that hpsv3 takes for its base."""
    tokenizer = _tokenizer(folder)
    processor = Qwen2VLProcessor(image_processor=Qwen2VLImageProcessor(), tokenizer=tokenizer, chat_template=_CHAT)
    processor.save_pretrained(folder)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in _MARKS}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "in_channels": 3}
    config = Qwen2VLConfig(
        vocab_size=len(tokenizer) + 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vision_config=vision,
        rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


def main(out: Path) -> None:
    """Base model, configuration `tiny.yaml` and checkpoint `tiny.safetensors`."""
    torch.manual_seed(0)
    base = out / "base"
    base.mkdir(parents=True)
    _base(base)
    own = yaml.safe_load((Path(hpsv3.__file__).parent / "config" / "HPSv3_7B.yaml").read_text())
    own.pop("deepspeed")
    changed = {"model_name_or_path": str(base), "bf16": False, "torch_dtype": "float32", "disable_flash_attn2": True}
    config = out / "tiny.yaml"
    config.write_text(yaml.safe_dump({**own, **changed, "report_to": "none"}))
    kinds = (DataConfig, TrainingConfig, ModelConfig, PEFTLoraConfig)
    (_, training, model, lora), _ = parse_args_with_yaml(kinds, str(config), is_train=False)
    whole, _, _ = create_model_and_processor(model_config=model, peft_lora_config=lora, training_args=training)
    save_file({k: v.clone().contiguous() for k, v in whole.state_dict().items()}, out / "tiny.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
