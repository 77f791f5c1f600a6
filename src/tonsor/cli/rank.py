"""What `tonsor score` and `tonsor sensitivity` show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.cli.choose_options import Ranking, Score, Sensitivity
from tonsor.cli.chosen import scores_named
from tonsor.cli.chosen_blocks import batches_seen
from tonsor.cli.made import make_anatomy
from tonsor.cli.show import show, show_json, show_table, step
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.score import score
from tonsor.criteria.scores import Scores
from tonsor.errors import SelectionError
from tonsor.files import replacing
from tonsor.report.distributions import distributions
from tonsor.report.figures import Point, curves
from tonsor.report.raw import save_figure
from tonsor.select.names import led_by
from tonsor.select.skew import skewed, skewness

if TYPE_CHECKING:
    from tonsor.train.data import Batches, Splits

_PANELS = 24  # as many layers as a figure can show legibly


def show_scores(command: Score) -> int:
    """Score a model and show, save and draw the scores."""
    by = scores_named(command.ranking.by)
    splits = None
    if command.images.data is not None:
        from tonsor.cli.given import read_splits

        splits = read_splits(command.images)
    elif isinstance(by, str) and find_criterion(by).reads_data:
        message = f"'{by}' looks at data: --data cifar10:FOLDER, for example"
        raise SelectionError(message)
    anatomy = make_anatomy(command.model, command.source, splits)
    if isinstance(by, Scores):
        scores = by
    else:
        with step(f"scoring by {by}"):
            data = _score_on(splits, command.ranking, command.source.seed)
            scores = score(
                anatomy, by, combine=command.ranking.combine or "mean", batches=data,
                at_most=batches_seen(command.ranking.score_batches, by), seed=command.source.seed,
                quiet=True,
            )  # fmt: skip
    names = _chosen(anatomy, scores, command.layers)
    files = _written(command, scores, names)
    if command.json:
        show_json(scores.to_json())
        return 0
    columns = ("group", "pieces", "lowest", "median", "highest", "skewness", "tied")
    show_table(columns, _rows(scores, names), title=f"scores by {scores.by}", numbers=1)
    for note in scores.notes:
        show(f"note: {note}", "yellow")
    for path in files:
        show(f"written: {path}", "green")
    return 0


def _score_on(splits: Splits | None, ranking: Ranking, seed: int) -> Batches | None:
    if splits is None:
        return None
    from tonsor.cli.given import shown_to_criteria

    return shown_to_criteria(splits, ranking.score_batch, seed)


def _chosen(anatomy: Anatomy, scores: Scores, layers: Sequence[str]) -> list[str]:
    wanted = set[str]().union(*(led_by(anatomy, name) for name in layers))
    return [n for n in scores.values if not layers or n in wanted]


def _rows(scores: Scores, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    ties = scores.ties
    for name in names:
        row = scores[name]
        marks = (f"{np.quantile(row, q):.4g}" for q in (0, 0.5, 1))
        yield (name, len(row), *marks, f"{skewness(row):+.2f}", ties.get(name, ""))


def _written(command: Score, scores: Scores, names: Sequence[str]) -> Iterator[Path]:
    files: list[Path] = []
    if command.out is not None:
        scores.save(command.out)
        files.append(command.out)
    if command.figure is not None:
        if not names:
            message = "there is nothing to draw: no scored group fits --layers"
            raise SelectionError(message)
        shown = list(names)[:_PANELS]
        skew = {n: skewness(scores[n]) for n in shown}
        svg = distributions(
            {n: scores[n].tolist() for n in shown}, skewness=skew,
            marked=[n for n in skewed(scores) if n in shown], x=scores.by,
        )  # fmt: skip
        data = {"by": scores.by, "skewness": skew, "scores": {n: scores[n] for n in shown}}
        files += [command.figure, save_figure(command.figure, svg, data)]
        if len(shown) < len(names):
            show(f"note: the figure has the first {_PANELS} of {len(names)} groups; see --layers")
    return iter(files)


# ---------------------------------------------------------------- sensitivity


def show_sensitivity(command: Sensitivity) -> int:
    """Cut each group alone, judge what is left, and propose how much of each to keep."""
    from tonsor.cli.given import read_splits
    from tonsor.sensitivity import FRACTIONS, sensitivity
    from tonsor.train.data import Batches

    by = scores_named(command.ranking.by)
    splits = read_splits(command.images)
    if not len(splits.validation):
        message = "there is no validation split to judge on; leave --validation above 0"
        raise SelectionError(message)
    anatomy = make_anatomy(command.model, command.source, splits)
    held = Batches(
        splits.validation, size=250, mean=splits.mean, std=splits.std, shuffle=False, seed=0
    )
    found = sensitivity(
        anatomy, held, by=by, fractions=tuple(command.kept) or FRACTIONS,
        combine=command.ranking.combine or "mean",
        score_batches=_score_on(splits, command.ranking, command.source.seed),
        groups=command.layers or None, processes=command.processes, folder=command.out,
        resume=command.resume, quiet=command.quiet,
    )  # fmt: skip
    ratios = found.ratios(command.worst)
    with replacing(command.out / "sensitivity.txt") as part:
        part.write_text(f"{found}\n", "utf-8")
    found.save(command.out / "sensitivity.json")
    _draw(found.curves(), found.base.accuracy, command.out / "curves.svg")
    if command.json:
        show_json(found.to_json() | {"ratios": ratios})
        return 0
    show(found)
    show(f"\nwithin {command.worst:.1%} of accuracy, each cut alone:")
    show(" ".join(f"--ratio {name}={kept}" for name, kept in ratios.items()))
    show(f"written: {command.out}, with the table, its numbers and a figure", "green")
    return 0


def _draw(found: Any, base: float, path: Path) -> None:
    series = {name: [Point(*spot) for spot in points] for name, points in found.items()}
    svg = curves(
        series, x="kept of the group, %", y="accuracy, %", reference=("whole", Point(1.0, base))
    )
    save_figure(path, svg, series)
