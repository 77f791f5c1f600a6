"""Pools: a family of pieces, those of each place together, which are masked while training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor, nn

from tonsor.criteria.rows import Combine
from tonsor.criteria.score import Scores
from tonsor.criteria.stream import Loss
from tonsor.methods.earlier import Earlier
from tonsor.methods.pools.drawn import GradMode, Held
from tonsor.plans import Plan
from tonsor.select.names import Named

Family = Literal["columns", "channels", "stripes", "blocks"]
Searched = Literal["channels", "filters", "stripes", "columns", "blocks"]
"""The families whose pieces odds can be learned of."""

Expected: TypeAlias = Callable[[Sequence[Tensor]], Tensor]
"""From the part of each piece that stays, in each pool, to a cost, with gradients."""


@dataclass(frozen=True)
class Wanted:
    """What pools are made by: how pieces are scored, and which are left alone.

    `learned` pools are for masks that are learned: each piece is masked in one place of its way
    only, so that half a mask is half a piece, and groups that are tied or normalised over are
    among them. `batches`, `at_most` and `loss` are for criteria that look at data.
    """

    criteria: tuple[str | Scores, ...] = ("l1",)
    keep: tuple[Named, ...] = ()
    after: Plan | None = None
    mode: GradMode = "masked"
    learned: bool = False
    combine: Combine = "mean"
    batches: Iterable[Any] | None = None
    at_most: int | None = None
    loss: Loss | None = None
    seed: int = 0


class Pools(Protocol):
    """The pieces of a model as pools: how they are scored, masked, told and cut.

    Wherever there are several tensors, there is one for each pool, in the order of `there`.
    """

    there: Mapping[str, Tensor]
    """By the name of each pool: which pieces there are to begin with."""
    held: Mapping[str, tuple[Held, ...]]
    """By the name of each pool: the parameters that are masked."""
    earlier: Earlier
    """What an earlier plan removes, which stays at zero."""
    tied: Sequence[Mapping[str, int]]
    """The pools that lose pieces together, each with how many at a step."""

    @property
    def ready(self) -> bool:
        """Whether there are scores by now; some criteria have to see gradients of training."""
        ...

    def see(self) -> None:
        """Look at the gradients of a step of training."""
        ...

    def scores(self) -> list[Tensor]:
        """Score all pieces as they are now, `[criterion, piece]`; the lowest matter least."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen of training since it was last scored."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...

    def show_(self, drawn: Sequence[Tensor], kept: Sequence[Tensor] | None = None) -> None:
        """Mask by what was drawn, and outside of training by what is not gone.

        Instead of True and False these may be probabilities.
        """
        ...

    def silence(self, kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """Return what else has to be zero once pieces are gone, each with its mask."""
        ...

    def amount(self, kept: Sequence[Tensor], target: str) -> float:
        """Return the cost of what is left."""
        ...

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return about what it costs if so many pieces of each pool are left, at the most."""
        ...

    def expected(self, target: str) -> Expected:
        """Return what tells the cost where pieces stay in part."""
        ...

    def whole(self, target: str) -> float:
        """Return the cost before anything has gone."""
        ...

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these pieces."""
        ...


class Unwatched:
    """What pools have that are scored by weights: nothing of training has to be seen before."""

    ready = True

    def see(self) -> None:
        """Nothing is looked at."""

    def state_dict(self) -> dict[str, Any]:
        """There is nothing to remember."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to go on from."""
