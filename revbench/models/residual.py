"""The residual function and the shortcuts that ResNet and RevNet share (Gomez et al. 2017, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.backprop import plain_container

BATCH_NORM_EPSILON = 1e-3  # the authors' code, resnet_model.py: batch_norm(..., epsilon=0.001)


class ResidualFunction(nn.Sequential):
    """Pre-activation residual function: BN-ReLU-convolution, two or three times (He et al. 2016).

    basic: 3x3 to ``out``, 3x3. Bottleneck: 1x1 to ``out / 4``, 3x3, 1x1 to ``out``. The stride sits on
    the first convolution; no convolution has a bias.

    Shape: ``(N, in, H, W)`` to ``(N, out, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution.
        bottleneck: three convolutions instead of two.
        preactivate: begin with BN-ReLU; false in the first unit of a network, whose stem ends in BN-ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        bottleneck: bool = False,
        preactivate: bool = True,
    ) -> None:
        middle = out_channels // 4
        convolutions = (
            [(in_channels, middle, 1), (middle, middle, 3), (middle, out_channels, 1)]
            if bottleneck
            else [(in_channels, out_channels, 3), (out_channels, out_channels, 3)]
        )
        layers: list[nn.Module] = []
        for i, (inputs, outputs, kernel) in enumerate(convolutions):
            if i > 0 or preactivate:
                layers += [batch_norm(inputs), nn.ReLU(inplace=True)]
            layers.append(convolution(inputs, outputs, kernel, stride=stride if i == 0 else 1))
        super().__init__(*layers)


@plain_container
class PaddedPool(nn.Module):
    """Shortcut without parameters: average pooling of the stride, then zero channels, half on each side.

    Shape: ``(N, in, H, W)`` to ``(N, out, H // stride, W // stride)``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Pool, then pad."""
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return F.pad(x, (0, 0, 0, 0, self.padding, self.padding))


def shortcut(in_channels: int, out_channels: int, *, stride: int, bottleneck: bool) -> nn.Module:
    """Returns the identity where the shape stays; else a 1x1 projection (bottleneck) or `PaddedPool` (basic)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if bottleneck:
        return convolution(in_channels, out_channels, 1, stride=stride)
    return PaddedPool(in_channels, out_channels, stride)


def convolution(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    """Returns a convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the paper's epsilon and PyTorch's momentum of 0.1 (the authors' decay of 0.9)."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON)


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Draw the weights, in place, from torch's global generator.

    Convolutions: normal with variance ``2 / (k * k * out)`` (He et al. 2015, equation 14, as in the
    authors' code). Batch norm: scale 1, shift 0. The linear layer keeps PyTorch's default, uniform in
    ``+- 1 / sqrt(fan_in)``, with a bias of 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
