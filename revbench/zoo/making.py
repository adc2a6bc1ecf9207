"""What the networks of the zoo are made with: functions, batches, a stem and a head."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench.errors import UserError

Batches = Callable[[int, torch.Generator], tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]
Made = tuple[nn.Module, Batches, Loss]
MadeOfTwo = tuple[nn.Module, Batches, Loss, Callable[[nn.Module, str], None]]  # with what sets one of its two ways

CHANNELS, SIZE, CLASSES = 8, 6, 5


def imported(package: str) -> Any:
    """Returns a package.

    Raises:
        UserError: it is not installed, or can't be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they call of PyTorch is deprecated
            return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"{package} can't be imported ({error}); it is of the extra zoo: pip install revbench[zoo]"
        ) from error


def labelled(size: int) -> Batches:
    """Returns what draws square images of this size, and a class of each."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = torch.randn(count, 3, size, size, generator=generator)
        return images, torch.randint(CLASSES, (count,), generator=generator)

    return make_batch


image_batch = labelled(SIZE)


def normal(inputs: Sequence[int], targets: Sequence[int]) -> Batches:
    """Returns what draws inputs and targets of these shapes, behind the number of items, of the normal distribution."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, *inputs, generator=generator), torch.randn(count, *targets, generator=generator)

    return make_batch


class ImageNetwork(nn.Module):
    """A 3×3 convolution, somebody's blocks from one tensor to one, the mean of each channel, a linear layer."""

    def __init__(self, blocks: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.blocks = blocks
        self.head = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(N, 5)`` of images ``(N, 3, S, S)``."""
        logits: Tensor = self.head(self.blocks(self.stem(images)).mean((2, 3)))
        return logits


class SequenceNetwork(nn.Module):
    """A linear layer, somebody's blocks on sequences, a linear layer."""

    def __init__(self, blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = nn.Linear(4, width), blocks, nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, T, 4)`` to ``(N, T, 4)``."""
        found: Tensor = self.head(self.blocks(self.stem(x)))
        return found


def function(channels: int = CHANNELS // 2) -> nn.Module:
    """Returns batch norm, ReLU, a 3×3 convolution and dropout, on feature maps of so many channels."""
    convolution = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), convolution, nn.Dropout(0.5))


def pairs(blocks: int) -> Iterable[tuple[nn.Module, nn.Module]]:
    """Returns F and G of each block."""
    return [(function(), function()) for _ in range(blocks)]


def setter_of(attribute: str, stored: Any, reconstructed: Any) -> Callable[[nn.Module, str], None]:
    """Returns what sets an attribute on every module that has it."""

    def set_strategy(model: nn.Module, strategy: str) -> None:
        for module in model.modules():
            if hasattr(module, attribute):
                setattr(module, attribute, stored if strategy == "stored" else reconstructed)

    return set_strategy
