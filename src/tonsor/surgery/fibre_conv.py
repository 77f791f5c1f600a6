"""Convolutions that hold only some fibres of their weight: what stripes and columns have in common.

Such a layer runs in one of two ways, which compute the same. `dense` fills its fibres into a weight
whose others are zero; the other way goes by the fibres that there are. While a layer trains it is
dense, whatever was chosen, for that is what is fast with gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.errors import SurgeryError
from tonsor.fibres import Execution, FibreMask, Kind, Run, rows_of
from tonsor.surgery.fibre_tensors import dense_of, fibres_of
from tonsor.surgery.shifts import autocast

_CORE: Any = torch._C


class FibreConv(nn.Module):
    """A convolution of any rank that holds the fibres of a mask; see `StripeConv2d`."""

    kind: ClassVar[Kind]
    rank: ClassVar[int]
    kept: Tensor
    place: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mask: FibreMask,
        kernel_size: Sequence[int],
        *,
        stride: Sequence[int] | int = 1,
        padding: Sequence[int] | int | str = 0,
        dilation: Sequence[int] | int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        run: Run = "",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = tuple(kernel_size)
        self.stride, self.dilation = self._each(stride), self._each(dilation)
        self.padding = padding if isinstance(padding, str) else self._each(padding)
        self.padding_mode = padding_mode
        self._mask = np.array(mask, dtype=np.bool_)
        rows = out_channels if self.kind == "stripes" else in_channels
        whole = (rows, math.prod(self.kernel_size))
        if self._mask.shape != whole:
            message = (
                f"the mask of {rows} {rows_of(self.kind)} with a kernel of {self.kernel_size} has "
                f"the shape {whole}, [{rows_of(self.kind)[:-1]}, position], but "
                f"{self._mask.shape} was given"
            )
            raise SurgeryError(message)
        self.counts = tuple(self._mask.sum(axis=0).tolist())
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        others = (in_channels if self.kind == "stripes" else out_channels) // groups
        self.weight = nn.Parameter(torch.empty(sum(self.counts), others, **made))
        self.bias = nn.Parameter(torch.empty(out_channels, **made)) if bias else None
        self._say_where(self.weight.device)
        self.run: Execution = run or self._likely()
        self._filled = _Filled()
        self.reset_parameters()

    def _say_where(self, device: torch.device) -> None:
        """Hold on a device which fibres there are, and where those go that are held."""
        # In the order in which they are held: position after position, and there row after row.
        positions, rows = (torch.from_numpy(a) for a in np.nonzero(self._mask.T))
        kept = torch.from_numpy(self._mask.copy()).view(len(self._mask), *self.kernel_size)
        place = rows * self._mask.shape[1] + positions
        self.register_buffer("kept", kept.to(device))
        self.register_buffer("place", place.to(device), persistent=False)
        for name, found in self._picks(positions, rows).items():
            self.register_buffer(name, found.to(device), persistent=False)

    def _picks(self, positions: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Return what running by fibres has to know of their positions and rows."""
        raise NotImplementedError

    def _each(self, value: Sequence[int] | int) -> tuple[int, ...]:
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    def _likely(self) -> Execution:
        """Guess which way is faster."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draw weights as convolutions do, for so many inputs as a whole filter has."""
        bound = 1 / math.sqrt(max(1, self.in_channels // self.groups * math.prod(self.kernel_size)))
        for tensor in (self.weight, self.bias):
            if tensor is not None and not tensor.is_meta:
                nn.init.uniform_(tensor, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        if self.training or self.groups > 1 or self.run == "dense":
            return self._as_dense(x)
        if x.dim() == self.rank + 1:  # one sample alone, as convolutions take it too
            return self._by_fibres(x.unsqueeze(0)).squeeze(0)
        return self._by_fibres(x)

    # ------------------------------------------------------------ dense

    def dense_weight(self) -> Tensor:
        """Return a weight `[filter, input, *kernel]` in which the fibres that are gone are zero.

        >>> from tonsor.surgery.stripe_conv import StripeConv2d
        >>> layer = StripeConv2d(8, 4, np.eye(4, 9, dtype=bool), (3, 3))
        >>> layer.dense_weight().shape, int((layer.dense_weight() != 0).sum())
        (torch.Size([4, 8, 3, 3]), 32)
        """
        others = self.in_channels // self.groups
        return dense_of(self.kind, self.weight, self.place, self.kept, others)

    def _as_dense(self, x: Tensor) -> Tensor:
        weight = self._weight_for(x)
        if self.padding_mode == "zeros" and self._even:
            padding: Any = self.padding
        else:
            x, padding = self._padded(x), 0
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return convolve(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _weight_for(self, x: Tensor) -> Tensor:
        """Fill in the fibres, once for as long as the weights are what they were.

        Writing into `weight.data` is not seen until the mode is set anew; torch counts no version
        for that.
        """
        last = self.rank == 2 and not x.is_contiguous()
        weight = self.weight
        if self.training or torch.is_grad_enabled() or watched() or not _plain(weight):
            filled = self.dense_weight()
            return filled if last else filled.contiguous()
        known = self._filled.of(weight, last)
        if known is None:
            laid = torch.channels_last if last else torch.contiguous_format
            known = self.dense_weight().contiguous(memory_format=laid)
            self._filled.keep(weight, last, known)
        return known

    def train(self, mode: bool = True) -> FibreConv:
        """Set the mode."""
        self._filled.drop()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> FibreConv:
        """Move or convert tensors, as `.to` does; where fibres go is said anew, and is right even
        after `to_empty`."""
        super()._apply(fn, recurse)
        self._filled.drop()
        self._say_where(self.weight.device)
        return self

    # ------------------------------------------------------------ fibre by fibre

    def _by_fibres(self, x: Tensor) -> Tensor:
        if not self._fits(x):
            return self._as_dense(x)  # where torch says in its own words what is wrong
        if self.padding_mode == "zeros":
            return self._run(x, self._pads, whole=taken_down())
        return self._run(self._padded(x), [(0, 0)] * self.rank, whole=taken_down())

    def _run(self, x: Tensor, pads: Sequence[tuple[int, int]], *, whole: bool) -> Tensor:
        """Run by fibres; `whole`, by what graphs are made of."""
        raise NotImplementedError

    def _fits(self, x: Tensor) -> bool:
        """Whether a convolution takes this input."""
        if x.dim() != self.rank + 2 or x.shape[1] != self.in_channels:
            return False
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        alike = x.dtype == self.weight.dtype or autocast(x)
        return alike and all(
            n > 0 and n + sum(pad) > span
            for n, pad, span in zip(x.shape[2:], self._pads, spans, strict=True)
        )

    # ------------------------------------------------------------ padding

    @property
    def _pads(self) -> list[tuple[int, int]]:
        """What is added before and behind, in each dimension."""
        if self.padding == "valid":
            return [(0, 0)] * self.rank
        if self.padding == "same":
            whole = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [(n // 2, n - n // 2) for n in whole]
        return [(int(p), int(p)) for p in self.padding]

    @property
    def _even(self) -> bool:
        return all(before == behind for before, behind in self._pads)

    def _padded(self, x: Tensor) -> Tensor:
        flat = [n for pair in reversed(self._pads) for n in pair]
        return F.pad(x, flat, "constant" if self.padding_mode == "zeros" else self.padding_mode)

    # ------------------------------------------------------------ what is said and loaded

    def extra_repr(self) -> str:
        """Say how many fibres there are, of how many."""
        text = f"{self.in_channels}, {self.out_channels}, "
        text += f"{self.kind}={len(self.weight)}/{self.kept.numel()}"
        for name, usual in (("stride", 1), ("dilation", 1)):
            value = getattr(self, name)
            if set(value) != {usual}:
                text += f", {name}={value[0] if len(set(value)) == 1 else value}"
        return text if self.groups == 1 else f"{text}, groups={self.groups}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **more: Any
    ) -> None:
        found = state_dict.get(f"{prefix}kept")
        differs = (
            found is not None
            and not found.is_meta
            and (
                found.shape != self.kept.shape
                or not np.array_equal(found.cpu().numpy().reshape(self._mask.shape), self._mask)
            )
        )
        if differs:
            message = (
                f"'{prefix.rstrip('.')}' holds other {self.kind} than those that were saved; apply "
                "the plan of the saved model, or use tonsor.load"
            )
            errors: list[str] = rest[4] if len(rest) > 4 else more["error_msgs"]
            errors.append(message)
            return
        super()._load_from_state_dict(state_dict, prefix, *rest, **more)
        self._filled.drop()
        if self.place.device != self.weight.device:  # weights were put in the place of meta ones
            self._say_where(self.weight.device)


class _Filled:
    """A weight that was filled in, for as long as what it was filled from is the same.

    It is no part of the layer: copies and files of that start without.
    """

    __slots__ = ("_about", "_filled")

    def __init__(self) -> None:
        self.drop()

    def of(self, weight: Tensor, last: bool) -> Tensor | None:
        """Return what was filled in from a weight, unless that is another now."""
        about, filled = self._about, self._filled
        same = about is not None and about[0] is weight and about[2] == _state(weight, last)
        return filled if same else None

    def keep(self, weight: Tensor, last: bool, filled: Tensor) -> None:
        """Keep what was filled in."""
        # The memory is held on to, so that no other weight can come to lie where this one lay.
        self._about = (weight, weight.detach(), _state(weight, last))
        self._filled = filled

    def drop(self) -> None:
        """Forget it."""
        self._about: tuple[Any, ...] | None = None
        self._filled: Tensor | None = None

    def __reduce__(self) -> tuple[type[_Filled], tuple[()]]:
        return _Filled, ()


def _state(weight: Tensor, last: bool) -> tuple[Any, ...]:
    return weight._version, weight.data_ptr(), weight.dtype, weight.shape, weight.stride(), last


Layer = TypeVar("Layer", bound=FibreConv)


def holding(kinds: Sequence[type[Layer]], conv: nn.Module, mask: FibreMask, run: Run) -> Layer:
    """Return the layer that holds some fibres of a convolution, with its weights and gradient.

    `kinds` are the classes of layers along one, two and three dimensions.
    """
    given: Any = conv
    weight: Tensor = given.weight
    layer = kinds[weight.dim() - 3](
        given.in_channels, given.out_channels, mask, given.kernel_size, stride=given.stride,
        padding=given.padding, dilation=given.dilation, groups=given.groups,
        bias=given.bias is not None, padding_mode=given.padding_mode, run=run,
        device=weight.device, dtype=weight.dtype,
    )  # fmt: skip
    fibres = fibres_of(layer.kind, weight, mask)
    layer.weight = nn.Parameter(fibres, requires_grad=weight.requires_grad)
    if weight.grad is not None:
        layer.weight.grad = fibres_of(layer.kind, weight.grad, mask)
    layer.bias = given.bias
    layer.train(conv.training)
    return layer


def as_conv(layer: FibreConv) -> nn.Module:
    """Return the convolution that a layer stands for, whose other fibres are zero."""
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[layer.rank - 1]
    conv = kind(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
        layer.dilation, layer.groups, layer.bias is not None, layer.padding_mode, "meta",
    )  # fmt: skip
    filled = layer.dense_weight().detach().contiguous()
    conv.weight = nn.Parameter(filled, requires_grad=layer.weight.requires_grad)
    conv.bias = layer.bias
    return conv.train(layer.training)


def watched() -> bool:
    """Whether somebody looks at every operator, to whom a weight made before would be unknown."""
    return taken_down() or _CORE._len_torch_dispatch_stack() > 0


def taken_down() -> bool:
    """Whether what is run now is made into a graph, or runs under a transform such as `vmap`."""
    return (
        torch.compiler.is_compiling() or _CORE._is_tracing()
        or _CORE._functorch.peek_interpreter_stack() is not None
    )  # fmt: skip


def _plain(weight: Tensor) -> bool:
    return type(weight) in (nn.Parameter, Tensor) and not (weight.is_meta or weight.is_inference())
