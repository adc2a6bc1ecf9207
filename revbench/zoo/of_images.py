"""Packages whose blocks are shown on images."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from revbench.zoo.making import (
    CHANNELS,
    CLASSES,
    ImageNetwork,
    Made,
    MadeOfTwo,
    function,
    image_batch,
    imported,
    labelled,
    normal,
    pairs,
    setter_of,
)


def revbench(blocks: int = 3) -> Made:
    """Returns a network of our own chain."""
    from revbench.backprop import reversible

    return ImageNetwork(reversible(pairs(blocks))), image_batch, cross_entropy


def memcnn(blocks: int = 3, preserve: bool = False) -> MadeOfTwo:
    """Returns one of memcnn's additive couplings, each in its wrapper (van de Leemput et al. 2019); `preserve` is its
    ``preserve_rng_state``."""
    package = imported("memcnn")
    wrapped = (
        package.InvertibleModuleWrapper(
            package.AdditiveCoupling(Fm=f, Gm=g),
            keep_input=False,
            keep_input_inverse=False,
            preserve_rng_state=preserve,
        )
        for f, g in pairs(blocks)
    )
    return ImageNetwork(nn.Sequential(*wrapped)), image_batch, cross_entropy, setter_of("disable", True, False)


def revtorch(blocks: int = 3, fixed: bool = False) -> Made:
    """Returns one of RevTorch's blocks; `fixed` is its ``fix_random_seed``."""
    package = imported("revtorch")
    chain = package.ReversibleSequence(
        nn.ModuleList(package.ReversibleBlock(f, g, split_along_dim=1, fix_random_seed=fixed) for f, g in pairs(blocks))
    )
    return ImageNetwork(chain), image_batch, cross_entropy


def revlib(blocks: int = 3) -> Made:
    """Returns one of revlib's sequence."""
    package = imported("revlib")
    chain = package.ReversibleSequential(*(module for pair in pairs(blocks) for module in pair))
    return ImageNetwork(chain), image_batch, cross_entropy


def pytorchcv(blocks: int = 3) -> MadeOfTwo:
    """Returns pytorchcv's RevNet with one group of so many units; its head pools 56 by 56 pixels."""
    package = imported("pytorchcv.models.revnet")
    network = package.RevNet(
        channels=[[CHANNELS] * blocks], init_block_channels=CHANNELS, bottleneck=False, in_size=(56, 56),
        num_classes=CLASSES,
    )  # fmt: skip

    return network, labelled(56), cross_entropy, _set_pytorchcv


def _set_pytorchcv(model: nn.Module, strategy: str) -> None:
    """Sets plain autograd of the same functions, or pytorchcv's own function, on each of its blocks."""

    def plain(x: Tensor, fm: nn.Module, gm: nn.Module, *parameters: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, 1)
        y1 = x1 + fm(x2)
        return torch.cat((y1, x2 + gm(y1)), 1)

    package = imported("pytorchcv.models.revnet")
    for module in model.modules():
        if isinstance(module, package.ReversibleBlock):
            stored = strategy == "stored"
            module.rev_funct = plain if stored else package.ReversibleBlockFunction.apply
            # Its own forward frees the block's input.
            forward = functools.partial(_plain_block, module) if stored else None
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward


def _plain_block(block: Any, x: Tensor) -> Tensor:
    found: Tensor = block.rev_funct(x, block.fm, block.gm)
    return found


def momentumnet(blocks: int = 3) -> Made:
    """Returns momentumnet's network over residual functions of images, with its memory-saving backward pass."""
    package = imported("momentumnet")
    functions = [function(CHANNELS) for _ in range(blocks)]
    return ImageNetwork(package.MomentumNet(functions, gamma=0.9, use_backprop=False)), image_batch, cross_entropy


def iunets(blocks: int = 2, orthogonal: str = "cayley") -> Made:
    """Returns iUNets' network of three levels with so many couplings each (Etmann et al. 2020).

    Args:
        blocks: couplings of a level.
        orthogonal: how orthogonal matrices are made of weights: ``cayley``, ``exp`` or ``householder``.
    """
    package = imported("iunets")

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
            self.net = package.iUNet(
                in_channels=CHANNELS,
                dim=2,
                architecture=(blocks,) * 3,
                module_kwargs={"depth": 2},
                verbose=0,
                resampling_method=orthogonal,
                channel_mixing_method=orthogonal,
            )
            self.head = nn.Conv2d(CHANNELS, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(self.net(self.stem(images)))
            return found

    return Whole(), normal((3, 16, 16), (1, 16, 16)), mse_loss
