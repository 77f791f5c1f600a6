"""The verbs, in the order of the story: trace, inspect, score, plan, apply, prove, prune."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Unpack

from torch import nn

from tonsor.anatomy import Anatomy, inspect
from tonsor.cost.account import Account
from tonsor.cost.bench import Bench
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.score import Combine, Scores, score
from tonsor.criteria.stream import Loss
from tonsor.errors import ProofError
from tonsor.explain import short
from tonsor.families.blocks.block import Blocks
from tonsor.families.blocks.find import Level, find_blocks
from tonsor.plan_parts import fibres_text
from tonsor.plans import Plan
from tonsor.select.block_plan import plan_blocks
from tonsor.select.budget import Budget, as_budget, is_measured
from tonsor.select.fibres.make import FibreOptions, StripeOptions, plan_columns, plan_stripes
from tonsor.select.make import plan
from tonsor.select.names import Named
from tonsor.select.rank import Rank
from tonsor.select.wishes import read_wishes
from tonsor.surgery.blame import blame, cut_fails
from tonsor.surgery.proof import Proof
from tonsor.types import Pin

__all__ = [
    "Report", "apply", "blocks", "inspect", "plan", "plan_blocks", "plan_columns",
    "plan_stripes", "prune", "prune_blocks", "prune_columns", "prune_stripes", "score",
    "score_blocks",
]  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a prune did: the plan, the cost before and after, the proof, and what was pinned."""

    plan: Plan
    anatomy: Anatomy
    proof: Proof | None

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates for one sample, before and after."""
        return self.anatomy.cost.macs(), self._after.macs(self.plan.amounts)

    @property
    def params(self) -> tuple[int, int]:
        """Parameters, before and after."""
        return self.anatomy.cost.params(), self._after.params(self.plan.amounts)

    @cached_property
    def _after(self) -> Account:
        return self.anatomy.cost_without(self.plan.drops, self.plan.fibres)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a careful user should know about this result."""
        return tuple(_warnings(self))

    def __str__(self) -> str:
        lines = [type(self.anatomy.model).__name__]
        for name, (before, after) in (("parameters", self.params), ("MACs", self.macs)):
            share = after / before if before else 1.0
            lines.append(f"  {name:<10} {short(before):>9} → {short(after):>9}  ({share:.1%} kept)")
        cut, gone = len(self.plan.keep), [d.name for d in self.plan.drops]
        if gone:
            lines.append(f"  {len(gone)} block{'s' * (len(gone) > 1)} went: {', '.join(gone)}")
        if self.plan.fibres:
            lines.append(f"  {fibres_text(self.plan.cut().fibres)}")
        if cut or not (gone or self.plan.fibres):
            lines.append(f"  {cut} of {len(self.anatomy.prunable)} free groups were cut, "
                         f"{len(self.anatomy.pinned)} may not be")  # fmt: skip
        lines += [f"  {text}" for text in _least(self.plan.made_by)]
        lines += [f"  {text}" for text in _measured(self.plan.made_by)]
        lines.append(f"  {self.proof}" if self.proof else "  not proven (verify=False)")
        lines += [f"  note: {w}" for w in self.warnings]
        return "\n".join(lines)


def _warnings(report: Report) -> Iterable[str]:
    made = report.plan.made_by
    if made.get("met") is False:
        yield (
            f"the nearest reachable step keeps {_said(made['reached'])}, "
            f"the budget allows {_said(made['limit'])}"
        )
    yield from made.get("notes", ())
    approximate = {
        what for name in report.plan.keep for what in report.anatomy.by_name[name].approximate
    }
    if approximate:
        yield f"{', '.join(sorted(approximate))} now take statistics over fewer indices; fine-tune"
    for item in report.anatomy.cost.uncounted:
        yield f"its cost is not in the count: {item}"
    if report.anatomy.unreached:
        number = len(report.anatomy.unreached)
        yield f"{number} parameter(s) were never reached by the example input and are left whole"


def _least(made: Mapping[str, Any]) -> Iterable[str]:
    """Say how far the budget could have gone, as a budget that could be asked for."""
    if "least" in made:
        least, whole = made["least"], made["whole"]
        target = made["budget"].partition("=")[0]
        share = f", {least / whole:.1%} of the whole" if least <= whole else ""
        yield f"the least reachable is {target}={_said(least)}{share}"


def _measured(made: Mapping[str, Any]) -> Iterable[str]:
    """Say how long the model takes, where that was the budget."""
    if "conditions" in made:
        low, high = made["interval"]
        yield (
            f"{'latency':<10} {made['whole']:.3g} ms → {made['reached']:.3g} ms, measured in "
            f"turns: {made['ratio']:.1%} ({low:.1%} to {high:.1%}) of the whole"
        )
        yield f"           ({made['conditions']})"


def _said(amount: float) -> str:
    return f"{amount:,.0f}" if float(amount).is_integer() else f"{amount:,.6g}"


def apply(model: nn.Module, plan: Plan, *, inputs: Any = None, verify: bool = True) -> nn.Module:
    """Cut a model according to a plan; see `Plan.apply`."""
    return plan.apply(model, inputs=inputs, verify=verify)


