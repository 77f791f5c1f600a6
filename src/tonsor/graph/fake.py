"""Tensors that have a shape and no values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes


class Faker:
    """Make fake tensors of one mode; the same request gives the same tensor."""

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.made: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """Return a fake of the same layout; what is on the meta device counts as on the CPU."""
        empty = torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta"
        )
        return self._fake(tensor, empty)

    def named(self, name: str, tensor: Tensor, shape: Sequence[int] | None = None) -> Tensor:
        """Return the fake of a parameter or buffer, in another shape if one is given."""
        key = name, tuple(tensor.shape if shape is None else shape)
        known = self.made.get(key)
        if known is None:
            if key[1] == tuple(tensor.shape):
                known = self.like(tensor)
            else:
                known = self._fake(tensor, torch.empty(key[1], dtype=tensor.dtype, device="meta"))
            if isinstance(tensor, nn.Parameter):
                known._is_param = True  # type: ignore[attr-defined]  what makes it a Parameter
            self.made[key] = known
        return known

    def blank(
        self, like: Tensor, shape: Sequence[int], stride: Sequence[int] | None = None
    ) -> Tensor:
        """Return a new fake of a shape, with device and dtype of another."""
        with _disable_current_modes():
            if stride is None:
                empty = torch.empty(shape, dtype=like.dtype, device="meta")
            else:
                empty = torch.empty_strided(shape, stride, dtype=like.dtype, device="meta")
        return FakeTensor(self.mode, empty, like.device)

    def _fake(self, tensor: Tensor, empty: Tensor) -> Tensor:
        device = torch.device("cpu") if tensor.is_meta else tensor.device
        return FakeTensor(self.mode, empty, device)
