"""The table of the comparison of criteria, and how alike the criteria rank."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonsor.criteria.compare import correlations
from tonsor.study.criteria import UNIFORM, CriteriaStudy, by_criterion, scores_of
from tonsor.study.paired import Answers, Figure, accuracy, difference, spread, unpacked

RANDOM = "random"
STAGES = ("cut", "recalibrated", "tuned")


@dataclass(frozen=True, slots=True)
class Line:
    """One criterion at one budget: accuracies with their errors, and how far it is from random."""

    by: str
    seeds: int
    stages: Mapping[str, Figure]
    over_random: Figure | None
    spread: float
    kept: float

    def cells(self) -> tuple[str, ...]:
        """The line as text."""
        beyond = "" if self.over_random is None else self.over_random.signed
        over_seeds = "" if math.isnan(self.spread) else f"{100 * self.spread:.1f}"
        shown = [self.stages[s].percent for s in STAGES]
        return (self.by, f"{self.kept:.1%}", *shown, beyond, over_seeds)


HEADER = (
    "criterion", "MACs kept", "after the cut", "statistics anew", "fine-tuned",
    "fine-tuned, against random", "sd over seeds",
)  # fmt: skip


def lines(study: CriteriaStudy, found: Mapping[str, Mapping[str, Any]], kept: float) -> list[Line]:
    """The criteria at one budget, the best after fine-tuning first.

    Seeds that not every criterion has been through are left out, if any is whole.
    """
    whole = whole_seeds(study, found, kept)
    grouped = {
        by: [r for r in results if not whole or r["settings"]["seed"] in whole]
        for by, results in by_criterion(found, kept).items()
    }
    count = len(study.base.splits(0).test)

    def right(results: Sequence[Mapping[str, Any]], stage: str) -> list[Answers]:
        ordered = sorted(results, key=lambda r: r["settings"]["seed"])
        return [unpacked(r["answers"][stage], count) for r in ordered]

    drawn = right(grouped[RANDOM], "tuned") if RANDOM in grouped else None
    told = [
        Line(
            by=by,
            seeds=len(results),
            stages={s: accuracy(right(results, s)) for s in STAGES},
            over_random=None
            if drawn is None or by == RANDOM or len(drawn) != len(results)
            else difference(right(results, "tuned"), drawn),
            spread=spread(right(results, "tuned")),
            kept=results[0]["macs"][1] / results[0]["macs"][0],
        )
        for by, results in grouped.items()
    ]
    return sorted(told, key=lambda line: -line.stages["tuned"].mean)


def whole_seeds(
    study: CriteriaStudy, found: Mapping[str, Mapping[str, Any]], kept: float
) -> tuple[int, ...]:
    """The seeds that every criterion has been through at one budget."""
    grouped = by_criterion(found, kept)
    done = [{r["settings"]["seed"] for r in grouped.get(by, ())} for by in study.criteria()]
    return tuple(seed for seed in study.seeds if all(seed in seeds for seeds in done))


def markdown(
    study: CriteriaStudy, found: Mapping[str, Mapping[str, Any]], whole: Figure
) -> Iterator[str]:
    """Yield the lines of a page: a table for each budget, and the conditions."""
    yield f"## {study.base.network}, {whole.percent} % before anything is cut"
    for kept in study.kept:
        told = lines(study, found, kept)
        if not told:
            continue
        yield ""
        seeds = max(line.seeds for line in told)
        fewer = f", {seeds} of {len(study.seeds)} seeds" if seeds < len(study.seeds) else ""
        yield f"### {1 - kept:.0%} of the MACs removed{fewer}"
        yield ""
        yield "| " + " | ".join(HEADER) + " |"
        yield "|---|" + "--:|" * (len(HEADER) - 1)
        for line in told:
            name = f"*{line.by}*" if line.by in (RANDOM, UNIFORM) else line.by
            yield "| " + " | ".join((name, *line.cells()[1:])) + " |"
        yield ""
        yield verdict(told)
    yield ""
    yield from (f"- {c}" for c in conditions(study))


def verdict(told: Sequence[Line]) -> str:
    """Say how many criteria are beyond chance, and what random itself has come to."""
    judged = [line for line in told if line.over_random is not None]
    better = [
        n.by for n in judged if n.over_random and n.over_random.mean > 2 * n.over_random.error
    ]
    worse = [
        n.by for n in judged if n.over_random and n.over_random.mean < -2 * n.over_random.error
    ]
    place = next((i for i, line in enumerate(told, 1) if line.by == RANDOM), None)
    if place is None:
        return ""
    said = f"`random` is number {place} of {len(told)} after fine-tuning."
    if place == 1:
        said = "`random` wins after fine-tuning."
    said += f" Better than random by more than two standard errors: {', '.join(better) or 'none'}."
    return said + f" Worse by as much: {', '.join(worse) or 'none'}."


def conditions(study: CriteriaStudy) -> list[str]:
    """Under which conditions the numbers were taken."""
    return [
        *study.base.conditions(len(study.seeds)),
        f"Everything that may be cut is free, the residual streams too; `rank={study.rank}`, "
        f"`combine={study.combine}`: each group loses the same share, and only the choice within "
        "groups differs. `uniform` takes pieces at equal distances and looks at nothing.",
    ]


def alike(
    study: CriteriaStudy, found: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[list[float]]]:
    """Spearman's correlation of the criteria with each other, on the first seed."""
    scores = scores_of(found, study.seeds[0], study.kept[0])
    names, matrix = correlations([s for s in scores if s.by not in (UNIFORM, RANDOM)])
    return list(names), [list(map(float, row)) for row in matrix]
