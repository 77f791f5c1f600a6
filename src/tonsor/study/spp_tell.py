"""What the study of SPP has found, as a page and as figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tonsor.methods.spp.table import Tables
from tonsor.report.frontier import Tried, frontiers
from tonsor.report.raw import save_figure
from tonsor.report.sparsity import Course, sparsity
from tonsor.study.compared import apart, right_of, seeds_and_spread, share
from tonsor.study.markdown import table
from tonsor.study.paired import Figure, accuracy
from tonsor.study.spp import AT_ONCE, SppStudy
from tonsor.study.spp_paper import paper

Results = Mapping[str, Mapping[str, Any]]

NAMES = {
    "spp": "SPP", "spp l2": "SPP, L2 norms", "spp size": "SPP, norms in place of ranks",
    "spp no recovery": "SPP, no recovery", "columns": "columns at once (l1)",
    "filters": "filters at once (l1)",
}  # fmt: skip
HEADER = (
    "pruned by", "speed-up", "MACs", "parameters", "accuracy", "seeds", "- whole", "- columns",
    "- filters", "iterations", "changed",
)  # fmt: skip
# What SPP does by itself, against the other choice.
CHOICES = {
    "L1 - L2": "spp l2", "ranks - norms": "spp size", "recovery - none": "spp no recovery"
}  # fmt: skip
DRAWN = {"spp": "SPP + rank", "spp size": "SPP + norm"}
EARLY = "training ended before"


def page(study: SppStudy, found: Results, whole: Figure, simulated: Tables | None = None) -> str:
    """Tell all that was found; with `simulated`, next to the tables of the paper."""
    lines = [f"## {study.base.network}, {whole.percent} % before anything is cut", ""]
    if kept := _of(found, "whole", 1):
        right = right_of(study.base, kept)
        lines += [
            f"Whole, but trained on for as long as all others: {accuracy(right).percent} % "
            f"(seeds: {seeds_and_spread(right)}).", ""
        ]  # fmt: skip
    for speedup in speedups(found):
        lines += [f"### {speedup:g}x", ""]
        lines += [*table(HEADER, rows(study, found, speedup)), ""]
    lines += choices(study, found)
    lines += [f"- {c}" for c in [*_about(study, found), *study.base.conditions(_seeds(found))]]
    if simulated is not None:
        by = {"l1": _table1(study, found, "spp"), "l2": _table1(study, found, "spp l2")}
        took = {
            s: _iterations(mine) for s in speedups(found)
            if (mine := _of(found, "spp", s)) and not any(map(_early, mine))
        }  # fmt: skip
        lines += ["", *paper(simulated, by, whole, took, _interval(found), _steps(study))]
    return "\n".join(lines)


def speedups(found: Results) -> list[float]:
    """Return the speed-ups of which there are results."""
    cut = [r["settings"] for r in found.values() if r["settings"]["kind"] != "whole"]
    return sorted({s["speedup"] for s in cut})


def rows(study: SppStudy, found: Results, speedup: float) -> Iterator[tuple[str, ...]]:
    """Yield a row for each way: differences are paired, image by image."""
    against = [_of(found, "whole", 1), *(_of(found, k, speedup) for k in ("columns", "filters"))]
    for kind, name in NAMES.items():
        mine = _of(found, kind, speedup)
        if not mine:
            continue
        right = right_of(study.base, mine)
        differences = [
            "" if mine == others else apart(study.base, mine, others) for others in against
        ]
        by_chance = [r for r in mine if "updates" in r]
        changed = sum(r["changed"] for r in by_chance)
        yield (
            name, f"{_mean([r['speedup'] for r in mine]):.2f}x", share(mine, "macs"),
            share(mine, "params"), accuracy(right).percent, seeds_and_spread(right), *differences,
            _told(by_chance, _steps(study)), f"{changed} of {len(by_chance)}" if by_chance else "",
        )  # fmt: skip


def choices(study: SppStudy, found: Results) -> Iterator[str]:
    """Yield a table of what SPP chooses against what it could have chosen."""
    there = speedups(found)
    told = [
        (name, [apart(study.base, _of(found, "spp", s), _of(found, other, s)) for s in there])
        for name, other in CHOICES.items()
    ]
    if any(cell for _, cells in told for cell in cells):
        yield from ("### What SPP chooses, against the other choice", "")
        header = ("accuracy", *(f"{s:g}x" for s in there))
        yield from table(header, [(name, *cells) for name, cells in told if any(cells)])
        yield ""


def _about(study: SppStudy, found: Results) -> Iterator[str]:
    by_chance = [r for r in found.values() if "updates" in r]
    if by_chance:
        changed = sum(r["changed"] for r in by_chance)
        worst = max(r["proof"] for r in by_chance)
        yield (
            f"Cutting changed an answer in {changed} of {len(by_chance)} networks that were "
            "trained with columns going by chance, as they were before the cut and after it; the "
            f"largest error of the proofs is {worst:.0e}."
        )
        yield (
            f"SPP: an update every {_interval(found)} of the {_steps(study):,} iterations of the "
            "training, A = 0.05, u = 0.25; ranks of L1 norms unless said otherwise. Iterations are "
            "those until nothing more went, the mean over the seeds; the rest is retraining."
        )
    yield (
        "What goes at once is cut before, and tuned as long: columns by their L1 norm, the same "
        "part of each layer; filters by theirs, over the whole network. The rate rises over the "
        f"first {AT_ONCE['warmup']:g} passes there, and gradients are clipped to a norm of "
        f"{AT_ONCE['clip']:g}; without that what has lost nearly all in one step learns little."
    )
    yield (
        "Speed-up is counted in the multiply-accumulates of convolutions, as in the paper. MACs "
        "are those of convolutions and linear layers, as a share of the whole network's."
    )
    for result in by_chance:
        settings = result["settings"]
        for note in result["notes"]:
            kind = NAMES[settings["kind"]]
            yield f"{kind}, {settings['speedup']:g}x, seed {settings['seed']}: {note}."


def draw(study: SppStudy, found: Results, whole: Figure, folder: Path) -> list[Path]:
    """Draw accuracy over parameters and speed-up, and how layers lost columns at each speed-up."""
    made: list[Path] = []
    lines = {
        axis: {name: tried for kind, name in NAMES.items()
               if (tried := list(_tried(study, found, kind, axis)))}
        for axis in ("parameters, k", "speed-up")
    }  # fmt: skip
    if any(lines["speed-up"].values()):
        base = study.base
        conditions = [
            f"{base.network}, {len(base.splits(0).test):,} test images, "
            f"{_seeds(found)} seed(s), {base.recipe.epochs} passes over {base.images:,} images"
        ]
        baseline = ("nothing removed", whole.mean)
        if kept := _of(found, "whole", 1):
            baseline = ("nothing removed, trained on", accuracy(right_of(study.base, kept)).mean)
        svg = frontiers(lines, conditions=conditions, baseline=baseline, scale=(1.0, 100.0))
        made.append(folder / "spp_curves.svg")
        data = {axis: {n: [[t.removed, t.x, t.y, t.error] for t in tried]
                       for n, tried in by.items()} for axis, by in lines.items()}  # fmt: skip
        save_figure(made[-1], svg, {"lines": data, "conditions": conditions})
    for speedup in speedups(found):
        if (path := _draw_course(study, found, speedup, folder)) is not None:
            made.append(path)
    return made


def _draw_course(study: SppStudy, found: Results, speedup: float, folder: Path) -> Path | None:
    """Draw how each layer loses columns, by ranks and by norms, of the first seed."""
    some = {kind: _of(found, kind, speedup) for kind in DRAWN}
    mine = {k: r[0] for k, r in some.items() if r and r[0]["settings"]["seed"] == study.seeds[0]}
    if not mine:
        return None
    courses = {DRAWN[kind]: course(result, _steps(study)) for kind, result in mine.items()}
    conditions = [f"{study.base.network}, {speedup:g}x, seed {study.seeds[0]}"]
    conditions += [
        f"{DRAWN[kind]}: {_told([result], _steps(study))} iterations, then retraining to "
        f"{accuracy(right_of(study.base, [result])).percent} %"
        for kind, result in mine.items()
    ]
    path = folder / f"spp_sparsity_{speedup:g}x.svg"
    data = {"courses": courses, "conditions": conditions}
    save_figure(path, sparsity(courses, conditions=conditions), data)
    return path


def course(result: Mapping[str, Any], steps: int) -> Course:
    """Return how layers lost columns, from none; a training of `steps` may have cut it short.

    What was still to go at its end went at once there.
    """
    points = [[0, *(0.0 for _ in result["layers"])]]
    points += [[step + 1, *parts] for step, *parts in result["moments"]]
    if _early(result):
        points.append([steps, *(round(gone / of, 4) for gone, of in result["lost"].values())])
    iterations, *parts = zip(*points, strict=True)
    return Course(
        iterations=iterations, sparsity=dict(zip(result["layers"], parts, strict=True))
    )  # fmt: skip


def _tried(study: SppStudy, found: Results, kind: str, axis: str) -> Iterator[Tried]:
    for speedup in speedups(found):
        mine = _of(found, kind, speedup)
        if mine:
            figure = accuracy(right_of(study.base, mine))
            left = _mean([r["params"][1] for r in mine]) / 1000
            reached = _mean([r["speedup"] for r in mine])
            x = reached if axis == "speed-up" else left
            yield Tried(1 - 1 / speedup, x, figure.mean, figure.error)


def _of(found: Results, kind: str, speedup: float) -> list[Mapping[str, Any]]:
    return [
        r for r in found.values()
        if r["settings"]["kind"] == kind and r["settings"]["speedup"] == speedup
    ]  # fmt: skip


def _table1(study: SppStudy, found: Results, kind: str) -> dict[float, Figure]:
    some = {s: _of(found, kind, s) for s in speedups(found)}
    return {s: accuracy(right_of(study.base, mine)) for s, mine in some.items() if mine}


def _early(result: Mapping[str, Any]) -> bool:
    return any(note.startswith(EARLY) for note in result["notes"])


def _iterations(mine: Sequence[Mapping[str, Any]]) -> float:
    """Iterations until the last layer was done, the mean over the seeds."""
    return _mean([max(r["updates"].values()) * r["interval"] for r in mine])


def _told(mine: Sequence[Mapping[str, Any]], steps: int) -> str:
    if not mine:
        return ""
    return f"> {steps:,}" if any(map(_early, mine)) else f"{_iterations(mine):,.0f}"


def _interval(found: Results) -> int:
    return max((r["interval"] for r in found.values() if "interval" in r), default=0)


def _steps(study: SppStudy) -> int:
    base = study.base
    return base.recipe.epochs * math.ceil(len(base.splits(0).train) / base.recipe.batch)


def _seeds(found: Results) -> int:
    return len({r["settings"]["seed"] for r in found.values()})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
