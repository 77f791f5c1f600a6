"""What the study of stripes has found, as a page and as figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tonsor.report.frontier import Tried, frontiers
from tonsor.report.raw import save_figure
from tonsor.report.stripes import remaining
from tonsor.study.compared import apart, right_of, seeds_and_spread, share
from tonsor.study.markdown import table
from tonsor.study.paired import Figure, accuracy, difference
from tonsor.study.swp import SwpStudy

Results = Mapping[str, Mapping[str, Any]]

NAMES = {
    "swp": "skeleton", "ones": "skeleton, from ones", "lasso": "group lasso",
    "relative lasso": "group lasso, norms over their layer's mean",
    "stripes": "stripes at once (l2)", "filters": "filters at once (l1)",
    "slimmed+swp": "filters, then skeleton",
}  # fmt: skip
HEADER = ("MACs", "pruned by", "parameters", "accuracy", "seeds", "- filters", "- group lasso")


def page(study: SwpStudy, found: Results, whole: Figure) -> str:
    """Tell all that was found."""
    lines = [f"## {study.base.network}, {whole.percent} % before anything is cut", ""]
    lines += table(HEADER, list(rows(study, found)))
    lines += ["", *continued(study, found)]
    lines += [f"- {c}" for c in [*_about(study, found), *study.base.conditions(len(study.seeds))]]
    return "\n".join(lines)


def rows(study: SwpStudy, found: Results) -> Iterator[tuple[str, ...]]:
    """Yield a row for each way and share: differences are paired, image by image."""
    for kept in sorted({r["settings"]["kept"] for r in found.values()}, reverse=True):
        for kind, name in NAMES.items():
            mine = _of(found, kind, kept)
            if not mine:
                continue
            right = right_of(study.base, mine)
            against = [
                apart(study.base, mine, _of(found, other, kept)) if other != kind else ""
                for other in ("filters", "lasso")
            ]
            yield (
                share(mine, "macs"), name, share(mine, "params"), accuracy(right).percent,
                seeds_and_spread(right), *against,
            )  # fmt: skip


def continued(study: SwpStudy, found: Results) -> Iterator[str]:
    """Tell of networks that were slimmed first: what they had before stripes went."""
    for kept in study.on_from:
        mine = _of(found, "slimmed+swp", kept)
        if not mine:
            continue
        before = right_of(study.base, mine, "slimmed_tuned")
        after = right_of(study.base, mine)
        slimmed = [r["slimmed"] for r in mine]
        macs, params = (
            sum(r[k][1] / r[k][0] for r in slimmed) / len(slimmed) for k in ("macs", "params")
        )
        yield (
            f"Filters to {macs:.1%} of MACs and {params:.1%} of parameters: "
            f"{accuracy(before).percent} %; going on from there with a skeleton to "
            f"{share(mine, 'macs')} and {share(mine, 'params')}: {accuracy(after).percent} % "
            f"(paired {difference(after, before).signed}), after as many passes again."
        )
        yield ""


def _about(study: SwpStudy, found: Results) -> Iterator[str]:
    cut = [r for r in found.values() if "changed" in r]
    if cut:
        changed = sum(r["changed"] for r in cut)
        worst = max(r["proof"] for r in cut)
        yield (
            f"Cutting changed an answer in {changed} of {len(cut)} networks that were trained with "
            f"stripes going; the largest error of the proofs is {worst:.0e}."
        )
    yield (
        f"Skeleton: alpha {study.alpha:g}, from the norms of stripes unless said otherwise; lasso: "
        f"alpha {study.lasso_alpha:g}. Both lose stripes every {study.every} steps over the first "
        "six tenths of the passes. What is cut at once is cut before, and tuned as long."
    )
    yield "MACs are those of convolutions and linear layers, as a share of the whole network's."


def draw(study: SwpStudy, found: Results, whole: Figure, folder: Path) -> list[Path]:
    """Draw accuracy over parameters and over MACs, and the stripes that are left."""
    made: list[Path] = []
    lines = {
        axis: {
            name: tried for kind, name in NAMES.items()
            if kind != "ones" and (tried := list(_tried(study, found, kind, axis)))
        }
        for axis in ("params", "macs")
    }  # fmt: skip
    if any(lines["params"].values()):
        base = study.base
        conditions = [
            f"{base.network}, {len(base.splits(0).test):,} test images, "
            f"{len(study.seeds)} seed(s), {base.recipe.epochs} passes over {base.images:,} images"
        ]
        panels = {"parameters, M": lines["params"], "MACs, M": lines["macs"]}
        svg = frontiers(
            panels, conditions=conditions, baseline=("nothing removed", whole.mean),
            scale=(1e-6, 100.0),
        )  # fmt: skip
        made.append(folder / "swp_curves.svg")
        data = {axis: {n: [[t.removed, t.x, t.y, t.error] for t in tried]
                       for n, tried in by.items()} for axis, by in lines.items()}  # fmt: skip
        save_figure(made[-1], svg, {"lines": data, "conditions": conditions})
    for kept in study.kept:
        for result in _of(found, "swp", kept)[:1]:
            made.append(folder / f"swp_remaining_{100 * kept:g}.svg")
            positions = result["positions"]
            said = [f"{study.base.network}, skeleton, {share([result], 'macs')} of MACs"]
            save_figure(
                made[-1], remaining(positions, conditions=said),
                {"positions": positions, "conditions": said},
            )  # fmt: skip
    return made


def _tried(study: SwpStudy, found: Results, kind: str, axis: str) -> Iterator[Tried]:
    for kept in study.kept:
        mine = _of(found, kind, kept)
        if mine:
            cost = sum(r[axis][1] for r in mine) / len(mine)
            figure = accuracy(right_of(study.base, mine))
            yield Tried(1 - kept, cost, figure.mean, figure.error)


def _of(found: Results, kind: str, kept: float) -> list[Mapping[str, Any]]:
    return [
        r for r in found.values()
        if r["settings"]["kind"] == kind and r["settings"]["kept"] == kept
    ]  # fmt: skip
