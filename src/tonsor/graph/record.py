"""The recorder: a dispatch mode below autograd that writes down every operator.

Below autograd composite operators are not taken apart, so what is seen are the operators
that people think in (`linear`, `conv2d`, `scaled_dot_product_attention`, `lstm`), the same
that `torch.export` records. An operator that nobody has a rule for, and that is composite,
is taken apart after all.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from tonsor.graph.caches import forgetting
from tonsor.types import Call, Op, Origin, Ref, Source, Unknown, Value

Known = Callable[[str], bool]
Execute = Callable[[int, Any, tuple[Any, ...], dict[str, Any]], Any]
Observe = Callable[[Op, list[Tensor | None]], None]

_TORCH = os.path.dirname(torch.__file__)  # noqa: PTH120  compared with code.co_filename as text
_TONSOR = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
_ZOO = os.path.join(_TONSOR, "zoo", "")  # noqa: PTH118
_DEPTH = 4
_PLAIN = (bool, int, float, str, type(None))
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class Recorder(TorchDispatchMode):
    """Write down operators, values and where they come from, while the model runs."""

    def __init__(
        self,
        model: nn.Module,
        known: Known | None = None,
        execute: Execute | None = None,
        observe: Observe | None = None,
        lines: bool = True,
        keep: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.keep = keep  # or else every result lives no longer than in a run without a recorder
        self.count = 0
        self.paths = {id(m): n for n, m in model.named_modules(remove_duplicate=False)}
        self.stack = [""]
        self.began: list[tuple[int, int]] = []  # place in `calls`, and the first operator
        self.calls: list[Call | None] = []
        self.ops: list[Op] = []
        self.values: list[Value] = []
        self.tensors: list[Tensor] = []  # by value; kept alive, or ids would be used again
        self.alive: list[Tensor] = []
        self.ids: dict[int, int] = {}
        self.storages: dict[int, int] = {}
        self.known = known or (lambda name: True)
        self.execute = execute
        self.observe = observe
        self.lines = lines

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is ever compiled, and the guard costs as much as an operator

    def value(self, tensor: Tensor, origin: Origin = "constant", name: str = "") -> int:
        """Return the id of a tensor's value; a tensor never seen becomes a new value."""
        if not self.keep:
            return -1
        known = self.ids.get(id(tensor))
        if known is not None:
            return known
        storage = _storage(tensor)
        if origin == "constant" and storage is not None:
            base = self.storages.get(storage)
            if base is not None and _same_view(tensor, self.tensors[base]):
                self.ids[id(tensor)] = base  # `.data` and the like
                self.alive.append(tensor)
                return base
            if base is not None:
                name = f"view of value {base}"
        index = len(self.values)
        self.values.append(Value(index, tuple(tensor.shape), str(tensor.dtype), origin, name))
        self.tensors.append(tensor)
        self.ids[id(tensor)] = index
        if storage is not None:
            self.storages.setdefault(storage, index)
        return index

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one operator and write it down."""
        kwargs = kwargs or {}
        name = _name(func)
        if name.startswith("prim."):  # asks for a device, says nothing of axes
            return func(*args, **kwargs)
        if not self.known(name) and pointwise_tag(func) is False and _composite(func):
            with self:
                taken_apart = func.decompose(*args, **kwargs)
            if taken_apart is not NotImplemented:
                return taken_apart
        bound = {k: self._seen(v) for k, v in bind(func, args, kwargs).items()}
        index = self.count
        self.count += 1
        if self.execute is None:
            out = func(*args, **kwargs)
        else:
            out = self.execute(index, func, args, kwargs)
        flat = _flat(out)
        op = Op(
            index=index,
            name=name,
            overload=func._overloadname,
            args=bound,
            outputs=tuple(None if t is None else self.value(t, "op") for t in flat),
            module=self.stack[-1],
            source=_source() if self.lines else None,
            pointwise=pointwise_tag(func),
        )
        if self.keep:
            self.ops.append(op)
        if self.observe is not None:
            self.observe(op, flat)
        return out

    def _seen(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Ref(self.value(value))
        if isinstance(value, (list, tuple)):
            return tuple(self._seen(v) for v in value)
        if isinstance(value, dict):
            return {k: self._seen(v) for k, v in value.items()}
        return value

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record inside this block: no autograd, no fused fast paths, modules followed."""
        pre = register_module_forward_pre_hook(self._enter)
        post = register_module_forward_hook(self._leave, with_kwargs=True, always_call=True)
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with forgetting(self.model), torch.no_grad(), _below_autograd(), self:
                yield self
        finally:
            pre.remove()
            post.remove()
            # torch forgets to, and would warn of hooks whenever a model is compiled later.
            modules._global_forward_hooks_with_kwargs.pop(post.id, None)
            torch.backends.mha.set_fastpath_enabled(fast)

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.stack.append(self.paths.get(id(module), self.stack[-1]))
        self.began.append((len(self.calls), self.count))
        self.calls.append(None)

    def _leave(self, module: nn.Module, args: Any, *kwargs_and_out: Any) -> None:
        if len(self.stack) < 2:
            return
        path = self.stack.pop()
        place, first = self.began.pop()
        failed = len(kwargs_and_out) < 2  # torch leaves the keywords out where forward has raised
        if self.keep and not failed and id(module) in self.paths:
            kwargs, out = kwargs_and_out
            seen = (self._shown(args), self._shown(kwargs), self._shown(out))
            self.calls[place] = Call(path, first, self.count, *seen, depth=len(self.began))

    def _shown(self, value: Any, depth: int = 0) -> Any:
        """Copy a nest of containers, with references in the place of tensors."""
        if isinstance(value, Tensor):
            known = self.ids.get(id(value))
            return Unknown("Tensor", id(value)) if known is None else Ref(known)
        if depth < _DEPTH and type(value) in (list, tuple):
            return type(value)(self._shown(v, depth + 1) for v in value)
        if depth < _DEPTH and type(value) is dict:
            return {k: self._shown(v, depth + 1) for k, v in value.items()}
        return value if type(value) in _PLAIN else Unknown(type(value).__name__, id(value))


