"""Watching the tensors at sites while the model really runs.

Calls that are given a parameter, or something that was computed of parameters only, are met again
in the order of the recorded run. A run that does not go as it was recorded is not believed: the
groups that were to be seen there are `lost`, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from tonsor.anatomy import Anatomy
from tonsor.families.maps import Site

_ASK_ONLY = frozenset({"type_as", "to", "view_as", "reshape_as", "expand_as", "is_same_size"})
_NO_NAMES: frozenset[str] = frozenset()


class Watch(TorchFunctionMode):
    """Show the tensors at sites to `show(site, tensor)` while the model runs.

    With `keep`, what is shown is never changed afterwards by an operator in place: the model goes
    on with a copy. `met` holds the sites that were seen in this run, `lost` the groups for which
    some run went another way.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        watched: list[Site],
        show: Callable[[Site, Tensor], None],
        *,
        keep: bool,
    ) -> None:
        super().__init__()
        self._show, self._keep = show, keep
        self._times = {name: len(found) for name, found in anatomy.uses.items()}
        first = {n: anatomy.graph.name_of[v] for n, v in anatomy.graph.parameters.items()}
        self._parameters = {
            _key(t): frozenset({first[n]}) for n, t in anatomy.parameters.items() if n in first
        }
        self._watched: dict[tuple[str, int], list[Site]] = {}
        self._groups: dict[str, set[str]] = {}
        for site in watched:
            self._watched.setdefault((site.parameter, site.call), []).append(site)
            self._groups.setdefault(site.parameter, set()).add(site.group)
        self._behind: dict[int, frozenset[str]] = {}
        self._alive: list[Tensor] = []
        self._calls: Counter[str] = Counter()
        self._samples, self._depth = 1, 0
        self.met: set[Site] = set()
        self.lost: dict[str, str] = {}

    def over(self, model: nn.Module, samples: int) -> Watch:
        """Make ready for a run of so many samples of the model, or of a copy with its weights."""
        fixed = [*model.buffers(), *_plain_tensors(model)]
        self._behind = {**{_key(t): _NO_NAMES for t in fixed}, **self._parameters}
        self._samples = samples
        self._calls.clear()
        self.met.clear()
        return self

    def __enter__(self) -> Any:
        """Watch what runs from here on."""
        self._depth += 1
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Compare how often parameters were met with how often they should have been."""
        super().__exit__(kind, error, trace)
        self._depth -= 1
        if self._depth:
            return
        self._alive.clear()
        if error is not None:
            return
        for name, groups in self._groups.items():
            met, known = self._calls[name], self._times[name]
            if met not in (0, known):
                self._lose(
                    groups,
                    f"'{name}' is used {met} times on this data, and {known} times when the model "
                    "was inspected",
                )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, and show what is watched of it."""
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:  # its parts are what was recorded
            with self:
                return _attention(*args, **kwargs)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        called = getattr(func, "__name__", "")
        if called in _ASK_ONLY:
            given = given[:1]
        written = given[:1] if called == "__setitem__" else []
        fixed = [self._behind.get(_key(t)) for t in given]
        names = _NO_NAMES.union(*(f for f in fixed if f is not None))
        if None not in fixed:
            return self._made(func(*args, **kwargs), names, written)
        due: list[Site] = []
        for name in names:
            due += self._watched.get((name, self._calls[name]), ())
        data = list({id(t): t for t, f in zip(given, fixed, strict=True) if f is None}.values())
        for site in due:
            if site.side == "in":
                self._seen(site, data[site.place] if site.place < len(data) else None)
        out = func(*args, **kwargs)
        results = _flat(out) or written
        if not results:
            return out
        self._calls.update(names)
        for tensor in results:  # room that data was written into is data now
            if _key(tensor) not in self._parameters:
                self._behind.pop(_key(tensor), None)
        for site in due:
            if site.side == "out":
                self._seen(site, results[site.place] if site.place < len(results) else None)
        if self._keep and any(s.side == "out" for s in due):
            return tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, out)
        return out

    def _made(self, out: Any, names: frozenset[str], written: list[Tensor]) -> Any:
        """Note what was computed of parameters and constants only."""
        for tensor in _flat(out) or written:
            key = _key(tensor)
            if key not in self._parameters:
                self._behind[key] = names | self._behind.get(key, _NO_NAMES)
                self._alive.append(tensor)  # or its place in memory would be used again
        return out

    def _seen(self, site: Site, tensor: Tensor | None) -> None:
        if tensor is not None and site.fits(tensor, self._samples):
            self.met.add(site)
            self._show(site, tensor)
            return
        now = "nothing" if tensor is None else f"a tensor of shape {tuple(tensor.shape)}"
        self._lose(
            {site.group}, f"{site} is {now} on this data, and was of shape {site.shape} when the "
            "model was inspected",
        )  # fmt: skip

    def _lose(self, groups: set[str], why: str) -> None:
        for group in groups:
            self.lost.setdefault(group, why)


def _flat(out: Any) -> list[Tensor]:
    return [t for t in tree_leaves(out) if isinstance(t, Tensor)]


def _key(tensor: Tensor) -> int:
    """What tensors in the same memory have in common."""
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):
        return id(tensor)


def _plain_tensors(model: nn.Module) -> list[Tensor]:
    return [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]


def _attention(*args: Any, **kwargs: Any) -> Any:
    """Attention as torch computes it, with its operators seen one by one."""
    forward: Any = F.multi_head_attention_forward
    scope = {**forward.__globals__, "has_torch_function": lambda _: False}
    inside = FunctionType(
        forward.__code__, scope, forward.__name__, forward.__defaults__, forward.__closure__
    )
    inside.__kwdefaults__ = forward.__kwdefaults__
    return inside(*args, **kwargs)
