"""How far the answers of a slim model are from the original's, on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.criteria.stream import samples_of, shown, taken_apart, untouched, where_is
from tonsor.errors import DataError, RecoverError
from tonsor.graph.inputs import tensors_in
from tonsor.train.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class Distance:
    """Answers of one model against those of another.

    `error` is the mean squared error as a part of the variance of the original's outputs: 0 is
    the same answer, 1 as good as always giving the mean. Between scores of classes there are also
    `divergence`, the Kullback-Leibler divergence from the original in nats, and `agreement`, how
    often the same class is the first. `evaluation` is there where the data has classes as targets.
    """

    error: float
    divergence: float | None
    agreement: float | None
    samples: int
    evaluation: Evaluation | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data; what is no finite number is None."""
        found = {
            "error": _finite(self.error), "divergence": _finite(self.divergence),
            "agreement": _finite(self.agreement), "samples": self.samples,
        }  # fmt: skip
        return found | {"accuracy": judged_json(self.evaluation)}


def judged_json(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Return an evaluation as plain data."""
    if evaluation is None:
        return None
    return {
        "correct": evaluation.correct, "total": evaluation.total,
        "accuracy": evaluation.accuracy, "standard_error": evaluation.standard_error,
        "loss": _finite(evaluation.loss),
    }  # fmt: skip


@torch.no_grad()
def distances(
    model: nn.Module,
    slims: Sequence[nn.Module],
    batches: Iterable[Any],
    *,
    at_most: int | None = None,
    quiet: bool = False,
) -> tuple[Evaluation | None, list[Distance]]:
    """Compare several models with the original in one pass over the data.

    All run in eval mode, and are left as they were.
    """
    sums = [_Sums() for _ in slims]
    own, original, samples = _Judge(), _Spread(), 0
    with ExitStack() as stack:
        for one in (model, *slims):
            stack.enter_context(untouched(one, gradients=False))
        for batch in shown(batches, at_most, "comparing answers", quiet):
            inputs, target = taken_apart(batch, where_is(model))
            samples += samples_of(inputs)
            wanted, classes = _rows(inputs.call(model))
            original.add(wanted)
            own.add(wanted, classes, target)
            for slim, found in zip(slims, sums, strict=True):
                device = where_is(slim)
                given = inputs if device is None else inputs.map(lambda t, d=device: t.to(d))
                got, _ = _rows(given.call(slim))
                found.add(got.to(wanted.device), wanted, classes, target)
    if not samples:
        message = "no minibatch to compare the answers on; give at least one"
        raise DataError(message)
    return own.evaluation, [s.distance(original.squares, samples) for s in sums]


class _Spread:
    """Squared distances of outputs from the mean of each."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: Any = 0.0
        self._squares: Any = 0.0

    def add(self, rows: Tensor) -> None:
        count, mean = len(rows), rows.mean(0)
        total, apart = self._count + count, mean - self._mean
        self._squares = self._squares + ((rows - mean) ** 2).sum(0)
        self._squares = self._squares + apart**2 * (self._count * count / total)
        self._mean, self._count = self._mean + apart * (count / total), total

    @property
    def squares(self) -> float:
        return float(self._squares.sum())


class _Judge:
    """Counts right answers, as long as the data has classes as targets."""

    def __init__(self) -> None:
        self._right = self._total = 0
        self._loss = 0.0
        self._labelled = True

    def add(self, scores: Tensor, classes: bool, target: Any) -> None:
        if not classes or not _are_classes(target, scores):
            self._labelled = False
            return
        self._right += int((scores.argmax(1) == target).sum())
        self._total += len(scores)
        self._loss += float(F.cross_entropy(scores, target.long(), reduction="sum"))

    @property
    def evaluation(self) -> Evaluation | None:
        if not self._labelled or not self._total:
            return None
        return Evaluation(self._right, self._total, self._loss / self._total)


class _Sums:
    """Adds up how far one model is from the original."""

    def __init__(self) -> None:
        self._judge = _Judge()
        self._classes = True
        self._rows = self._agreeing = 0
        self._squares = self._divergence = 0.0

    def add(self, got: Tensor, wanted: Tensor, classes: bool, target: Any) -> None:
        if got.shape != wanted.shape:
            message = (
                f"the slim model gives {tuple(got.shape)} where the original gives "
                f"{tuple(wanted.shape)}, so their answers can't be compared"
            )
            raise RecoverError(message)
        self._rows += len(got)
        self._squares += float(((got - wanted) ** 2).sum())
        self._judge.add(got, classes, target)
        self._classes = self._classes and classes
        if classes:
            self._agreeing += int((got.argmax(1) == wanted.argmax(1)).sum())
            apart = F.kl_div(
                F.log_softmax(got, 1), F.log_softmax(wanted, 1), reduction="sum", log_target=True
            )
            self._divergence += float(apart)

    def distance(self, spread: float, samples: int) -> Distance:
        error = self._squares / spread if spread else math.inf if self._squares else 0.0
        classes = self._classes and self._rows > 0
        return Distance(
            error=error,
            divergence=self._divergence / self._rows if classes else None,
            agreement=self._agreeing / self._rows if classes else None,
            samples=samples,
            evaluation=self._judge.evaluation,
        )


def _rows(output: Any) -> tuple[Tensor, bool]:
    """The answers as `[row, feature]` in float64, and whether they are scores of classes."""
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        rows = logits.flatten(0, -2)
        return rows.double(), rows.shape[1] > 1
    found = next((t for _, t in tensors_in(output) if t.is_floating_point()), None)
    if found is None:
        message = f"the model returns no tensor of numbers to compare: {type(output).__name__}"
        raise RecoverError(message)
    if found.dim() < 2:
        return found.reshape(-1, 1).double(), False
    rows = found.movedim(1, -1) if found.dim() > 3 else found
    rows = rows.flatten(0, -2).double()
    return rows, found is output and found.dim() == 2 and rows.shape[1] > 1


def _are_classes(target: Any, scores: Tensor) -> bool:
    if not isinstance(target, Tensor) or target.is_floating_point() or target.dim() != 1:
        return False
    inside = len(target) == len(scores) and bool(((target >= 0) & (target < scores.shape[1])).all())
    return inside and target.dtype != torch.bool


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
