"""Parameters that are raised when an operator reads them, so that no raised model is ever there.

A late parameter says that it is float64 and has no values. The operator that gets it is given
values made from the original that moment, in memory that the next one uses again. Whatever
could tell the difference is refused: reading its memory, writing into it or into a view of it.
The model is then run on a copy that is raised whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from tonsor.graph.record import Execute
from tonsor.surgery.slice import Kept, mask_

LEAST = 1 << 16  # elements; what is smaller may as well be there


class Late(Tensor):
    """What a model holds in the place of a parameter; see the top of this file."""

    source: Tensor
    kept: Kept | None
    value: Tensor | None  # once it has been read twice in one run

    @staticmethod
    def __new__(cls, source: Tensor, kept: Kept | None, dtype: torch.dtype) -> Late:
        """Take the place of `source`, as if it was of another dtype, and zero but for `kept`."""
        new = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, source.shape, strides=source.stride(), dtype=dtype, device=source.device,
            requires_grad=source.requires_grad,
        )  # fmt: skip
        torch._C._set_throw_on_mutable_data_ptr(new)
        vars(new).update(vars(source))
        new._is_param = True  # what makes it a Parameter
        new.source, new.kept, new.value = source.detach(), kept, None
        return new

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse: operators that a recorder sees are given values by `Reader`."""
        message = f"{func} reads a parameter where nothing watches"
        raise RuntimeError(message)


def worth_it(tensor: Tensor) -> bool:
    """Whether a tensor is a large parameter of no special kind."""
    plain = type(tensor) is nn.Parameter and tensor.layout == torch.strided and tensor.dim() > 1
    return plain and tensor.numel() >= LEAST and not tensor.is_meta


class Reader:
    """Give the operators of one run the values of late parameters."""

    def __init__(self, execute: Execute, spare: list[Tensor]) -> None:
        self.inner = execute
        self.spare = spare  # memory to be used again, by this run and later ones
        self.read: set[int] = set()
        self.views: dict[int, StorageWeakRef] = {}
        self.refused = False

    def execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator on values."""
        for tensor in written(func, args, kwargs):
            if isinstance(tensor, Late) or self._is_view(tensor):
                self._refuse(func)
        if func is torch.ops.aten.embedding.default and isinstance(args[0], Late):
            rows, places = _rows(args[0], args[1])
            return self.inner(index, func, (rows, places, *args[2:]), kwargs)
        lent: list[Tensor] = []
        held: list[Tensor] = []
        args = tuple(self._valued(a, func, lent, held) for a in args)
        kwargs = {k: self._valued(v, func, lent, held) for k, v in kwargs.items()}
        out = self.inner(index, func, args, kwargs)
        if held:
            self._watch(out, lent, held)
        return out

    def _valued(self, value: Any, func: Any, lent: list[Tensor], held: list[Tensor]) -> Any:
        if isinstance(value, Late):
            held.append(self._raised(value, func, lent))
            return held[-1]
        if isinstance(value, (list, tuple)) and any(isinstance(v, (Late, list)) for v in value):
            return type(value)(self._valued(v, func, lent, held) for v in value)
        return value

    def _raised(self, late: Late, func: Any, lent: list[Tensor]) -> Tensor:
        if late.value is not None:
            return late.value
        again = id(late) in self.read
        self.read.add(id(late))
        source = late.source
        if again or not source.is_contiguous() or not _returns_new(func):
            raised = source.to(late.dtype)
        else:
            buffer = self._memory(source.numel(), late)
            lent.append(buffer)
            raised = buffer[: source.numel()].view(source.shape).copy_(source)
        if late.kept is not None:
            mask_(raised, late.kept)
        if again:
            late.value = raised
        return raised

    def _memory(self, numel: int, late: Late) -> Tensor:
        for i, buffer in enumerate(self.spare):
            if (buffer.dtype, buffer.device) == (late.dtype, late.device):
                del self.spare[i]
                if buffer.numel() >= numel:
                    return buffer
                break  # too small: it makes room for a larger one
        return torch.empty(numel, dtype=late.dtype, device=late.device)

    def _watch(self, out: Any, lent: list[Tensor], held: list[Tensor]) -> None:
        """Remember what of the values is still to be seen, and take back the rest."""
        results = out if isinstance(out, (list, tuple)) else (out,)
        seen = {_storage(t) for t in results if isinstance(t, Tensor)}
        for tensor in held:
            if _storage(tensor) in seen:
                storage = tensor.untyped_storage()
                self.views[storage._cdata] = StorageWeakRef(storage)
        self.spare.extend(buffer for buffer in lent if _storage(buffer) not in seen)

    def _is_view(self, tensor: Tensor) -> bool:
        view = self.views.get(_storage(tensor))
        return view is not None and not view.expired()

    def _refuse(self, func: Any) -> None:
        self.refused = True  # kept, as a forward may catch what is raised
        message = f"{func} writes into a parameter"
        raise RuntimeError(message)


def _rows(late: Late, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Take the rows that are looked up, of what may be a large table."""
    ids, places = indices.unique(return_inverse=True)
    rows = late.source.index_select(0, ids.flatten()).to(late.dtype)
    if late.kept is not None:
        first, *rest = late.kept
        if first is not None:
            there = set(first)
            first = [i for i, row in enumerate(ids.flatten().tolist()) if row in there]
        mask_(rows, (first, *rest))
    return rows, places


def written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operator writes into."""
    found: list[Tensor] = []
    for place, name in _written(func):
        value = args[place] if place < len(args) else kwargs.get(name)
        many = value if isinstance(value, (list, tuple)) else (value,)
        found.extend(t for t in many if isinstance(t, Tensor))
    return found


@lru_cache(maxsize=4096)
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    return tuple(
        (i, a.name)
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    )


@lru_cache(maxsize=4096)
def _returns_new(func: Any) -> bool:
    """Whether nothing that an operator was given can be held by anybody afterwards."""
    fresh = all(r.alias_info is None for r in func._schema.returns)
    return fresh and func.namespace == "aten"


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return 0  # sparse and other layouts without a storage
