"""What several networks of the zoo are made of."""

from __future__ import annotations

from torch import nn


def scaled(channels: int, width: float) -> int:
    """Multiply a number of channels by the width; at least one stays.

    >>> scaled(64, 0.25), scaled(16, 0.01)
    (16, 1)
    """
    return max(1, round(channels * width))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps the size at stride 1; the bias is left to the norm behind."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def start_convolutions(model: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. (2015) do, for ReLU behind them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
