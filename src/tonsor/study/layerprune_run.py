"""The steps of the LayerPrune study in their order, each going on where it has stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonsor.errors import BudgetError
from tonsor.families.blocks.find import find_blocks
from tonsor.files import replacing
from tonsor.study.layerprune import (
    Known,
    LayerPruneStudy,
    cut_trial,
    latency_trial,
    matched_plan,
    scores_trial,
    smaller_network,
)
from tonsor.study.trials import Trial, run_trials

_UNREACHED = "unreached.json"
_Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Findings:
    """Everything that the study has found.

    `unreached` says for a model without blocks why no cut of filters is as fast; `smaller` is of
    the networks that were made small by hand.
    """

    blocks: tuple[str, ...]
    removable: tuple[str, ...]
    scores: _Results
    cut: _Results
    latency: _Results
    matched: _Results
    unreached: Mapping[str, str]
    smaller: Mapping[str, Mapping[str, Any]]


def run_layerprune(
    study: LayerPruneStudy, folder: Path, *, processes: int = 1, quiet: bool = False
) -> Findings:
    """Run what is missing of the study; a call that was stopped is gone on with by the same one.

    Latencies are measured by one process alone, and want a machine on which nothing else runs.
    """

    def run(work: Any, shared: Any, trials: list[Trial], at_once: int) -> dict[str, dict[str, Any]]:
        return run_trials(work, shared, trials, folder, processes=at_once, quiet=quiet)

    scores = run(scores_trial, study, study.scoring(), processes)
    by_name = {f"{r['settings']['by']} {r['settings']['seed']}": r["scores"]
               for r in scores.values()}  # fmt: skip
    known = Known(study, folder, by_name, {})
    cut = run(cut_trial, known, study.cutting(), processes)
    first = run(latency_trial, known, study.timing(), 1)
    ratios = {
        f"{name} {r['settings']['n']}": ratio[0]
        for r in first.values() for name, ratio in r["ratios"].items()
    }  # fmt: skip
    known = Known(study, folder, by_name, ratios)
    unreached = _plans(known, study.matching(), folder / _UNREACHED)
    reached = [t for t in study.matching() if t.key not in unreached]
    matched = run(cut_trial, known, reached, processes)
    anatomy = study.base.anatomy(study.base.model())
    found = find_blocks(anatomy)
    return Findings(
        blocks=tuple(b.name for b in found), removable=tuple(b.name for b in found.removable),
        scores=scores, cut=cut, latency=first, matched=matched, unreached=unreached,
        smaller=_smaller(study, anatomy.cost.macs()),
    )  # fmt: skip


def _smaller(study: LayerPruneStudy, whole: int) -> dict[str, dict[str, Any]]:
    """Judge the networks that were made small by hand."""
    found = {}
    for name, weights in study.smaller.items():
        model = smaller_network(study, name, weights)
        found[name] = {
            "answers": study.base.judge(model), "whole": whole,
            "macs": study.base.anatomy(model).cost.macs(),
        }  # fmt: skip
    return found


def _plans(known: Known, trials: list[Trial], path: Path) -> dict[str, str]:
    """Make the plans that match a latency, and note which can't be made."""
    found: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for trial in trials:
        if trial.key in found:
            continue
        try:
            matched_plan(known, trial)
        except BudgetError as error:
            found[trial.key] = str(error)
    with replacing(path) as part:
        part.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found
