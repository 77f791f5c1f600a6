"""The figures of the LayerPrune study: importance of blocks, and accuracy over latency."""

from __future__ import annotations

from pathlib import Path

from tonsor.criteria.blocks.scores import BlockScores
from tonsor.report.frontier import Tried, frontier
from tonsor.report.importance import block_accuracy, importance
from tonsor.report.raw import save_figure
from tonsor.study.layerprune import LayerPruneStudy
from tonsor.study.layerprune_run import Findings
from tonsor.study.layerprune_tell import Told
from tonsor.study.paired import accuracy, unpacked


def draw(study: LayerPruneStudy, findings: Findings, folder: Path) -> list[Path]:
    """Draw what has been found into a folder, each figure with its data; return the files."""
    seed = study.seeds[0]
    scores = {
        r["settings"]["by"]: BlockScores.from_json(r["scores"])
        for r in findings.scores.values() if r["settings"]["seed"] == seed
    }  # fmt: skip
    fixed = [b for b in findings.blocks if b not in findings.removable]
    made: list[Path] = []
    values = {by: dict(s.values) for by, s in scores.items()}
    made.append(folder / "importance.svg")
    save_figure(made[-1], importance(values, findings.blocks, fixed=fixed), {"scores": values})
    curves = {by: dict(s.curve) for by, s in scores.items() if s.curve is not None}
    if curves:
        network = next(s.network for s in scores.values() if s.network is not None)
        figure = block_accuracy(curves, findings.blocks, network=network, fixed=fixed)
        made.append(folder / "curve.svg")
        save_figure(made[-1], figure, {"curves": curves, "network": network})
    return made + _frontiers(study, Told(study, findings), folder)


def _frontiers(study: LayerPruneStudy, told: Told, folder: Path) -> list[Path]:
    """Draw accuracy over the reduction of latency, a figure for each batch."""
    made: list[Path] = []
    whole = accuracy([unpacked(study.base.judge(study.base.model()), told.count)]).mean
    for result in told.findings.latency.values():
        batch = result["settings"]["n"]
        lines = {f"LayerPrune ({study.main})": _line(told, "blocks", study.main, batch)}
        for by in study.filters_by:
            lines[f"filters, {by}"] = _line(told, "filters", by, batch)
        lines = {name: tried for name, tried in lines.items() if tried}
        if not lines:
            continue
        conditions = [
            f"{study.base.network}, {told.count:,} test images, one pass over "
            f"{study.base.images:,} training images after the cut", result["conditions"],
        ]  # fmt: skip
        figure = frontier(lines, conditions=conditions, baseline=("nothing removed", whole))
        path = folder / f"latency{batch}.svg"
        data = {name: [[t.removed, t.x, t.y, t.error] for t in tried]
                for name, tried in lines.items()}  # fmt: skip
        save_figure(path, figure, {"lines": data, "conditions": conditions})
        made.append(path)
    return made


def _line(told: Told, kind: str, by: str, batch: int) -> list[Tried]:
    tried = []
    seed = told.study.seeds[0]
    for result in told.findings.cut.values():
        its, ratio = result["settings"], told.latencies.get((batch, result["key"]))
        if (its["kind"], its["by"], its["seed"]) != (kind, by, seed) or ratio is None:
            continue
        figure = accuracy(told.right([result], "tuned"))
        middle, low, high = ratio
        tried.append(Tried(its["n"], 1 - middle, figure.mean, figure.error, (1 - high, 1 - low)))
    return tried
