"""The plan of an SPSRC configuration: fixed counts, and a norm that says which filters stay."""

from __future__ import annotations

from dataclasses import replace

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores
from tonsor.methods.spsrc.configurations import find_configuration
from tonsor.methods.spsrc.own import group_of, numbered, own_scores
from tonsor.plans import Plan
from tonsor.select.make import plan


def spsrc_plan(
    anatomy: Anatomy, name: str, by: str | Scores = "spectral", *, reverse: bool = False
) -> Plan:
    """Keep as many filters as a published configuration does, those of the highest scores.

    Filters are judged by the weights that make them alone, as in the paper, whatever reads them.
    `reverse` keeps those of the lowest scores, the authors' check that the order matters.
    """
    ratios = find_configuration(name).ratios(anatomy)
    groups = {c.name: group_of(c) for c in numbered(anatomy) if c.name in ratios}
    scores = own_scores(anatomy, by, groups.values())
    if reverse:
        lowest_last = {n: -v for n, v in scores.values.items()}
        scores = Scores(lowest_last, f"reversed {scores.by}", scores.unscored)
    shares = {n: kept / anatomy.by_name[groups[n]].size for n, kept in ratios.items()}
    made = plan(anatomy, by=scores, ratios=shares)
    return replace(made, made_by={**made.made_by, "method": "spsrc", "configuration": name})
