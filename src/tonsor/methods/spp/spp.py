"""SPP: pieces go with a probability that rises and falls while a model trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import TrainError
from tonsor.methods.checks import check_about, check_live, check_maskable, check_same
from tonsor.methods.earlier import digest
from tonsor.methods.pools.base import Family, Wanted
from tonsor.methods.pools.drawn import (
    GradMode,
    draw_elements_,
    drawn_everywhere,
    let_go,
    momenta,
)
from tonsor.methods.pools.limit import as_cost, limit_of
from tonsor.methods.pools.make import check_bare, check_train, held_of, pools_of
from tonsor.methods.silence import multiply_
from tonsor.methods.spp.begin import budget_of, check_options
from tonsor.methods.spp.chances import Alpha, Chances, Scoring
from tonsor.methods.spp.goals import ratios_for, ratios_of
from tonsor.methods.spp.increment import Increment, Shape
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.train.method import Method

_NEAR = 0.995  # of a budget; what is further below is said


@dataclass(frozen=True, slots=True)
class Moment:
    """What has come of it after a step: the part of each pool that is gone for good."""

    step: int
    sparsity: dict[str, float]


class ByChance(Method):
    """Structured probabilistic pruning (Wang et al., 2018), of columns or of what you like.

    Every piece has a probability to go, 0 at first. Each step it is masked with that probability;
    its weights stay, and may be there at the next step. Every `interval` steps the pieces of each
    pool (the columns of one convolution) are ranked by their norm: the probability of those that
    matter least rises, that of the others falls, so that a wrong decision is taken back. What has
    come to a probability of 1 is gone for good. A pool that has lost its `ratio` is done, and what
    is left of it trains on as usual.

    >>> import torch, tonsor
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> method = ByChance(net, tonsor.inspect(net, torch.randn(2, 3, 8, 8)), ratio=0.5, interval=1)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    >>> for step in range(100):
    ...     net(torch.randn(8, 3, 8, 8)).square().mean().backward()
    ...     method.before_step(step)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     method.after_step(step)
    >>> [f.left / f.size for f in method.finish().columns.values()]
    [0.48148148148148145, 0.5]

    `ratio` is the part that goes, of every pool or by patterns of their names (`{"conv2": 0.75}`,
    the others lose nothing). Or `budget` says what is kept, `"macs=25%"` or `"spp_speedup=4x"`: all
    pools lose the same part, and all stop at once when it is met. `family` says what goes:
    `columns` as in the paper; `channels`, `stripes` and `blocks` by the same rule are ours. `by` is
    a criterion of weights.

    `most`, `centre` and `interval` are the paper's A, u and t: the largest increment of a
    probability, the height of the point about which the increment is symmetric, and the steps
    between two updates. `scores="size"` has the norm itself in place of its rank. `alpha` is
    `constant` as in the paper's tables, or `adaptive` as in the authors' later code, more than
    twice as slow. `history` adds up scores of all steps, the older the less. `recovery=False` lets
    no probability fall. A pool that is not done after `guard` updates loses the lowest of the rest
    at once, and the plan says so.

    `elementwise` draws for each weight of a piece. `gradient="caffe"` is what the authors' code
    does: a gradient goes to the input of a layer through its whole weight, and to the weight whole
    until the layer has lost something for good; there is no autocast with it. Masked pieces get no
    gradient otherwise, and no momentum if `attach` has shown the optimizer; decay they all get.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        family: Family = "columns",
        ratio: float | Mapping[str, float] | None = None,
        budget: str | Budget | None = None,
        by: str = "l1",
        interval: int = 180,
        most: float = 0.05,
        centre: float = 0.25,
        shape: Shape = "exponential",
        scores: Scoring = "rank",
        alpha: Alpha = "constant",
        history: float = 0.0,
        recovery: bool = True,
        guard: int = 500,
        elementwise: bool = False,
        gradient: GradMode = "masked",
        seed: int = 0,
        keep: Iterable[Named] = (),
        after: Plan | None = None,
    ) -> None:
        check_same(model, anatomy)
        check_options(family, interval, gradient)
        check_bare(anatomy)
        check_live(anatomy)
        check_maskable(anatomy.model)
        self.budget = budget_of(ratio, budget)
        increment = Increment(most=most, centre=centre, shape=shape, recovery=recovery)
        self.family, self.interval, self.elementwise = family, interval, elementwise
        self._gradient, self._history = gradient, history
        self.pools = pools_of(anatomy, family, Wanted((by,), tuple(keep), after, gradient))
        self._held = held_of(self.pools)
        try:
            ratios = self._ratios(ratio)
            self.chances = Chances(
                ratios, self.pools.there, increment=increment, alpha=alpha, scores=scores,
                history=history, guard=guard, seed=seed,
            )  # fmt: skip
            check_train(self._held)
        except BaseException:
            self._let_go()
            raise
        self._made = {
            "method": "spp", "by": by, "interval": interval, "most": most, "centre": centre,
            "shape": shape, "scores": scores, "alpha": alpha, "history": history,
            "recovery": recovery, "elementwise": elementwise, "gradient": gradient, "seed": seed,
            "ratio": dict(ratios) if isinstance(ratio, Mapping) else ratio,
        }  # fmt: skip
        self._about = {k: str(v) for k, v in self._made.items()} | {
            "family": family, "guard": str(guard), "budget": str(self.budget),
            "after": digest(after),
        }  # fmt: skip
        self.history: list[Moment] = []
        self._silent: list[tuple[nn.Parameter, Tensor]] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._elements = torch.Generator().manual_seed(seed + 1)
        self._over = self._finished = self._new = False
        self._notes: list[str] = []
        self._drawn: list[Tensor] = []
        self._settle()
        self._draw()

    def _ratios(self, ratio: float | Mapping[str, float] | None) -> dict[str, float]:
        if ratio is not None:
            return ratios_of(self.pools, ratio)
        assert self.budget is not None
        return ratios_for(self.pools, self.budget)

    # ------------------------------------------------------------ while training

    @property
    def over(self) -> bool:
        """Whether nothing more goes."""
        return self.chances.over

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Take momentum from what is masked, from now on."""
        self._optimizer = optimizer

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Take momentum from what is masked, and the gradients of what is silent."""
        self._check_open()
        if self._optimizer is not None:
            multiply_(list(momenta(self._optimizer, self._held)))
        multiply_([(t.grad, m.to(t.grad)) for t, m in self._silent if t.grad is not None])
        self.pools.earlier.zero_gradients_()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Change the probabilities if it is time, and draw what is masked at the next step."""
        self._check_open()
        if not self.over:
            if self._history:
                self.chances.observe(self._scores())
            if (step + 1) % self.interval == 0:
                self._update(step)
        self._zero()
        self._draw()

    def _scores(self) -> list[Tensor]:
        return [scores[0] for scores in self.pools.scores()]

    def _update(self, step: int) -> None:
        before, scores = self.chances.kept(), self._scores()
        self.chances.update(scores)
        if self.budget is not None and self._met(self.chances.kept()):
            self._stop(before, scores)
        sparsity = {pool.name: pool.sparsity for pool in self.chances.pools}
        self.history.append(Moment(step, sparsity))
        self._settle()

    def _met(self, kept: Sequence[Tensor]) -> bool:
        assert self.budget is not None
        cost = as_cost(self.pools.amount(kept, self.budget.target), self.budget)
        return cost <= limit_of(self.pools, self.budget)

    def _stop(self, before: Sequence[Tensor], scores: Sequence[Tensor]) -> None:
        """End all pools, and give back of the last update what the budget has room for."""
        now = self.chances.kept()
        lost = [(b & ~n).nonzero().flatten() for b, n in zip(before, now, strict=True)]
        order = sorted(
            ((self._rank(s, b, i), pool, i) for pool, (some, s, b) in enumerate(
                zip(lost, scores, before, strict=True)) for i in some.tolist()),
            reverse=True,
        )  # fmt: skip
        low, high = 0, len(order)
        while low < high:
            middle = (low + high + 1) // 2
            if self._met(_with(now, order[:middle])):
                low = middle
            else:
                high = middle - 1
        back = _with([torch.zeros_like(n) for n in now], order[:low])
        self.chances.give_back(back)

    @staticmethod
    def _rank(scores: Tensor, there: Tensor, piece: int) -> float:
        """Say where a piece stands in its pool, from 0 to 1."""
        left = scores[there]
        return float((left < scores[piece]).sum()) / max(1, len(left))

    def _settle(self) -> None:
        """Take what is gone for what is to be."""
        self._kept, self._new = self.chances.kept(), True
        self._silent = self.pools.silence(self._kept)
        if self._gradient == "caffe":
            lost = {pool.name for pool in self.chances.pools if pool.lost}
            begun = {id(h) for name in lost for h in self.pools.held[name]}
            for held in self._held:
                held.mask.through = id(held) not in begun

    def _draw(self) -> None:
        """Draw and show what is masked at the next step."""
        if self._over and self._drawn:
            return  # as it was shown already
        self._drawn = self.chances.draw()
        self.pools.show_(self._drawn, self._kept if self._new else None)
        self._over, self._new = self.chances.over, False
        self._draw_elements()

    def _draw_elements(self) -> None:
        """If it is asked for, draw for each weight of a piece with the chance of the piece."""
        if self.elementwise and not self.over:
            self.pools.show_([1 - pool.chance for pool in self.chances.pools])
            draw_elements_(self._held, self._elements)

    @torch.no_grad()
    def _zero(self) -> None:
        multiply_([(t, m.to(t)) for t, m in self._silent])
        self.pools.earlier.zero_()

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Judge with masks that are drawn, as in training, and not without what is gone only.

        Each entry draws once, from the same chance, which training does not notice.
        """
        self._check_open()
        chance, elements = self.chances.state_dict()["generator"], self._elements.get_state()
        before = [held.mask.drawn for held in self._held]
        self.pools.show_(self.chances.draw())
        self._draw_elements()
        try:
            with drawn_everywhere(self._held):
                yield
        finally:
            self.chances.rewind(chance)
            self._elements.set_state(elements)
            for held, drawn in zip(self._held, before, strict=True):
                held.mask.drawn = drawn

    # ------------------------------------------------------------ the end

    @torch.no_grad()
    def finish(self) -> Plan:
        """Set to zero what is gone, take the masks off, and return what is to be cut."""
        self._check_open()
        if not self.over:
            self._finish_early()
        self._notes += [
            f"'{p.name}' was not done after {p.updates} updates; the lowest of the rest went at "
            "once"
            for p in self.chances.pools if p.ended == "guard"
        ]  # fmt: skip
        self._settle()
        self._zero()
        self._drawn = []
        self._draw()
        kept = self._kept
        self.release()
        made: dict[str, Any] = {**self._made, "notes": self._notes}
        made |= {
            "updates": {p.name: p.updates for p in self.chances.pools},
            "lost": {p.name: [p.lost, int(p.there.sum())] for p in self.chances.pools},
        }
        if self.budget is not None:
            made |= self._told(kept)
        return self.pools.plan(kept, made)

    def _finish_early(self) -> None:
        scores = self._scores()
        before = self.chances.kept()
        open_ones = [pool for pool in self.chances.pools if not pool.ended]
        self.chances.finish_now(scores)
        if self.budget is not None and self._met(self.chances.kept()):
            self._stop(before, scores)
        for pool in open_ones:
            pool.ended = "stopped"
        lost = sum(int((b & ~n).sum()) for b, n in zip(before, self.chances.kept(), strict=True))
        self._notes.append(
            f"training ended before the pruning did; {lost} pieces more went at once"
        )

    def _told(self, kept: Sequence[Tensor]) -> dict[str, Any]:
        assert self.budget is not None
        whole, target = self.pools.whole(self.budget.target), self.budget.target
        reached, met = self.pools.amount(kept, target), self._met(kept)
        if not met:
            self._notes.append(f"{self.budget} is missed: {target} is {reached:.6g}")
        elif as_cost(reached, self.budget) < _NEAR * limit_of(self.pools, self.budget):
            self._notes.append(
                f"{target} is {reached:.6g}, well within {self.budget}: pieces are no finer"
            )
        return {"budget": str(self.budget), "whole": whole, "reached": reached, "met": met}

    def release(self) -> None:
        """Set to zero what is gone and take the masks off, with nothing decided.

        This is how to give up: the model is as it was made, with the weights that it has by now.
        """
        if not self._finished:
            self._let_go()

    def _let_go(self) -> None:
        self._finished = True
        let_go(self._held)

    def _check_open(self) -> None:
        if self._finished:
            message = "this ByChance is finished, and its masks are off; make a new one to go on"
            raise TrainError(message)

    # ------------------------------------------------------------ going on

    def state_dict(self) -> dict[str, Any]:
        """Return the probabilities, what is masked now, and the state of all chance."""
        return {
            "about": self._about,
            "chances": self.chances.state_dict(),
            "drawn": [d.clone() for d in self._drawn],
            "elements": self._elements.get_state(),
            "masks": [h.mask.drawn.bool().cpu() for h in self._held] if self.elementwise else [],
            "history": [asdict(m) for m in self.history],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_about(state["about"], self._about)
        self.chances.load_state_dict(state["chances"])
        self.history = [Moment(**m) for m in state["history"]]
        self._settle()
        self._drawn = [d.cpu() for d in state["drawn"]]
        self._over, self._new = self.chances.over, False
        self.pools.show_(self._drawn, self._kept)
        self._elements.set_state(state["elements"].cpu())
        for held, mask in zip(self._held, state["masks"], strict=False):
            held.show_(mask)
        self._zero()


def _with(kept: Sequence[Tensor], pieces: Sequence[tuple[float, int, int]]) -> list[Tensor]:
    out = [k.clone() for k in kept]
    for _, pool, piece in pieces:
        out[pool][piece] = True
    return out
