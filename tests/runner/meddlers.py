"""A network whose module sets, when it is imported, what cases say of the whole process; others set it later."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def meddle() -> None:
    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(True, warn_only=True)


meddle()


class Tells(nn.Module):
    """Refuses to run where something else is in force than a case says by default."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.backends.cudnn.benchmark or torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("cuDNN's settings are not those of the case")
        if torch.get_float32_matmul_precision() != "highest" or torch.backends.cudnn.allow_tf32:
            raise RuntimeError("float32 is not that of the case")
        return x


class Meddles(nn.Module):
    """Sets one thing in its first call."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "benchmark":
            torch.backends.cudnn.benchmark = True
        elif self.what == "warnings":
            torch.use_deterministic_algorithms(True, warn_only=True)
        elif self.what == "products":
            torch.set_float32_matmul_precision("high")
        elif self.what == "bfloat16":
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        else:
            torch.set_num_threads(3)
        return x


def network() -> nn.Module:
    meddle()
    return nn.Sequential(nn.Flatten(), Tells(), nn.Linear(3 * 32 * 32, 10))


def later(what: str) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Meddles(what), nn.Linear(3 * 32 * 32, 10))
