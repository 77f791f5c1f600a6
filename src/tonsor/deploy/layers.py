"""A convolution with what follows it, and its place in a deployed model."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.surgery.fibre_conv import FibreConv

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class FusedConv(nn.Module):
    """A convolution, then perhaps a sum with a residual, then perhaps a ReLU.

    It is made of ordinary operators. All faster ways to run a layer are compared with it.

    >>> import torch
    >>> layer = FusedConv(nn.Conv2d(3, 8, 3), relu=True)
    >>> bool((layer(torch.randn(1, 3, 8, 8)) >= 0).all())
    True
    """

    def __init__(self, conv: nn.Module, *, relu: bool = False, adds: bool = False) -> None:
        super().__init__()
        self.conv: Any = conv
        self.relu, self.adds = relu, adds

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        out = self.conv(x)
        if residual is not None:
            out = out + residual
        return F.relu(out) if self.relu else out

    @property
    def rank(self) -> int:
        """How many dimensions it slides along."""
        return rank_of(self.conv)


class Site(nn.Module):
    """Where a deployed model runs a convolution: `way` runs, `reference` says what it computes.

    `norm` says that a batch norm was folded into it.
    """

    def __init__(self, name: str, reference: FusedConv) -> None:
        super().__init__()
        self.name, self.chosen, self.norm = name, "", False
        self.reference: FusedConv = reference
        self.way: nn.Module = reference

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Run it in the way that was chosen."""
        return self.way(x, residual)

    def extra_repr(self) -> str:
        """Say whose place it is."""
        return f"{self.name}, {self.chosen or 'reference'}"


def channels_last(x: Tensor) -> Tensor:
    """Lay the channels of images last in memory; other tensors stay as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def rank_of(conv: nn.Module) -> int:
    """Return how many dimensions a convolution slides along."""
    return len(conv.kernel_size)  # type: ignore[arg-type]


def pads_of(conv: Any) -> list[tuple[int, int]]:
    """Return what a convolution adds before and behind, in each dimension."""
    if isinstance(conv, FibreConv):
        return conv._pads
    if conv.padding == "valid":
        return [(0, 0)] * rank_of(conv)
    if conv.padding == "same":
        whole = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return [(n // 2, n - n // 2) for n in whole]
    return [(int(p), int(p)) for p in conv.padding]


def is_plain(module: nn.Module) -> bool:
    """Whether a module is a convolution that computes what its class says, and nothing else."""
    watched = module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    if watched:
        return False
    if isinstance(module, FibreConv):
        # A weight that is computed, as while a method trains, is no tensor that can be folded.
        return type(module).forward is FibreConv.forward and "weight" in module._parameters
    return any(
        isinstance(module, kind)
        and type(module).forward is kind.forward
        and type(module)._conv_forward is kind._conv_forward  # type: ignore[attr-defined]
        and not module.weight.is_complex()
        for kind in CONVS
    )


def own_copy(module: Any) -> nn.Module:
    """Return a convolution with tensors of its own; a weight that is computed is computed now."""
    if isinstance(module, FibreConv):
        made: Any = copy.deepcopy(module)
    else:
        made = CONVS[rank_of(module) - 1](
            module.in_channels, module.out_channels, module.kernel_size, module.stride,
            module.padding, module.dilation, module.groups, module.bias is not None,
            module.padding_mode, device="meta",
        )  # fmt: skip
    made.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
    if module.bias is not None:
        made.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=False)
    return made.eval()


def kept_share(conv: Any) -> float:
    """Return the share of its weight that a convolution holds."""
    if not isinstance(conv, FibreConv):
        return 1.0
    return len(conv.weight) / max(1, conv.kept.numel())


def described(conv: Any) -> str:
    """Say what a convolution is.

    >>> described(nn.Conv2d(64, 128, 3))
    'dense 64->128 3x3'
    """
    kernel = "x".join(map(str, conv.kernel_size))
    groups = f" /{conv.groups}" if conv.groups > 1 else ""
    shape = f"{conv.in_channels}->{conv.out_channels} {kernel}{groups}"
    return f"{conv.kind if isinstance(conv, FibreConv) else 'dense'} {shape}"
