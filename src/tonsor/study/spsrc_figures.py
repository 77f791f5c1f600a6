"""SPSRC's figures of a network at hand: norms of its layers, and structures with it and without."""

from __future__ import annotations

from pathlib import Path

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores, score
from tonsor.methods.spsrc import (
    CONFIGURATIONS,
    Structures,
    norm_figure,
    spsrc_plan,
    structure_data,
    threshold_plan,
)
from tonsor.report.distributions import distributions
from tonsor.report.raw import save_figure
from tonsor.report.structure import overlap, structure

WITH, WITHOUT = "spectral", "l1"
_BESIDE = 6  # robust layers to show beside the sensitive ones


def draw_spsrc(anatomy: Anatomy, network: str, folder: Path) -> list[Path]:
    """Draw the figures of the supplement into a folder, each with its numbers beside it."""
    scores = {by: score(anatomy, by, combine="producer") for by in (WITH, WITHOUT)}
    name = next(n for n, c in CONFIGURATIONS.items() if c.model == network)
    written = [_norms(anatomy, network, scores[WITH], folder / "norms.svg")]
    fixed = structure_data({by: spsrc_plan(anatomy, name, s) for by, s in scores.items()})
    whole, kept = anatomy.cost.macs(), fixed.kept[WITH]
    budget = f"macs={anatomy.cost.macs(kept) / whole:.4f}"  # as much as the configuration keeps
    free = structure_data({by: threshold_plan(anatomy, budget, s) for by, s in scores.items()})
    for title, found in (("fixed", fixed), ("threshold", free)):
        written += _structures(found, folder, title)
    return written


def _norms(anatomy: Anatomy, network: str, scores: Scores, path: Path) -> Path:
    """Layers that the authors found sensitive, in another colour, beside some robust ones."""
    skipped = {
        n for c in CONFIGURATIONS.values() if c.model == network for n in c.skipped
    }  # fmt: skip
    every = norm_figure(anatomy, scores)
    robust = [layer for layer in every if layer.number not in skipped]
    step = max(1, len(robust) // _BESIDE)
    chosen = {layer.number for layer in robust[::step][:_BESIDE]} | skipped
    layers = [layer for layer in every if layer.number in chosen]
    titles = {layer.number: f"{layer.number}: {layer.layer}" for layer in layers}
    svg = distributions(
        {titles[n.number]: n.scores for n in layers},
        skewness={titles[n.number]: n.skewness for n in layers},
        marked=[titles[n.number] for n in layers if n.number in skipped],
        x=f"{scores.by} norm",
    )
    save_figure(path, svg, {"by": scores.by, "skipped": sorted(skipped), "layers": layers})
    return path


def _structures(found: Structures, folder: Path, title: str) -> list[Path]:
    counts, shared = folder / f"structure-{title}.svg", folder / f"overlap-{title}.svg"
    save_figure(counts, structure(found.before, found.kept), found)
    save_figure(shared, overlap(found.overlap[WITHOUT], chance=found.chance[WITHOUT]), found)
    return [counts, shared]
