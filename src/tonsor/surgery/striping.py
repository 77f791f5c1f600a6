"""What a cut leaves of tensors and convolutions where stripes go, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tonsor.errors import SurgeryError
from tonsor.graph.clone import clone
from tonsor.stripes import Stripes
from tonsor.surgery.slice import Kept, copy_parameter, cut_tensor, mask_, widen_tensor
from tonsor.surgery.stripe_conv import (
    StripeConv,
    as_conv,
    mask_stripes_,
    striped,
    stripes_of,
    write_stripes_,
)
from tonsor.types import Cut


def mask_as(cut: Cut, name: str, tensor: Tensor) -> None:
    """Set everything of a parameter to zero that a cut does not keep."""
    if name in cut.keep:
        mask_(tensor, cut.keep[name])
    if name in cut.stripes:
        mask_stripes_(tensor, cut.stripes[name].mask)


def left_of(tensor: Tensor, kept: Kept | None, stripes: Stripes | None) -> Tensor:
    """Return what stays of a tensor, or of what has its shape."""
    left = tensor.detach().clone() if kept is None else cut_tensor(tensor, kept)
    return left if stripes is None else stripes_of(left, stripes_in(stripes, kept).mask)


def put_back(small: Tensor, big: Tensor, kept: Kept | None, stripes: Stripes | None) -> Tensor:
    """Return `big` with what stays of it replaced by `small`: the way back from `left_of`."""
    if stripes is None:
        return big.detach().clone() if kept is None else widen_tensor(small, big, kept)
    dense = (big if kept is None else cut_tensor(big, kept)).detach().clone()
    write_stripes_(dense, small, stripes_in(stripes, kept).mask)
    return dense if kept is None else widen_tensor(dense, big, kept)


def left_shape(shape: Sequence[int], kept: Kept | None, stripes: Stripes | None) -> tuple[int, ...]:
    """Return the shape that is left of a tensor."""
    kept = kept or (None,) * len(shape)
    left = tuple(s if k is None else len(k) for s, k in zip(shape, kept, strict=True))
    return left if stripes is None else (stripes_in(stripes, kept).left, left[1])


def stripes_in(stripes: Stripes, kept: Kept | None) -> Stripes:
    """Return the stripes of the filters that stay, in the coordinates of the slim layer."""
    return stripes.taking(None if kept is None else kept[0])


def stripe_layers(slim: nn.Module, cut: Cut) -> None:
    """Replace convolutions, which are cut otherwise already, by what holds their stripes."""
    for name, stripes in cut.stripes.items():
        path = name.rpartition(".")[0]
        conv = slim.get_submodule(path)
        if not is_conv(conv):
            message = f"'{path}' is a {type(conv).__name__}, and stripes are those of a convolution"
            raise SurgeryError(message)
        layer = striped(conv, stripes_in(stripes, cut.keep.get(name)).mask, stripes.run)
        _take_over(conv, layer)
        for parent, key in _places(slim, conv):
            parent._modules[key] = layer


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


def check_stripes(model: nn.Module, cut: Cut) -> str | None:
    """Say of a layer that is to be cut into stripes why it can't be, if so."""
    for name, stripes in cut.stripes.items():
        path, _, last = name.rpartition(".")
        try:
            conv = model.get_submodule(path)
        except AttributeError:
            return f"the model has no convolution '{path}', of which the plan keeps stripes"
        if last != "weight" or not is_conv(conv):
            return f"'{path}' is a {type(conv).__name__}, and stripes are those of a convolution"
        if not path:
            return "the model is a convolution itself, in whose place no layer of stripes can come"
        weight: Any = conv.weight
        if (len(stripes.rows), stripes.kernel) != (weight.shape[0], tuple(weight.shape[2:])):
            return (
                f"'{name}' has {weight.shape[0]} filters of {tuple(weight.shape[2:])}, the plan "
                f"keeps stripes of {len(stripes.rows)} filters of {stripes.kernel}"
            )
    return None


def with_convs(slim: nn.Module) -> nn.Module:
    """Return a copy in which every layer of stripes is the convolution that it stands for."""
    copy = clone(slim, copy_parameter)
    for layer in [m for m in copy.modules() if isinstance(m, StripeConv)]:
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
