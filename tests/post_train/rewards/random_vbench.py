"""Run in an environment that has vbench: writes random weights of its RAFT and AMT-S where it looks for them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import vbench
from easydict import EasyDict
from omegaconf import OmegaConf
from vbench.third_party.amt.utils.build_utils import build_from_cfg
from vbench.third_party.RAFT.core.raft import RAFT


def main(out: Path) -> None:
    """`raft_model/models/raft-things.pth` and `amt_model/amt-s.pth`, in the format that upstream ships."""
    torch.manual_seed(0)
    raft = RAFT(EasyDict(model="", small=False, mixed_precision=False, alternate_corr=False))
    config = OmegaConf.load(Path(vbench.__file__).parent / "third_party" / "amt" / "cfgs" / "AMT-S.yaml")
    for name, state in (
        ("raft_model/models/raft-things.pth", {f"module.{k}": v for k, v in raft.state_dict().items()}),
        ("amt_model/amt-s.pth", {"state_dict": build_from_cfg(config.network).state_dict()}),
    ):
        (out / name).parent.mkdir(parents=True)
        torch.save(state, out / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
