"""Take the kept indices of a tensor, with everything else about it unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Kept = Sequence[Sequence[int] | None]


def cut_tensor(tensor: Tensor, kept: Kept) -> Tensor:
    """Return a smaller tensor with the kept indices of each dimension (None = all)."""
    out = tensor.detach()
    for dim, indices in enumerate(kept):
        if indices is not None:
            out = out.index_select(dim, torch.as_tensor(indices, device=out.device))
    whole = all(indices is None for indices in kept)
    return _laid_out_like(tensor, out.clone() if whole else out)


def widen_tensor(small: Tensor, big: Tensor, kept: Kept) -> Tensor:
    """Return `big` with `small` written at its kept indices: the way back from `cut_tensor`."""
    out = big.detach().clone()
    places = [
        torch.arange(n) if k is None else torch.as_tensor(k)
        for n, k in zip(big.shape, kept, strict=True)
    ]
    if not places:
        out.copy_(small)
    else:
        grid = torch.meshgrid(*places, indexing="ij")
        out[tuple(g.to(out.device) for g in grid)] = small.detach().to(out)
    return out


def mask_(tensor: Tensor, kept: Kept) -> None:
    """Set everything that is not kept to zero."""
    for dim, indices in enumerate(kept):
        if indices is not None:
            gone = torch.ones(tensor.shape[dim], dtype=torch.bool, device=tensor.device)
            gone[torch.as_tensor(indices, device=tensor.device)] = False
            tensor.detach().index_fill_(dim, gone.nonzero().flatten(), 0)


def replace_parameter(old: Tensor, data: Tensor) -> Tensor:
    """Wrap new data the way the old tensor was: parameter, its subclass, flags and gradient."""
    if not isinstance(old, nn.Parameter):
        return data
    if type(old) is nn.Parameter:
        new = nn.Parameter(data, requires_grad=old.requires_grad)
    else:
        new = torch.Tensor._make_subclass(type(old), data, old.requires_grad)
    vars(new).update(vars(old))  # type: ignore[attr-defined]  a tensor has a real __dict__
    return new


def copy_parameter(name: str, tensor: Tensor) -> Tensor:
    """Copy a tensor and what it is wrapped in; made for `clone`."""
    return replace_parameter(tensor, tensor.detach().clone())


def _laid_out_like(tensor: Tensor, out: Tensor) -> Tensor:
    for rank, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        strided = tensor.dim() == rank and not tensor.is_contiguous()
        if strided and tensor.is_contiguous(memory_format=layout):
            return out.contiguous(memory_format=layout)
    return out.contiguous()
