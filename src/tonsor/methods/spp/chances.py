"""The probability of each piece to go, pool by pool, until each pool has lost its quota."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from tonsor.errors import CheckpointError, ScoreError, SelectionError
from tonsor.methods.spp.increment import Increment

Alpha = Literal["constant", "adaptive"]
Scoring = Literal["rank", "size"]
Ended = Literal["", "reached", "guard", "stopped"]

# Twenty times 0.05 is 1 for us, whatever a sum of floats says, and 0.1 of 30 pieces are 3.
_ROUNDING = 1e-12


@dataclass(slots=True, kw_only=True, eq=False)
class Pool:
    """Pieces of one layer that go by chance, and how far they have come.

    Pieces that are not `there` are `gone` from the beginning, but count for nothing. What is gone
    has a chance of 1. `ended` says why there is nothing more to come: the quota was reached; the
    guard took the lowest of what was left to go; or the whole was stopped before.
    """

    name: str
    size: int
    quota: int
    goal: float
    there: Tensor
    chance: Tensor
    gone: Tensor
    updates: int = 0
    ended: Ended = ""

    @property
    def left(self) -> int:
        """How many pieces are still there."""
        return int((~self.gone).sum())

    @property
    def lost(self) -> int:
        """How many are gone of those that there were."""
        return int((self.there & self.gone).sum())

    @property
    def sparsity(self) -> float:
        """The same as a fraction."""
        return self.lost / max(1, int(self.there.sum()))


class Chances:
    """Raises and lowers the chances of pieces by their scores, and draws who stays.

    Ranks count among the pieces of a pool that are left, from the lowest score. A piece whose
    chance reaches 1 is gone for good; a pool loses its quota exactly, and then ends. A pool that
    has not ended after `guard` updates loses the lowest of the rest at once.

    >>> chances = Chances({"conv": 0.5}, {"conv": torch.ones(4).bool()}, increment=Increment())
    >>> while not chances.over:
    ...     chances.update([torch.tensor([3.0, 1.0, 4.0, 2.0])])
    >>> chances.kept()[0].tolist(), chances.pools[0].updates
    ([True, False, True, False], 33)

    With `alpha="adaptive"` the increment aims at what is still to go, not at the whole, which takes
    far longer. With `scores="size"` what counts is not the rank but how far a score is on the way
    from the lowest to the one at the goal. With `history` above 0 scores are summed up, the older
    the less: show them at each step to `observe`; `update` then adds nothing of its own.
    """

    def __init__(
        self,
        ratios: Mapping[str, float],
        there: Mapping[str, Tensor],
        *,
        increment: Increment,
        alpha: Alpha = "constant",
        scores: Scoring = "rank",
        history: float = 0.0,
        guard: int = 500,
        seed: int = 0,
    ) -> None:
        _check(alpha, scores, history, guard)
        if ratios.keys() != there.keys():
            odd = sorted(ratios.keys() ^ there.keys())
            message = (
                f"each pool needs pieces and a ratio, {odd} have only one of them; a pool that is "
                "to lose nothing has the ratio 0"
            )
            raise SelectionError(message)
        self.pools: tuple[Pool, ...] = tuple(_pool(n, ratios[n], there[n]) for n in there)
        self._increment, self._alpha, self._scoring = increment, alpha, scores
        self._history, self._guard = history, guard
        self._past = [torch.zeros(pool.size, dtype=torch.float64) for pool in self.pools]
        self._seen = False
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def over(self) -> bool:
        """Whether all pools have ended."""
        return all(pool.ended for pool in self.pools)

    def observe(self, scores: Sequence[Tensor]) -> None:
        """Take scores into the history, if there is one; no chance changes."""
        if not self._history:
            return
        values = self._values(scores)
        for past, value in zip(self._past, values, strict=True):
            past.mul_(self._history).add_(value)
        self._seen = True

    @torch.no_grad()
    def update(self, scores: Sequence[Tensor]) -> None:
        """Change the chances by scores, one for each piece; pools that ended are left alone."""
        for pool, score in zip(self.pools, self._current(scores), strict=True):
            if not pool.ended:
                self._update(pool, score)

    def draw(self) -> list[Tensor]:
        """Draw for each pool which pieces stay this time; what is gone never does."""
        if self.over:
            return self.kept()
        # What is gone has a chance of 1 and the survivors of a pool that ended have 0, so that a
        # number from 0 on and below 1 decides for all of them.
        chance = torch.cat([pool.chance for pool in self.pools])
        drawn = torch.rand(len(chance), generator=self._generator, dtype=torch.float32)
        return list((drawn >= chance).split([pool.size for pool in self.pools]))

    def kept(self) -> list[Tensor]:
        """Return for each pool which pieces are not gone for good."""
        return [~pool.gone for pool in self.pools]

    def stop(self, why: Literal["reached", "guard", "stopped"] = "stopped") -> None:
        """End all pools now; what is not gone stays."""
        for pool in self.pools:
            if not pool.ended:
                _end(pool, why)

    def rewind(self, generator: Tensor) -> None:
        """Draw again as from an earlier state of chance on, as `state_dict` has it."""
        self._generator.set_state(generator)

    def give_back(self, pieces: Sequence[Tensor]) -> None:
        """Let pieces that are gone stay after all; all pools end with it."""
        for pool, some in zip(self.pools, pieces, strict=True):
            pool.gone[some] = False
        self.stop("stopped")
        for pool in self.pools:
            pool.chance = pool.gone.double()

    @torch.no_grad()
    def finish_now(self, scores: Sequence[Tensor]) -> dict[str, int]:
        """Take the lowest of what is still to go from each pool that has not ended.

        Returns how many each pool lost by it.
        """
        taken = dict.fromkeys((pool.name for pool in self.pools), 0)
        for pool, score in zip(self.pools, self._current(scores), strict=True):
            if not pool.ended:
                taken[pool.name] = _cut_rest(pool, _ordered(pool, score))
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on, the state of the draws included."""
        pools = [
            {
                "name": pool.name, "quota": pool.quota, "there": pool.there.clone(),
                "chance": pool.chance.clone(), "gone": pool.gone.clone(),
                "updates": pool.updates, "ended": pool.ended,
            }
            for pool in self.pools
        ]  # fmt: skip
        return {
            "pools": pools,
            "past": [past.clone() for past in self._past],
            "seen": self._seen,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the pools must be the same."""
        saved = state["pools"]
        before, now = [p["name"] for p in saved], [pool.name for pool in self.pools]
        if before != now:
            message = f"the run was begun with the pools {before}, now they are {now}; {_SAME}"
            raise CheckpointError(message)
        for pool, old in zip(self.pools, saved, strict=True):
            if old["quota"] != pool.quota or not torch.equal(old["there"].cpu(), pool.there):
                message = (
                    f"of '{pool.name}', {old['quota']} of {int(old['there'].sum())} pieces were "
                    f"to go, now it is {pool.quota} of {int(pool.there.sum())}, or of others; "
                    f"{_SAME}"
                )
                raise CheckpointError(message)
        for pool, old in zip(self.pools, saved, strict=True):
            pool.chance, pool.gone = old["chance"].cpu().clone(), old["gone"].cpu().clone()
            pool.updates, pool.ended = old["updates"], old["ended"]
        self._past = [past.cpu().clone() for past in state["past"]]
        self._seen = state["seen"]
        self._generator.set_state(state["generator"].cpu())

    def _update(self, pool: Pool, score: Tensor) -> None:
        order = _ordered(pool, score)
        to_go = pool.quota - pool.lost
        goal, at = pool.goal, pool.quota
        if self._alpha == "adaptive":
            goal, at = float(to_go), to_go
        ranks = torch.arange(len(order), dtype=torch.float64)
        if self._scoring == "size":
            ranks = _by_size(score[order], goal, at, ranks)
        chance = (pool.chance[order] + self._increment(ranks, goal)).clamp(0.0, 1.0)
        pool.chance[order] = chance
        pool.updates += 1
        _lose(pool, order[chance >= 1 - _ROUNDING][:to_go])
        if pool.lost == pool.quota:
            _end(pool, "reached")
        elif pool.updates >= self._guard:
            _cut_rest(pool, _ordered(pool, score))

    def _current(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Return what decides: the scores, or their history with these in it."""
        if not self._history:
            return self._values(scores)
        if not self._seen:
            self.observe(scores)
        self._seen = False
        return self._past

    def _values(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Bring scores here, and look whether what has not ended can be ranked."""
        shapes = [tuple(s.shape) for s in scores]
        if shapes != [(pool.size,) for pool in self.pools]:
            sizes = {pool.name: pool.size for pool in self.pools}
            message = f"scores are one number for each piece, {sizes}; got shapes {shapes}"
            raise ScoreError(message)
        values = _here(scores)
        for pool, value in zip(self.pools, values, strict=True):
            if not pool.ended and not value[~pool.gone].isfinite().all():
                message = (
                    f"scores of '{pool.name}' are NaN or infinite and can't be ranked; look at its "
                    "weights: has the training diverged?"
                )
                raise ScoreError(message)
        return values


_SAME = "go on with what it was begun with, or begin a new run"


def _check(alpha: str, scores: str, history: float, guard: int) -> None:
    for name, value, known in (("alpha", alpha, Alpha), ("scores", scores, Scoring)):
        if value not in get_args(known):
            message = f"there is no {name}={value!r}; choose one of {', '.join(get_args(known))}"
            raise SelectionError(message)
    if not 0 <= history < 1:
        message = (
            "history is the part of the old scores that stays, from 0 (none) on and below 1, got "
            f"{history}"
        )
        raise SelectionError(message)
    if guard < 1:
        message = f"the guard is the most updates a pool may have, 1 or more, got {guard}"
        raise SelectionError(message)


def _pool(name: str, ratio: float, there: Tensor) -> Pool:
    if there.dtype != torch.bool or there.ndim != 1:
        message = (
            f"the pieces of '{name}' are a vector of True and False, got {there.dtype} of shape "
            f"{tuple(there.shape)}"
        )
        raise SelectionError(message)
    if not 0 <= ratio < 1:
        message = (
            f"the ratio of '{name}' is the part that is to go, from 0 on and below 1, got {ratio}"
        )
        raise SelectionError(message)
    there = there.detach().cpu().clone()
    pieces = int(there.sum())
    quota = max(0, math.ceil((ratio - _ROUNDING) * pieces))
    if quota and quota >= pieces:
        message = (
            f"a ratio of {ratio} would leave none of the {pieces} pieces of '{name}'; "
            + (f"give at most {(pieces - 1) / pieces:.4g}" if pieces > 1 else "give 0")
        )  # fmt: skip
        raise SelectionError(message)
    return Pool(
        name=name, size=len(there), quota=quota, goal=ratio * pieces, there=there,
        chance=(~there).double(), gone=~there, ended="" if quota else "reached",
    )  # fmt: skip


def _here(scores: Sequence[Tensor]) -> list[Tensor]:
    """Bring scores to the CPU in float64: with one copy, if they are together elsewhere."""
    kinds = {(s.device, s.dtype) for s in scores}
    if len(kinds) == 1 and scores[0].device.type != "cpu":
        whole = torch.cat([s.detach() for s in scores]).cpu().double()
        return list(whole.split([len(s) for s in scores]))
    return [s.detach().cpu().double() for s in scores]


def _ordered(pool: Pool, score: Tensor) -> Tensor:
    """Return the pieces that are left, the lowest first; of equal ones the first first."""
    left = (~pool.gone).nonzero().flatten()
    return left[score[left].argsort(stable=True)]


def _by_size(ascending: Tensor, goal: float, at: int, ranks: Tensor) -> Tensor:
    """Spread ranks as the scores are: 0 at the lowest, the goal at the score of rank `at`.

    When no more than that are left, the highest score keeps its rank instead.
    """
    end = goal
    if at >= len(ranks):
        at = len(ranks) - 1
        end = float(at)
    span = float(ascending[at] - ascending[0])
    if not 0 < span < math.inf:
        return ranks
    return end * ((ascending - ascending[0]) / span)


def _lose(pool: Pool, pieces: Tensor) -> None:
    pool.gone[pieces] = True
    pool.chance[pieces] = 1.0


def _cut_rest(pool: Pool, order: Tensor) -> int:
    """Take what is still to go from the lowest on, and end the pool."""
    count = pool.quota - pool.lost
    _lose(pool, order[:count])
    _end(pool, "guard")
    return count


def _end(pool: Pool, why: Ended) -> None:
    pool.ended = why
    pool.chance = pool.gone.double()
