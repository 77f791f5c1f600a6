"""LFPC: each layer learns by which criterion it is pruned, and how far."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import in_all, together
from tonsor.criteria.rows import Combine
from tonsor.criteria.score import Scores
from tonsor.criteria.stream import Loss, default_loss, samples_of, taken_apart, where_is
from tonsor.errors import TrainError
from tonsor.methods.checks import check_about, check_live, check_maskable, check_same
from tonsor.methods.earlier import digest
from tonsor.methods.lfpc.begin import (
    Choice,
    begin_of,
    budget_of,
    check_steps,
    fixed_criteria,
    names_of,
)
from tonsor.methods.lfpc.buffers import buffers_kept
from tonsor.methods.lfpc.decide import Aim, Decided, decide
from tonsor.methods.lfpc.feed import Feed
from tonsor.methods.lfpc.flops import flop_loss
from tonsor.methods.lfpc.moment import Moment
from tonsor.methods.lfpc.sampler import Drawn, Sampler
from tonsor.methods.lfpc.search import CRITERIA, Search
from tonsor.methods.lfpc.sites import Sites
from tonsor.methods.pools.base import Searched, Wanted
from tonsor.methods.pools.drawn import drawn_everywhere, let_go
from tonsor.methods.pools.limit import limit_of
from tonsor.methods.pools.make import check_bare, held_of, pools_of
from tonsor.methods.silence import multiply_
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.train.method import Method

_MOMENTS = 200  # about so many are remembered of a search
_NEAR = 0.995  # of a budget; what is further below is said


class LearnedCriteria(Method):
    """Learn for each layer by which criterion it is pruned, and how far (LFPC: He et al., 2020).

    Every site, which is a group of channels that go together, has odds for each criterion and for
    each rate. A search draws from them (Gumbel softmax, ever colder) and masks the pieces that
    would go. After each step of training it lowers the loss on other images, the `batches`, by
    changing the odds alone; a loss on the cost keeps what is drawn near the `budget`. After `steps`
    steps each site takes what is likeliest, and training goes on with that.

    >>> import torch, tonsor
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
    ...                     nn.Linear(8 * 16, 4))
    >>> other = [(torch.randn(8, 3, 8, 8), torch.randint(4, (8,))) for _ in range(4)]
    >>> method = LearnedCriteria(net, tonsor.inspect(net, other[0][0]), batches=other,
    ...                          budget="macs=50%", steps=20)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    >>> for step in range(30):
    ...     net(torch.randn(8, 3, 8, 8)).square().mean().backward()
    ...     method.before_step(step)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     method.after_step(step)
    >>> plan = method.finish()
    >>> list(plan.made_by["sites"]["0.weight[0]"])
    ['criterion', 'left', 'of', 'criteria', 'rates']

    `criteria` may be any that can score the `family`. `combine` says how those of channels look at
    a group, as in `score`: papers look at filters alone, the `producer`. What looks at data other
    than by gradients of training is shown `score_batches`. All else is in `search`.

    `choice="random"` draws a criterion for each site once, instead of learning it, and a mapping
    from patterns of sites to criteria says which it is: `{"*": "l2"}`. Sites of which nothing is to
    go are kept by `keep`, and `after` is an earlier plan of the same model.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        budget: str | Budget,
        batches: Iterable[Any],
        steps: int,
        criteria: Sequence[str | Scores] = CRITERIA,
        family: Searched = "channels",
        search: Search | None = None,
        choice: Choice | Mapping[str, str] = "learned",
        combine: Combine = "producer",
        score_batches: Iterable[Any] | None = None,
        at_most: int | None = 8,
        loss: Loss | None = None,
        seed: int = 0,
        keep: Iterable[Named] = (),
        after: Plan | None = None,
    ) -> None:
        check_same(model, anatomy)
        check_bare(anatomy)
        check_live(anatomy)
        check_maskable(anatomy.model)
        check_steps(steps)
        self.budget, self.family, self.steps = budget_of(budget), family, steps
        self.criteria, self.search = names_of(criteria), search or Search()
        self._feed, self._loss, self._model = Feed(batches), loss or default_loss, anatomy.model
        self.pools = pools_of(anatomy, family, Wanted(
            tuple(criteria), tuple(keep), after, learned=True, combine=combine,
            batches=score_batches, at_most=at_most, loss=loss, seed=seed,
        ))  # fmt: skip
        self._held = held_of(self.pools)
        self._by_data = score_batches is not None
        try:
            self.sites = Sites(
                self.pools, len(self.criteria), self.search.rates, self.search.round_to
            )
            self._rank()
            self._expected = self.pools.expected(self.budget.target)
            self._aim = Aim(
                lambda kept: self.pools.amount(kept, self.budget.target),
                lambda kept: float(self._expected([k.double() for k in kept])),
                limit_of(self.pools, self.budget), self.search.tolerance,
            )  # fmt: skip
            self.sampler = Sampler(
                len(self.sites), len(self.criteria), len(self.search.rates), steps=steps,
                how=self.search, seed=seed,
                fixed=fixed_criteria(self.sites, self.criteria, choice, seed),
                begin=begin_of(
                    self.sites, self._expected, len(self.criteria), self._aim, self.search
                ),
            )  # fmt: skip
        except BaseException:
            self._give_up()
            raise
        self._made: dict[str, Any] = {
            "method": "lfpc", "criteria": list(self.criteria), "combine": combine, "steps": steps,
            "choice": dict(choice) if isinstance(choice, Mapping) else choice,
            "search": asdict(self.search), "seed": seed,
        }  # fmt: skip
        self._about = {k: str(v) for k, v in self._made.items()} | {
            "family": family, "budget": str(self.budget), "after": digest(after),
            "sites": ", ".join(site.name for site in self.sites.every),
        }  # fmt: skip
        self.history: list[Moment] = []
        self.decided: Decided | None = None
        self._silent: list[tuple[nn.Parameter, Tensor]] = []
        self._drawn: Drawn | None = None
        self._finished = False
        self._draw()

    # ------------------------------------------------------------ while training

    @property
    def over(self) -> bool:
        """Whether the search is over, and each site has made its choice."""
        return self.decided is not None

    @property
    def target(self) -> float:
        """What the budget allows, in the unit of its cost."""
        return self._aim.target

    def before_step(self, step: int) -> None:
        """Look at the gradients, and keep those of what is gone from the optimizer."""
        self._check_open()
        if not self.over:
            self.pools.see()
            if not self.search.train_weights:
                for parameter in self._model.parameters():
                    parameter.grad = None
        with torch.no_grad():
            multiply_([(t.grad, m.to(t.grad)) for t, m in self._silent if t.grad is not None])
        self.pools.earlier.zero_gradients_()

    def after_step(self, step: int) -> None:
        """Change the odds by the loss on other images, and draw what is masked at the next step."""
        self._check_open()
        self._zero()
        if self.over:
            return
        if self.sampler.done % self.search.refresh == 0 or not self.sites.ranked:
            self._rank()
        if self.sites.ranked:
            self._learn(step)
        if self.sampler.done >= self.steps:
            self._decide()
        else:
            self._draw()

    def _rank(self) -> None:
        """Score all pieces as they are now, if they can be scored yet.

        What data shows, it shows of the whole model; of what is masked there would be nothing.
        """
        if not self.pools.ready:
            return
        if self._by_data:
            self._show_whole()
        self.sites.rank(self.pools.scores())

    def _show_whole(self) -> None:
        whole = [torch.ones_like(t) for t in self.pools.there.values()]
        self.pools.show_(whole, whole)

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw what is masked at the next step, and show outside of training what is likeliest."""
        if not self.sites.ranked:
            return
        self._drawn = self.sampler.draw()
        self._show()

    @torch.no_grad()
    def _show(self) -> None:
        assert self._drawn is not None
        likeliest = self.sampler.odds().single()
        self.pools.show_(
            self.sites.masks(self._drawn.criteria, self._drawn.rates),
            self.sites.masks(likeliest.criteria, likeliest.rates),
        )

    def _learn(self, step: int) -> None:
        """Take one step of the search."""
        batch = self._feed.next()
        inputs, target = taken_apart(batch, where_is(self._model))
        samples, temperature = samples_of(inputs), self.sampler.temperature
        told: dict[str, float] = {}

        def loss(drawn: Drawn) -> Tensor:
            self.pools.show_(self.sites.masks(drawn.criteria, drawn.rates))
            measured = self._loss(inputs.call(self._model), target).double().cpu()
            expects = self.sampler.odds() if self.search.expectation == "odds" else drawn
            expected = self._expected(self.sites.masks(expects.criteria, expects.rates))
            single = drawn.single()
            with torch.no_grad():
                actual = float(self._expected(self.sites.masks(single.criteria, single.rates)))
            told.update(
                loss=float(measured.detach()), drawn=actual, expected=float(expected.detach())
            )
            return measured + self.search.weight * flop_loss(
                expected, actual, self._aim.target, self.search.tolerance,
                upper=self.search.upper_tolerance,
            )  # fmt: skip

        with torch.enable_grad(), buffers_kept(self._model), drawn_everywhere(self._held):
            found = self.sampler.learn(loss)
        if not math.isfinite(found):
            message = (
                f"the loss of the search is {found} at step {step}, on the images that criteria "
                "are learned from; a lower lr, warmup, or clip=1.0 often helps"
            )
            raise TrainError(message)
        self._share(samples)
        self.sampler.step()
        if (self.sampler.done - 1) % max(1, self.steps // _MOMENTS) == 0:
            self.history.append(Moment(
                step, temperature, criteria=self.sampler.theta.tolist(),
                rates=self.sampler.beta.tolist(), **told,
            ))  # fmt: skip

    def _share(self, samples: int) -> None:
        """Let the odds of several processes change alike, each weighing as it has samples."""
        if together():
            total = in_all(torch.tensor(float(samples), dtype=torch.float64))
            for logits in (self.sampler.theta, self.sampler.beta):
                if logits.grad is not None:
                    logits.grad = in_all(logits.grad * samples) / total

    def _decide(self) -> None:
        """Have each site make its choice, and hold it from now on."""
        self._rank()
        odds = self.sampler.odds()
        self.decided = decide(
            self.sites, Drawn(odds.criteria.detach(), odds.rates.detach()), self._aim, self.search
        )
        self._settle()

    @torch.no_grad()
    def _settle(self) -> None:
        assert self.decided is not None
        self.pools.show_(self.decided.kept, self.decided.kept)
        self._silent = self.pools.silence(self.decided.kept)
        self._zero()

    @torch.no_grad()
    def _zero(self) -> None:
        multiply_([(t, m.to(t)) for t, m in self._silent])
        self.pools.earlier.zero_()

    # ------------------------------------------------------------ the end

    def finish(self) -> Plan:
        """Set to zero what is gone, take the masks off, and return what is to be cut."""
        self._check_open()
        notes: list[str] = []
        if self.decided is None:
            notes.append(
                f"training ended after {self.sampler.done} of {self.steps} steps of the search; "
                "what was likeliest by then is taken"
            )
            if not self.sites.ranked:
                message = "no step was taken, so there is nothing to choose by; train for longer"
                raise TrainError(message)
            self._decide()
        decided = self.decided
        assert decided is not None
        self._settle()
        self._finished = True
        let_go(self._held)
        return self.pools.plan(decided.kept, self._made | self._told(decided, notes))

    def _told(self, decided: Decided, notes: list[str]) -> dict[str, Any]:
        target, odds = self._aim.target, self.sampler.odds()
        met = decided.cost <= target if self.search.exact else not self._aim.misses(decided.cost)
        if decided.moved:
            notes.append(
                f"what was likeliest came to {decided.learned:.6g}, outside of the tolerance of "
                f"{self.search.tolerance:.0%}; {decided.moved} sites took another rate"
            )
        if not met:
            notes.append(f"{self.budget} is missed: it came to {decided.cost:.6g}")
        elif self.search.exact and decided.cost < _NEAR * target:
            notes.append(f"it came to {decided.cost:.6g}, well within {self.budget}")
        sites = {
            site.name: {
                "criterion": self.criteria[decided.criteria[i]],
                "left": decided.left[i], "of": site.steps,
                "criteria": [round(p, 4) for p in odds.criteria[i].tolist()],
                "rates": [round(p, 4) for p in odds.rates[i].tolist()],
            }
            for i, site in enumerate(self.sites.every)
        }  # fmt: skip
        return {
            "budget": str(self.budget), "whole": self.pools.whole(self.budget.target),
            "learned": decided.learned, "reached": decided.cost, "met": met, "sites": sites,
            "notes": notes, "limit": target,
        }  # fmt: skip

    def release(self) -> None:
        """Take the masks off, with nothing decided: the weights are as they are by now."""
        if not self._finished:
            if self.decided is None:
                self._show_whole()
            self._give_up()

    def _give_up(self) -> None:
        self._finished = True
        let_go(self._held)

    def _check_open(self) -> None:
        if self._finished:
            message = "this LearnedCriteria is finished, its masks are off; make a new one to go on"
            raise TrainError(message)

    # ------------------------------------------------------------ going on

    def state_dict(self) -> dict[str, Any]:
        """Return the odds, what is masked now, and the state of all chance."""
        drawn, decided = self._drawn, self.decided
        return {
            "about": self._about,
            "sampler": self.sampler.state_dict(),
            "feed": [self._feed.epoch, self._feed.place],
            "scores": self.pools.state_dict(),
            "ranks": self.sites.state(),
            "drawn": [] if drawn is None else [drawn.criteria.clone(), drawn.rates.clone()],
            "decided": {} if decided is None else asdict(decided),
            "history": [asdict(m) for m in self.history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_about(state["about"], self._about)
        self.sampler.load_state_dict(state["sampler"])
        self._feed.go_to(*state["feed"])
        self.pools.load_state_dict(state["scores"])
        self.sites.go_to(state["ranks"])
        self.history = [Moment(**m) for m in state["history"]]
        self._drawn = Drawn(*(t.cpu() for t in state["drawn"])) if state["drawn"] else None
        self.decided, self._silent = None, []
        if state["decided"]:
            kept = [k.bool().cpu() for k in state["decided"]["kept"]]
            self.decided = Decided(**{**state["decided"], "kept": kept})
            self._settle()
        elif self._drawn is not None:
            self._show()
        self._zero()
