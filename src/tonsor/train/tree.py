"""Trees of dicts, lists and numbers with tensors at their leaves, taken apart for a file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tonsor.errors import CheckpointError

_PLAIN = (bool, int, float, str, type(None))


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return a tree as JSON can hold it, and its tensors by number; a tensor met twice once.

    >>> flatten({"a": (1, torch.zeros(1)), 7: [None]})
    ({'dict': [['a', {'tuple': [1, {'tensor': '0'}]}], [7, {'list': [None]}]]}, {'0': tensor([0.])})
    """
    tensors: dict[str, Tensor] = {}
    met: dict[Any, str] = {}
    storages: set[int] = set()

    def put(tensor: Tensor) -> str:
        place = (tensor.device, tensor.dtype, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in met:
            return met[place]
        name = met[place] = str(len(tensors))
        data = tensor.detach().cpu().contiguous()
        storage = data.untyped_storage()
        # Each tensor gets bytes of its own: safetensors refuses views of shared ones.
        shared = storage.data_ptr() in storages or storage.nbytes() != data.nbytes
        tensors[name] = data.clone() if shared else data
        storages.add(storage.data_ptr())
        return name

    def plain(value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            return {"tensor": put(value)}
        if isinstance(value, dict):
            pairs = [[k, plain(v, f"{where}.{k}")] for k, v in value.items()]
            if all(isinstance(k, (str, int)) for k in value):
                return {"dict": pairs}
        if isinstance(value, (list, tuple)):
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        if isinstance(value, _PLAIN):
            return value
        message = (
            f"{where.lstrip('.')} is a {type(value).__name__}, for which a checkpoint has no "
            "place; keep tensors, numbers, texts, and lists or dicts of them"
        )
        raise CheckpointError(message)

    return plain(state, ""), tensors


def unflatten(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Put together what `flatten` took apart."""
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    match kind:
        case "tensor":
            return tensors[value]
        case "dict":
            return {k: unflatten(v, tensors) for k, v in value}
        case "tuple":
            return tuple(unflatten(v, tensors) for v in value)
        case "list":
            return [unflatten(v, tensors) for v in value]
    message = f"a checkpoint can't hold a '{kind}'"
    raise CheckpointError(message)


def mapped(state: Any, change: Any) -> Any:
    """Return the same tree with `change` done to each tensor."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {k: mapped(v, change) for k, v in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(mapped(v, change) for v in state)
    return state


def copied(state: Any) -> Any:
    """Return a tree of whole copies on the CPU, which later changes do not reach."""
    return mapped(state, lambda t: whole(t).detach().to("cpu", copy=True))


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor of which each process may hold a part only."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """Return values in the layout, dtype and device of another tensor: its parts, its strides."""
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(like, DTensor)
        values = tensor.to(like.device, like.dtype)
        return distribute_tensor(values, like.device_mesh, like.placements)
    return torch.empty_like(like, requires_grad=False).copy_(tensor)
