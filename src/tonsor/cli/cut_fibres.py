"""Removing stripes or columns at once, from the command line."""

from __future__ import annotations

from typing import Any

from tonsor.api import prune_columns, prune_stripes
from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen import scores_named
from tonsor.cli.chosen_blocks import batches_seen
from tonsor.cli.family import family_of
from tonsor.cli.made import grown, make
from tonsor.cli.outcome import Outcome, splits_for
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.scores import Scores


def cut_fibres(command: Prune, budget: str | None) -> Outcome:
    """Remove stripes or columns as the command says."""
    options: dict[str, Any] = {}
    scores: str | Scores | None = None
    if command.ranking.by is not None:
        scores = options["by"] = scores_named(command.ranking.by)
    looks = isinstance(scores, str) and find_criterion(scores).reads_data
    splits = splits_for(command, [f"--by {scores}"] if looks else [])
    made, after = grown(make(command.model, command.source, splits))
    if splits is not None:
        from tonsor.cli.given import shown_to_criteria

        size, seed = command.ranking.score_batch, command.source.seed
        options["batches"] = shown_to_criteria(splits, size, seed)
        options["at_most"] = batches_seen(command.ranking.score_batches, scores)
    if command.floor is not None:
        options["floor"] = command.floor
    if command.rank is not None:
        options["rank"] = command.rank
    stripes = family_of(command) == "stripes"
    if stripes:
        options["stripe_group"] = command.stripe_group
    cut = prune_stripes if stripes else prune_columns
    slim, report = cut(
        made.model, made.inputs, budget=budget, threshold=command.threshold, keep=command.keep,
        seed=command.source.seed, after=after, quiet=command.along.quiet, verify=command.verify,
        **options,
    )  # fmt: skip
    return Outcome(made, splits, slim, report)
