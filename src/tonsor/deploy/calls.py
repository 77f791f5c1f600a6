"""How a deployed model is called: as the model was, on inputs of the shapes it is made for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.fx.graph import CodeGen, _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from tonsor.errors import DeployError
from tonsor.graph.inputs import Inputs

_ENDLESS = 2**31


@dataclass(frozen=True, slots=True)
class Shape:
    """What a tensor among the inputs has to be like; a size that is free has a name."""

    sizes: tuple[int | str, ...]
    dtype: torch.dtype

    def takes(self, tensor: Any, free: dict[str, int]) -> bool:
        """Whether it is like that; sizes of the same name are the same."""
        if not isinstance(tensor, Tensor) or tensor.dtype != self.dtype:
            return False
        return tensor.dim() == len(self.sizes) and all(
            free.setdefault(wanted, n) == n if isinstance(wanted, str) else wanted == n
            for n, wanted in zip(tensor.shape, self.sizes, strict=True)
        )

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.sizes))}) {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True, slots=True)
class Layout:
    """From the arguments of a call to a flat list, and back.

    `takes` has a shape for each tensor and otherwise the value itself, which can't change. `free`
    says how large the sizes may be that have a name, the first of which is the batch.
    `arguments` are what the graph calls its own, to be used where it runs without this layout.
    """

    takes: tuple[Any, ...]
    given: pytree.TreeSpec
    made: pytree.TreeSpec
    names: tuple[str, ...]
    free: Mapping[str, tuple[int, int | None]]
    arguments: tuple[str, ...] = ()

    @property
    def dynamic(self) -> bool:
        """Whether the batch may have another size."""
        return bool(self.free)

    def flat(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """Return the arguments of a call one by one, or say what is wrong with them."""
        leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        if spec != self.given:
            leaves, spec = pytree.tree_flatten(self._arranged(args, kwargs))
        if spec != self.given:
            raise DeployError(self._told("arguments of another structure"))
        if not torch.compiler.is_compiling():
            self._check(leaves)
        return leaves

    def _arranged(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Give by position what the example gave by position, and the rest by name."""
        named = dict(zip(self.names, args, strict=False)) | dict(kwargs)
        positional, keywords = self.given.children()
        first = self.names[: positional.num_children]
        if len(args) > len(self.names) or set(named) != {*first, *keywords.context}:
            return tuple(args), dict(kwargs)
        return tuple(named[n] for n in first), {n: named[n] for n in keywords.context}

    def _check(self, leaves: Sequence[Any]) -> None:
        free: dict[str, int] = {}
        for leaf, wanted in zip(leaves, self.takes, strict=True):
            if not _fits(leaf, wanted, free):
                raise DeployError(self._told(_brief(leaf)))
        for name, size in free.items():
            low, high = self.free[name]
            if size < low or (high is not None and size > high):
                raise DeployError(self._told(f"{name} = {size}"))

    def _told(self, what: str) -> str:
        takes = ", ".join(str(t) for t in self.takes if isinstance(t, Shape))
        limits = "".join(
            f", {n} from {low} to {'any' if high is None else high}"
            for n, (low, high) in self.free.items()
        )
        return (
            f"this deployed model takes {takes}{limits}; it was given {what}. Call tonsor.deploy "
            "again with an example of what it is to run on"
        )

    def codegen(self) -> CodeGen:
        """Return what makes a graph of flat lists be called as the model was."""
        info = _PyTreeInfo(list(self.arguments), self.given, self.made)
        return _PyTreeCodeGen(info)

    def __reduce__(self) -> tuple[Any, ...]:
        specs = (pytree.treespec_dumps(self.given), pytree.treespec_dumps(self.made))
        return _read, (self.takes, *specs, self.names, dict(self.free), self.arguments)

    def fixed(self, inputs: Inputs) -> Layout:
        """Return the same, for sizes as these inputs have them only."""
        leaves, _ = pytree.tree_flatten((inputs.args, inputs.kwargs))
        takes = tuple(_shape(x, x, {}) if isinstance(x, Tensor) else x for x in leaves)
        return replace(self, takes=takes, free={})

    def from_one(self) -> Layout:
        """Return the same, for a batch of one sample too."""
        free = {n: (1, high) for n, (_, high) in self.free.items()}
        return replace(self, free=free)


def _read(takes: Any, given: str, made: str, *rest: Any) -> Layout:
    return Layout(takes, pytree.treespec_loads(given), pytree.treespec_loads(made), *rest)


def layout_of(
    model: nn.Module, inputs: Inputs, graph: fx.GraphModule, program: ExportedProgram, *,
    dynamic: bool,
) -> Layout:  # fmt: skip
    """Read off an exported program how it is called."""
    leaves, _ = pytree.tree_flatten((inputs.args, inputs.kwargs))
    given, made = program.call_spec.in_spec, program.call_spec.out_spec
    nodes = [n for n in graph.graph.nodes if n.op == "placeholder"]
    if given is None or made is None or len(nodes) != len(leaves):
        message = "its inputs are not those of the graph"
        raise DeployError(message)
    letters: dict[str, str] = {}
    takes = tuple(_shape(n.meta["val"], x, letters) for n, x in zip(nodes, leaves, strict=True))
    ranges = {str(k): v for k, v in program.range_constraints.items()}
    free = {name: _limits(ranges.get(symbol)) for symbol, name in letters.items()}
    codegen: Any = graph.graph._codegen
    arguments = tuple(codegen.pytree_info.orig_args)
    return Layout(takes, given, made, _names(model), free if dynamic else {}, arguments)


def _shape(value: Any, leaf: Any, letters: dict[str, str]) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    sizes: list[int | str] = []
    for n in value.shape:
        if isinstance(n, torch.SymInt) and not str(n).isdigit():  # else it came to be a number
            name = f"batch{len(letters) + 1}" if letters else "batch"
            sizes.append(letters.setdefault(str(n), name))
        else:
            sizes.append(int(n))
    return Shape(tuple(sizes), leaf.dtype)


def _limits(found: Any) -> tuple[int, int | None]:
    if found is None:
        return 2, None
    return int(found.lower), int(found.upper) if bool(found.upper < _ENDLESS) else None


def _names(model: nn.Module) -> tuple[str, ...]:
    """Name the parameters of a forward that may be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):
        return ()
    return tuple(n for n, p in signature.parameters.items() if p.kind in kinds)


def _fits(leaf: Any, wanted: Any, free: dict[str, int]) -> bool:
    if isinstance(wanted, Shape):
        return wanted.takes(leaf, free)
    return not isinstance(leaf, Tensor) and bool(leaf == wanted)


def _brief(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(Shape(tuple(value.shape), value.dtype))
    return repr(value)[:60]
