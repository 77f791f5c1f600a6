"""Removing stripes, from the command line: at once, or in the course of a training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tonsor.api import prune_stripes
from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen import scores_named
from tonsor.cli.chosen_blocks import batches_seen
from tonsor.cli.made import Made, make
from tonsor.cli.outcome import Outcome, splits_for
from tonsor.criteria.registry import find_criterion
from tonsor.plans import Plan


def cut_stripes(command: Prune, budget: str | None) -> Outcome:
    """Remove stripes as the command says."""
    method = command.striping.method
    scores = scores_named(command.ranking.by)
    wanted = [] if method is None else [f"--method {method}"]
    if isinstance(scores, str) and find_criterion(scores).reads_data:
        wanted.append(f"--by {scores}")
    splits = splits_for(command, wanted)
    made, after = _grown(make(command.model, command.source, splits))
    if method is not None:
        assert splits is not None
        from tonsor.cli.along_stripes import train_stripes

        slim, report, test = train_stripes(command, made, splits, budget, after)
        return Outcome(made, splits, slim, report, test=test)
    options: dict[str, Any] = {}
    if splits is not None:
        from tonsor.cli.given import shown_to_criteria

        size, seed = command.ranking.score_batch, command.source.seed
        options["batches"] = shown_to_criteria(splits, size, seed)
        options["at_most"] = batches_seen(command.ranking.score_batches, scores)
    if command.floor is not None:
        options["floor"] = command.floor
    if command.rank is not None:
        options["rank"] = command.rank
    slim, report = prune_stripes(
        made.model, made.inputs, budget=budget, threshold=command.striping.threshold, by=scores,
        keep=command.keep, seed=command.source.seed, after=after, quiet=command.along.quiet,
        verify=command.verify, **options,
    )  # fmt: skip
    return Outcome(made, splits, slim, report)


def _grown(made: Made) -> tuple[Made, Plan | None]:
    """Give convolutions that have lost stripes their whole kernels back, zero where they have none.

    What an earlier plan has removed but stripes stays gone. Returned is also the plan that removes
    just those stripes, for what comes after to leave them out.
    """
    earlier, original = made.earlier, made.original
    if earlier is None or not earlier.stripes:
        return made, None
    assert original is not None
    first = replace(earlier, fibres={})
    whole = first.apply(original, verify=False)
    with torch.no_grad():
        for tensor in (*whole.parameters(), *whole.buffers()):
            tensor.zero_()
    after = earlier.relative_to(first)
    model = after.revert(made.model, whole).train(made.model.training)
    return replace(made, model=model, earlier=first, restored=True), after
