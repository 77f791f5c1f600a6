"""The nouns of blocks that go: what is left in their place, and where that shows in a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Spot:
    """An argument or a result of an operator, found again in any run of the same model.

    The operator is the `turn`-th of its name that runs in the module itself; `argument` is the
    name of an argument, or "" for the (first) result.
    """

    module: str
    operator: str
    turn: int
    argument: str = ""


DropKind = Literal["residual", "branch", "plain"]
Fit = Literal["same", "slice", "narrow", "tile"]


@dataclass(frozen=True, slots=True)
class Drop:
    """A block that goes, and what is left in its place.

    The first of `modules` is replaced by what hands on the tensor found at `takes` among its
    arguments, through the modules and activations that stay (`through`), arranged as the block
    arranged its result (`gives`, see `surgery.shortcut`); the other modules become identities.

    What it is to compute is said by spots of the original alone: `zeroed` are the arguments that
    the branch adds, `bypassed` the input and the result of a plain layer, whose channels are
    those of `weight`. Where their numbers differ, `fit` says what is done about it. `renumber` says
    whether attributes that number the layers close up.
    """

    name: str
    kind: DropKind
    modules: tuple[str, ...]
    takes: tuple[str | int, ...]
    gives: Any = "x"
    through: tuple[str, ...] = ()
    zeroed: tuple[Spot, ...] = ()
    bypassed: tuple[Spot, Spot] | None = None
    weight: str = ""
    fit: Fit = "same"
    channels: tuple[int, int] = (0, 0)
    dim: int = 1
    renumber: bool = True
