"""Networks that ask their data, or use operators of their own."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

torch.library.define("revbench_tests::opaque", "(Tensor x) -> Tensor")


@torch.library.impl("revbench_tests::opaque", "CPU")
def _opaque(x: Tensor) -> Tensor:
    return x.clone()


class Opaque(nn.Conv2d):
    """Uses an operator without a fake kernel."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.revbench_tests.opaque(super().forward(x))
        return out


class Curious(nn.Conv2d):
    """Looks at its data."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


class Counting(nn.Conv2d):
    """Asks of its data what depends on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        count = int(torch.ones(len(x)).sum() + 0 * x.sum())
        return super().forward(x) * count


class Dynamic(nn.Conv2d):
    """As many numbers as its data say."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x)
        return out * out[out > 0].sum()


def talkative() -> nn.Module:
    """Prints what it does."""
    print("built with care")
    return network()


def leaves() -> nn.Module:
    """Ends the process."""
    sys.exit("not today")


def network(kind: str = "Conv2d", width: int = 4) -> nn.Module:
    """One convolution of a kind, and a linear layer."""
    kinds = {"Opaque": Opaque, "Curious": Curious, "Counting": Counting, "Dynamic": Dynamic, "Conv2d": nn.Conv2d}
    return nn.Sequential(
        kinds[kind](3, width, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
    )


NETWORK = network()
