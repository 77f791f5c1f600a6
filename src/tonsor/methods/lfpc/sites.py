"""Where something is chosen: each with its criteria, its rates, and the masks that these make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tonsor.methods.pools.base import Pools

Kept = list[Tensor]
"""Which pieces of each pool stay."""


@dataclass(frozen=True, slots=True)
class Site:
    """Pools that share a criterion and a rate, for they lose pieces together.

    `steps` is how many steps it can go down, each of so many pieces of each pool as `units` says;
    `left` are the steps that stay at each rate.
    """

    name: str
    pools: tuple[int, ...]
    units: tuple[int, ...]
    steps: int
    left: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Alike:
    """Pools of one size, worked on together."""

    pools: list[int]
    sites: Tensor
    table: Tensor
    """`[pool, rate, rank]`: whether the piece of this rank stays at this rate."""


class Sites:
    """The places of a model where a criterion and a rate are chosen.

    Masks are combinations of ranks: a piece stays to the part that criteria and rates are taken by
    which it would stay.
    """

    def __init__(
        self, pools: Pools, criteria: int, rates: Sequence[float], round_to: int = 1
    ) -> None:
        names = list(pools.there)
        self._there = list(pools.there.values())
        self.rates = tuple(rates)
        self.every = tuple(self._site(names, tied, round_to) for tied in pools.tied)
        alike: dict[int, list[tuple[int, int, int]]] = {}
        for number, site in enumerate(self.every):
            for pool, unit in zip(site.pools, site.units, strict=True):
                alike.setdefault(len(self._there[pool]), []).append((pool, number, unit))
        self._alike = [self._laid_out(size, members) for size, members in alike.items()]
        self.ranked = False
        self.rank([torch.zeros(criteria, len(t)) for t in self._there])
        self.ranked = False  # but any ranks do to count by

    def __len__(self) -> int:
        return len(self.every)

    def state(self) -> list[Tensor]:
        """Return the ranks, if there have been scores."""
        return list(self._ranks) if self.ranked else []

    def go_to(self, ranks: Sequence[Tensor]) -> None:
        """Go on with ranks that `state` returned."""
        self.ranked = bool(ranks)
        self._ranks = [r.cpu() for r in ranks] or self._ranks

    def _site(self, names: list[str], tied: Mapping[str, int], round_to: int) -> Site:
        pools = tuple(names.index(n) for n in tied)
        steps = min(
            int(self._there[p].sum()) // unit for p, unit in zip(pools, tied.values(), strict=True)
        )
        fine = math.lcm(*(round_to // math.gcd(round_to, unit) for unit in tied.values()))
        left = tuple(_nearest((1 - rate) * steps, fine, steps) for rate in self.rates)
        return Site(next(iter(tied)), pools, tuple(tied.values()), steps, left)

    def _laid_out(self, size: int, members: list[tuple[int, int, int]]) -> _Alike:
        left = torch.tensor([
            [n * unit for n in self.every[site].left] for _, site, unit in members
        ])  # fmt: skip
        table = torch.arange(size) < left[:, :, None]
        return _Alike(
            [p for p, _, _ in members], torch.tensor([s for _, s, _ in members]), table.double()
        )

    def rank(self, scores: Sequence[Tensor]) -> None:
        """Take in the scores of all pools, `[criterion, piece]`; what is gone already is last.

        Of equal scores, the first goes first.
        """
        self._ranks = [
            _ranks(torch.stack([
                scores[p].double().masked_fill(~self._there[p], -torch.inf) for p in some.pools
            ]))
            for some in self._alike
        ]  # fmt: skip
        self.ranked = True

    def masks(self, criteria: Tensor, rates: Tensor) -> Kept:
        """Return to which part each piece stays where so much of each criterion and rate is taken.

        `criteria` and `rates` have a row for each site.
        """
        found: dict[int, Tensor] = {}
        for some, ranks in zip(self._alike, self._ranks, strict=True):
            by_rank = torch.einsum("pk,pkn->pn", rates[some.sites], some.table)
            by_piece = by_rank[:, None].expand(ranks.shape).gather(2, ranks)
            mixed = torch.einsum("ps,psn->pn", criteria[some.sites], by_piece)
            found |= dict(zip(some.pools, mixed, strict=True))
        return [found[i] if i in found else t.double() for i, t in enumerate(self._there)]

    def kept(self, criteria: Sequence[int], left: Sequence[int]) -> Kept:
        """Return what stays where a site goes by one criterion, and has so many steps left."""
        found = [t.clone() for t in self._there]
        unit_of = {
            pool: (number, unit) for number, site in enumerate(self.every)
            for pool, unit in zip(site.pools, site.units, strict=True)
        }  # fmt: skip
        for some, ranks in zip(self._alike, self._ranks, strict=True):
            for pool, mine in zip(some.pools, ranks, strict=True):
                site, unit = unit_of[pool]
                found[pool] = mine[criteria[site]] < left[site] * unit
        return found


def _nearest(wanted: float, multiple: int, most: int) -> int:
    """Return the nearest multiple, or all if that is nearer; at least one piece stays."""
    found = min(max(multiple * math.floor(wanted / multiple + 0.5), min(multiple, most), 1), most)
    return most if abs(most - wanted) < abs(found - wanted) else found


def _ranks(scores: Tensor) -> Tensor:
    """Return the rank of each piece along the last dimension, 0 for the highest score."""
    order = scores.sort(dim=-1, stable=True).indices
    places = torch.arange(scores.shape[-1] - 1, -1, -1).expand_as(order)
    return torch.empty_like(order).scatter(-1, order, places)
