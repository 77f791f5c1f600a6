"""Count what a model computes while it runs, layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.surgery.column_conv import ColumnConv
from tonsor.surgery.stripe_conv import StripeConv

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def by_hand(model: nn.Module, x: Tensor) -> int:
    """Count multiply-accumulates of one sample as they happen."""
    total = 0

    def hook(layer: Any, given: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, (StripeConv, ColumnConv)):
            total += layer.weight.numel() * out[0, 0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features
        elif isinstance(layer, CONVS):
            inputs = layer.in_channels // layer.groups
            total += out[0].numel() * inputs * int(np.prod(layer.kernel_size))

    kinds = (StripeConv, ColumnConv, nn.Linear, *CONVS)
    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model(x)
    for found in hooks:
        found.remove()
    return total
