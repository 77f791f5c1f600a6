"""SWP's table of ResNet-18 on ImageNet: how many stripes each convolution has, as published."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask
from tonsor.plans import Plan
from tonsor.select.fibres.frame import Frame
from tonsor.surgery.stripe_conv import StripeConv

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, slots=True)
class Row:
    """A convolution: its stripes, of how many, and the filters that have any, of how many."""

    layer: str
    stripes: int
    filters: int
    whole: int
    positions: int = 9


TABLE2: tuple[Row, ...] = (
    Row("conv1", 324, 64, 64, 49),
    Row("layer1.0.conv1", 102, 57, 64),
    Row("layer1.0.conv2", 164, 64, 64),
    Row("layer1.1.conv1", 175, 62, 64),
    Row("layer1.1.conv2", 300, 64, 64),
    Row("layer2.0.conv1", 475, 119, 128),
    Row("layer2.0.conv2", 636, 128, 128),
    Row("layer2.1.conv1", 662, 128, 128),
    Row("layer2.1.conv2", 648, 128, 128),
    Row("layer3.0.conv1", 995, 252, 256),
    Row("layer3.0.conv2", 1502, 256, 256),
    Row("layer3.1.conv1", 1148, 256, 256),
    Row("layer3.1.conv2", 944, 256, 256),
    Row("layer4.0.conv1", 1304, 498, 512),
    Row("layer4.0.conv2", 2448, 512, 512),
    Row("layer4.1.conv1", 3111, 512, 512),
    Row("layer4.1.conv2", 2927, 512, 512),
)


def resnet18_plan(anatomy: Anatomy, *, seed: int = 0) -> Plan:
    """Return a plan with the numbers of the published ResNet-18; which stripes stay is drawn.

    Each filter that stays has one stripe at least. The anatomy is that of the zoo's ResNet-18, or
    of any whose layers have the same names and sizes.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet18")
    >>> plan = resnet18_plan(tonsor.inspect(net, torch.randn(1, 3, 64, 64)))
    >>> plan.stripes["layer1.0.conv1.weight"].left, len(plan.keep)
    (102, 5)
    """
    layers = find_stripes(anatomy)
    rng = np.random.default_rng(seed)
    masks: dict[str, FibreMask] = {}
    for row in TABLE2:
        layer = layers.by_name.get(row.layer)
        if layer is None or layer.reason or (layer.filters, layer.positions) != (
            row.whole, row.positions
        ):  # fmt: skip
            message = (
                f"the table is of a ResNet-18 for ImageNet, whose '{row.layer}' has {row.whole} "
                f"filters of {row.positions} stripes that may go; the model's has not. Make one "
                'with tonsor.zoo.build("resnet18")'
            )
            raise PlanError(message)
        masks[row.layer] = _drawn(row, rng)
    free = {x.name for x in layers.free}
    others = layers.without(sorted(free - masks.keys()), "the table leaves it whole")
    return Frame(anatomy, others).plan(masks, {"by": "SWP, table 2 of the supplement"})


def _drawn(row: Row, rng: np.random.Generator) -> FibreMask:
    """Draw stripes: one of each filter that stays, and the others from what is left of those."""
    mask = np.zeros((row.whole, row.positions), dtype=np.bool_)
    stay = np.sort(rng.permutation(row.whole)[: row.filters])
    mask[stay, rng.integers(row.positions, size=row.filters)] = True
    left = [(f, p) for f in stay for p in range(row.positions) if not mask[f, p]]
    for i in rng.permutation(len(left))[: row.stripes - row.filters]:
        mask[left[i]] = True
    return mask


def listing(slim: nn.Module) -> str:
    """Write down the layers of a model as the paper does.

    The paper leaves out the 1×1 convolutions of shortcuts, and the stride of the first layer.

    >>> print(listing(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8))))
    (0): Conv(3,8,stride=2)
    (1): BatchNorm(8)
    """
    lines = [(name, _line(module)) for name, module in slim.named_modules()]
    return "\n".join(f"({name}): {text}" for name, text in lines if text)


def _line(module: nn.Module) -> str:
    if isinstance(module, StripeConv):
        return f"Strip({module.in_channels},{len(module.weight)}{_stride(module.stride)})"
    if isinstance(module, _CONVS):
        return f"Conv({module.in_channels},{module.out_channels}{_stride(module.stride)})"
    if isinstance(module, _NORMS):
        return f"BatchNorm({module.num_features})"
    if isinstance(module, nn.Linear):
        return f"Linear({module.in_features},{module.out_features})"
    return ""


def _stride(stride: tuple[int, ...]) -> str:
    """Say a stride that is not one."""
    if math.prod(stride) == 1:
        return ""
    return f",stride={stride[0] if len(set(stride)) == 1 else stride}"
