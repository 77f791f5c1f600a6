"""What a block is: where it stands, what vanishes with it, or why it may not go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from torch import Tensor

from tonsor.drops import Drop, DropKind
from tonsor.errors import SelectionError

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A layer of the model, or a few that follow each other, seen as one piece.

    `modules` are called one after the other, each once; `takes` says where the tensor that runs
    through is among the arguments of the first (empty where nothing that goes in has to do with
    what comes out), `gives` where it is in the result of the last. `ops` are the operators
    that vanish with the block and `parameters` the names of those that do; where the block
    may not go, `reason` says why and `drop` is None.
    """

    name: str
    kind: DropKind
    modules: tuple[str, ...]
    takes: Path
    gives: Path
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    ops: tuple[int, ...]
    parameters: tuple[str, ...]
    drop: Drop | None = None
    reason: str = ""

    @property
    def removable(self) -> bool:
        """Whether it may go."""
        return self.drop is not None

    def result(self, out: Any) -> Tensor:
        """Take the tensor that runs through out of what the last module returned."""
        return _at(out, self.gives)

    def input(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Take the tensor that runs through out of what the first module was given."""
        first, *rest = self.takes
        return _at(args[first] if isinstance(first, int) else kwargs[first], rest)


@dataclass(frozen=True)
class Blocks(Sequence[Block]):
    """All blocks of a model in the order in which they run."""

    every: tuple[Block, ...]

    @property
    def removable(self) -> tuple[Block, ...]:
        """Those that may go."""
        return tuple(b for b in self.every if b.removable)

    @cached_property
    def by_name(self) -> Mapping[str, Block]:
        """Blocks by their names."""
        return {b.name: b for b in self.every}

    def named(self, name: str) -> Block:
        """Return the block of a name, or say which names there are."""
        found = self.by_name.get(name)
        if found is None:
            message = f"no block is called '{name}'; the blocks are {', '.join(self.by_name)}"
            raise SelectionError(message)
        return found

    def __len__(self) -> int:
        return len(self.every)

    def __iter__(self) -> Iterator[Block]:
        return iter(self.every)

    @overload
    def __getitem__(self, index: int) -> Block: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Block]: ...
    def __getitem__(self, index: int | slice) -> Block | Sequence[Block]:
        return self.every[index]

    def __str__(self) -> str:
        lines = [f"{len(self)} blocks, of which {len(self.removable)} may go"]
        width = max((len(b.name) for b in self), default=0)
        lines += [f"  {b.name:<{width}}  {_told(b)}" for b in self]
        return "\n".join(lines)


def _told(block: Block) -> str:
    if not block.removable:
        return f"stays: {block.reason}"
    assert block.drop is not None
    kept = f", keeps {', '.join(block.drop.through)}" if block.drop.through else ""
    return f"{block.kind}, {shape_text(block.input_shape)}{kept}"


def shape_text(shape: Sequence[int]) -> str:
    """Write a shape without the batch.

    >>> shape_text((1, 64, 8, 8))
    '64 x 8 x 8'
    """
    return " x ".join(map(str, shape[1:])) or "one number"


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value
