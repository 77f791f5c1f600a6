"""What a cut leaves of tensors and convolutions where fibres go, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tonsor.errors import SurgeryError
from tonsor.fibres import Fibres, rows_of
from tonsor.graph.clone import clone
from tonsor.surgery.column_conv import columned
from tonsor.surgery.fibre_conv import FibreConv, as_conv
from tonsor.surgery.fibre_tensors import fibres_of, mask_fibres_, write_fibres_
from tonsor.surgery.slice import Kept, copy_parameter, cut_tensor, mask_, widen_tensor
from tonsor.surgery.stripe_conv import striped
from tonsor.types import Cut


def mask_as(cut: Cut, name: str, tensor: Tensor) -> None:
    """Set everything of a parameter to zero that a cut does not keep."""
    if name in cut.keep:
        mask_(tensor, cut.keep[name])
    if (fibres := cut.fibres.get(name)) is not None:
        mask_fibres_(fibres.kind, tensor, fibres.mask)


def left_of(tensor: Tensor, kept: Kept | None, fibres: Fibres | None) -> Tensor:
    """Return what stays of a tensor, or of what has its shape."""
    left = tensor.detach().clone() if kept is None else cut_tensor(tensor, kept)
    return left if fibres is None else fibres_of(fibres.kind, left, fibres.taking(kept).mask)


def put_back(small: Tensor, big: Tensor, kept: Kept | None, fibres: Fibres | None) -> Tensor:
    """Return `big` with what stays of it replaced by `small`: the way back from `left_of`."""
    if fibres is None:
        return big.detach().clone() if kept is None else widen_tensor(small, big, kept)
    dense = (big if kept is None else cut_tensor(big, kept)).detach().clone()
    write_fibres_(fibres.kind, dense, small, fibres.taking(kept).mask)
    return dense if kept is None else widen_tensor(dense, big, kept)


def left_shape(shape: Sequence[int], kept: Kept | None, fibres: Fibres | None) -> tuple[int, ...]:
    """Return the shape that is left of a tensor."""
    dims = kept or (None,) * len(shape)
    left = tuple(s if k is None else len(k) for s, k in zip(shape, dims, strict=True))
    return left if fibres is None else (fibres.taking(kept).left, left[1 - fibres.dim])


def fibre_layers(slim: nn.Module, cut: Cut) -> None:
    """Replace convolutions, which are cut otherwise already, by what holds their fibres."""
    for name, fibres in cut.fibres.items():
        path = name.rpartition(".")[0]
        conv = slim.get_submodule(path)
        if not is_conv(conv):
            raise SurgeryError(_no_conv(path, conv, fibres))
        make = striped if fibres.kind == "stripes" else columned
        layer = make(conv, fibres.taking(cut.keep.get(name)).mask, fibres.run)
        _take_over(conv, layer)
        for parent, key in _places(slim, conv):
            parent._modules[key] = layer


def _no_conv(path: str, module: nn.Module, fibres: Fibres) -> str:
    return f"'{path}' is a {type(module).__name__}, and {fibres.kind} are those of a convolution"


def is_conv(module: nn.Module) -> bool:
    """Whether a module is a convolution that does what torch's own does."""
    if not isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return False
    own = next(k for k in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(module, k))
    kind: Any = type(module)
    return (
        kind.forward is own.forward and kind._conv_forward is own._conv_forward
        and kind.__call__ is nn.Module.__call__ and "forward" not in vars(module)
    )  # fmt: skip


def check_fibres(model: nn.Module, cut: Cut) -> str | None:
    """Say of a layer that is to be cut into fibres why it can't be, if so."""
    for name, fibres in cut.fibres.items():
        path, _, last = name.rpartition(".")
        try:
            conv = model.get_submodule(path)
        except AttributeError:
            return f"the model has no convolution '{path}', of which the plan keeps {fibres.kind}"
        if last != "weight" or not is_conv(conv):
            return _no_conv(path, conv, fibres)
        if not path:
            return (
                "the model is a convolution itself, in whose place no layer of "
                f"{fibres.kind} can come"
            )
        weight: Any = conv.weight
        kernel, rows = tuple(weight.shape[2:]), weight.shape[fibres.dim]
        if (len(fibres.rows), fibres.kernel) != (rows, kernel):
            what = rows_of(fibres.kind)
            return (
                f"'{name}' has {rows} {what} of {kernel}, the plan keeps {fibres.kind} of "
                f"{len(fibres.rows)} {what} of {fibres.kernel}"
            )
        if fibres.kind == "columns" and conv.groups != 1:
            return f"'{path}' has groups, and a plan keeps columns of convolutions without"
    return None


def with_convs(slim: nn.Module) -> nn.Module:
    """Return a copy in which every layer of fibres is the convolution that it stands for."""
    copy = clone(slim, copy_parameter)
    for layer in [m for m in copy.modules() if isinstance(m, FibreConv)]:
        conv = as_conv(layer)
        _take_over(layer, conv)
        for parent, key in _places(copy, layer):
            parent._modules[key] = conv
    return copy


def _take_over(old: nn.Module, new: nn.Module) -> None:
    """Give a layer the hooks of the one in whose place it comes."""
    for which in (
        "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
        "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
        "_forward_hooks_always_called",
    ):  # fmt: skip
        getattr(new, which).update(getattr(old, which))


def _places(model: nn.Module, module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return everywhere that a module is held."""
    return [
        (parent, key) for parent in model.modules() for key, kid in parent._modules.items()
        if kid is module
    ]  # fmt: skip