def prune(
    model: nn.Module,
    inputs: Any,
    *,
    budget: str | Budget | None = None,
    by: str | Scores = "l2",
    rank: Rank = "global",
    keep: Iterable[Named] = (),
    ratios: Mapping[str, float] | None = None,
    round_to: int = 1,
    floor: int | float = 0.1,
    combine: Combine = "mean",
    seed: int = 0,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    skew: float | None = None,
    after: Plan | None = None,
    bench: Bench | None = None,
    quiet: bool = False,
    head_dims: bool = False,
    verify: bool = True,
) -> tuple[nn.Module, Report]:
    """Inspect, plan, cut and prove in one call; return the slim model and a report.

    The options are those of `plan` and `inspect`. The model given is not touched. Should the
    proof fail, the groups to blame are found, pinned with the reason, and the rest is planned
    again.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> slim, report = tonsor.prune(net, torch.randn(2, 8), budget="macs=50%")
    >>> slim[0].out_features, report.params
    (8, (212, 108))
    """
    anatomy = inspect(model, inputs, head_dims=head_dims)
    timed = budget is not None and is_measured(as_budget(budget).target)
    counted = Budget("macs", kept=1.0) if timed else budget
    read_wishes(
        anatomy, counted, rank=rank, keep=keep, ratios=ratios, round_to=round_to, floor=floor,
        skew=skew, after=after,
    )  # fmt: skip
    if not isinstance(by, Scores):  # once, for batches may be an iterator
        by = score(
            anatomy, by, combine=combine, batches=batches, loss=loss, at_most=at_most, seed=seed,
            quiet=quiet,
        )  # fmt: skip
    while True:
        decided = plan(
            anatomy, budget, by=by, rank=rank, keep=keep, ratios=ratios, round_to=round_to,
            floor=floor, seed=seed, skew=skew, after=after, bench=bench, quiet=quiet,
        )  # fmt: skip
        slim = decided.apply(anatomy.model, verify=False)
        if not verify:
            return slim, Report(decided, anatomy, None)
        try:
            return slim, Report(decided, anatomy, decided.prove(anatomy.model, slim))
        except ProofError:
            found = _blame(anatomy, decided)
            pins = {n: pin for n, pin in found.items() if anatomy.by_name[n].prunable}
            if not pins:  # or what is to blame was cut by an earlier plan
                raise
            anatomy = anatomy.pinned_also(pins)


def prune_blocks(
    model: nn.Module,
    inputs: Any,
    *,
    budget: str | Budget | None = None,
    remove: int | Iterable[str] | None = None,
    by: str | BlockScores = "imprint",
    level: Level = "block",
    keep: Iterable[Named] = (),
    batches: Iterable[Any] | None = None,
    judge: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    after: Plan | None = None,
    bench: Bench | None = None,
    quiet: bool = False,
    verify: bool = True,
) -> tuple[nn.Module, Report]:
    """Inspect, plan, remove whole blocks and prove it in one call.

    The options are those of `plan_blocks`. The model given is not touched.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet20")
    >>> slim, report = tonsor.prune_blocks(net, torch.randn(1, 3, 32, 32), remove=2, by="l2")
    >>> len(report.plan.drops), report.macs[0] - report.macs[1] == 2 * 4_718_592
    (2, True)
    """
    anatomy = inspect(model, inputs)
    decided = plan_blocks(
        anatomy, budget, remove=remove, by=by, level=level, keep=keep, batches=batches,
        judge=judge, loss=loss, at_most=at_most, seed=seed, after=after, bench=bench, quiet=quiet,
    )  # fmt: skip
    slim = decided.apply(anatomy.model, verify=False)
    proof = decided.prove(anatomy.model, slim) if verify else None
    return slim, Report(decided, anatomy, proof)


def prune_stripes(
    model: nn.Module, inputs: Any, *, verify: bool = True, **options: Unpack[StripeOptions]
) -> tuple[nn.Module, Report]:
    """Inspect, plan, remove stripes of convolutions and prove it in one call.

    The options are those of `plan_stripes`. The model given is not touched. How the layers are
    executed is a guess then; `fastest` measures it.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet20")
    >>> slim, report = tonsor.prune_stripes(net, torch.randn(1, 3, 32, 32), budget="macs=50%")
    >>> print(slim.layer3[2].conv2)  # doctest: +ELLIPSIS
    StripeConv2d(64, 64, stripes=.../576)
    """
    anatomy = inspect(model, inputs)
    return _carried_out(anatomy, plan_stripes(anatomy, **options), verify)


def prune_columns(
    model: nn.Module, inputs: Any, *, verify: bool = True, **options: Unpack[FibreOptions]
) -> tuple[nn.Module, Report]:
    """Inspect, plan, remove columns of convolutions and prove it in one call.

    The options are those of `plan_columns`. The model given is not touched. How the layers are
    executed is a guess then; `fastest` measures it.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet20")
    >>> slim, report = tonsor.prune_columns(net, torch.randn(1, 3, 32, 32), budget="macs=50%")
    >>> print(slim.layer3[2].conv2)  # doctest: +ELLIPSIS
    ColumnConv2d(64, 64, columns=.../576)
    """
    anatomy = inspect(model, inputs)
    return _carried_out(anatomy, plan_columns(anatomy, **options), verify)


def _carried_out(anatomy: Anatomy, decided: Plan, verify: bool) -> tuple[nn.Module, Report]:
    slim = decided.apply(anatomy.model, verify=False)
    proof = decided.prove(anatomy.model, slim) if verify else None
    return slim, Report(decided, anatomy, proof)


def blocks(anatomy: Anatomy, *, level: Level = "block") -> Blocks:
    """Find the blocks of a model; see `families.blocks.find`."""
    return find_blocks(anatomy, level=level)


def _blame(anatomy: Anatomy, decided: Plan) -> dict[str, Pin]:
    """Find the groups without which the plan would pass its proof."""
    ties: dict[str, set[str]] = {}
    for group in anatomy.groups:
        if group.tie is not None:
            ties[group.name] = {g.name for g in anatomy.groups if g.tie == group.tie}

    def failing(names: Sequence[str]) -> str:
        some = {n: k for n, k in decided.keep.items() if n in names}
        return cut_fails(anatomy.model, anatomy.inputs, replace(decided, keep=some).cut())

    return blame(list(decided.keep), failing, ties)