def _below_autograd() -> Any:
    guard = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    return guard() if guard is not None else torch.inference_mode()


def _flat(out: Any) -> list[Tensor | None]:
    if isinstance(out, Tensor):
        return [out]
    if isinstance(out, (list, tuple)):
        return [t for item in out for t in (_flat(item) or [None])]
    return [None]


def _storage(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return None  # sparse and other layouts without a storage


def _same_view(a: Tensor, b: Tensor) -> bool:
    return (
        a.shape == b.shape
        and a.stride() == b.stride()
        and a.storage_offset() == b.storage_offset()
        and a.dtype == b.dtype
    )


@lru_cache(maxsize=4096)
def _name(func: Any) -> str:
    return str(func.overloadpacket) if hasattr(func, "overloadpacket") else str(func)


@lru_cache(maxsize=4096)
def pointwise_tag(func: Any) -> bool:
    """Whether torch calls an operator pointwise."""
    return torch.Tag.pointwise in getattr(func, "tags", ())


@lru_cache(maxsize=4096)
def _composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)


@lru_cache(maxsize=4096)
def _signature(func: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (a.name, a.default_value if a.has_default_value() else None) for a in func._schema.arguments
    )


def bind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Give every argument its name in the operator's schema."""
    bound = dict(kwargs)
    for i, (name, default) in enumerate(_signature(func)):
        if i < len(args):
            bound[name] = args[i]
        elif name not in bound:
            bound[name] = default
    return bound


@lru_cache(maxsize=65536)
def _is_foreign(filename: str) -> bool:
    """Whether a file is torch's, ours or not a file at all; the zoo is like a user's code."""
    return filename.startswith((_TORCH, _TONSOR, "<")) and not filename.startswith(_ZOO)


def _source() -> Source | None:
    frame = sys._getframe(2)
    while frame is not None:
        if not _is_foreign(frame.f_code.co_filename):
            file, line = frame.f_code.co_filename, frame.f_lineno
            code = linecache.getline(file, line).strip()
            return Source(file, line, frame.f_code.co_name, code)
        frame = frame.f_back
    return None
