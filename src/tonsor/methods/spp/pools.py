"""What pieces are drawn from: a family seen as pools, each of the pieces of one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from tonsor.methods.earlier import Earlier
from tonsor.methods.spp.drawn import Held
from tonsor.plans import Plan

Family = Literal["columns", "channels", "stripes", "blocks"]


class Pools(Protocol):
    """The pieces of a model that go by chance, and how they are masked, told and cut.

    Wherever there are several tensors, there is one for each pool, in the order of `there`.
    """

    there: Mapping[str, Tensor]
    """By the name of each pool: which pieces there are to begin with."""
    held: Mapping[str, tuple[Held, ...]]
    """By the name of each pool: the parameters that are masked."""
    earlier: Earlier
    """What an earlier plan removes, which stays at zero."""

    def scores(self) -> list[Tensor]:
        """Score all pieces by the weights as they are now; the lowest matter least."""
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

    def whole(self, target: str) -> float:
        """Return the cost before anything has gone."""
        ...

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these pieces."""
        ...
