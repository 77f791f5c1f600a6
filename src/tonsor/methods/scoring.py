"""Scores, round after round: gathered while a model trains, and smoothed between rounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Mean, Means
from tonsor.criteria.gradients import GradientGatherer
from tonsor.criteria.registry import Registered, find_criterion
from tonsor.criteria.rows import Combine, check_combine
from tonsor.criteria.score import Scores, from_rows, score
from tonsor.criteria.stream import Loss
from tonsor.errors import ScoreError, SelectionError

TRAINED = ("gradients", "scale_gradients")
"""What a criterion may need that training brings about by itself."""


class RoundScores:
    """The scores of a criterion as they stand, from one round to the next.

    One that needs the gradients of weights takes those of training, minibatch by minibatch, as
    the papers do, so long as `from_training`. One that reads weights only looks at them as they
    are. All others are shown `batches` in each round.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        by: str | Scores,
        *,
        smoothing: float = 0.0,
        combine: Combine = "mean",
        batches: Iterable[Any] | None = None,
        at_most: int | None = None,
        loss: Loss | None = None,
        seed: int = 0,
        from_training: bool = True,
    ) -> None:
        check_combine(combine)
        self.smoothing = smoothing
        self._anatomy, self._by, self._seed = anatomy, by, seed
        self._combine: Combine = combine
        self._batches, self._at_most, self._loss = batches, at_most, loss
        self._found = None if isinstance(by, Scores) else find_criterion(by)
        self._gatherer: GradientGatherer | None = None
        self._seen = 0
        self.last: Scores | None = None
        if self._found is None or not self._found.reads_data:
            return
        if self._found.needs in TRAINED and from_training:
            self._gatherer = GradientGatherer(anatomy, self._found)
            return
        _check_batches(self._found, batches)

    @property
    def name(self) -> str:
        """The criterion, as it was asked for."""
        return self._by.by if isinstance(self._by, Scores) else str(self._found)

    @property
    def unscored(self) -> Mapping[str, str]:
        """The groups that are known to have no scores, and why."""
        if isinstance(self._by, Scores):
            return self._by.unscored
        return self._gatherer.unscored if self._gatherer is not None else {}

    @property
    def ready(self) -> bool:
        """Whether there is anything to score by yet."""
        return self._gatherer is None or bool(self._seen) or self.last is not None

    def frozen(self, groups: Iterable[str]) -> Iterator[str]:
        """Yield the parameters of groups that training would show no gradient of."""
        tensors = self._anatomy.parameters
        looked_at = set(self._gatherer.names) if self._gatherer else set[str]()
        for name in groups:
            for member in self._anatomy.by_name[name].members:
                if member.tensor in looked_at and not tensors[member.tensor].requires_grad:
                    yield member.tensor

    def see(self) -> None:
        """Take in the gradients of a minibatch; one that holds no numbers counts for nothing.

        With half precision some do, and the optimizer leaves such a step out as well.
        """
        if self._gatherer is None:
            return
        tensors = self._anatomy.parameters
        found = {name: tensors[name].grad for name in self._gatherer.names}
        if _finite([g for g in found.values() if g is not None]):
            self._gatherer.add(found)
            self._seen += 1

    def look(self) -> Scores:
        """Return the scores as they are now, smoothed by those of the last round."""
        if self._gatherer is not None and not self._seen:
            if self.last is not None:
                return self.last
            message = (
                f"no minibatch has shown a finite gradient yet, so '{self.name}' has nothing to "
                "score by; train for longer, or lower the learning rate"
            )
            raise ScoreError(message)
        return smoothed(self.last, self._new(), self.smoothing)

    def turn(self) -> Scores:
        """Return the scores as they are now, and begin to gather for the next round."""
        self.last = self.look()
        if self._gatherer is not None:
            self._gatherer.means, self._seen = Means(), 0
        return self.last

    def _new(self) -> Scores:
        if isinstance(self._by, Scores):
            return self._by
        if self._gatherer is None:
            return score(
                self._anatomy, self._by, combine=self._combine, batches=self._batches,
                loss=self._loss, at_most=self._at_most, seed=self._seed, quiet=True,
            )  # fmt: skip
        assert self._found is not None
        rows, unscored = self._gatherer.rows(), self._gatherer.unscored
        return from_rows(self._anatomy, self._found, rows, self._combine, unscored)

    def state_dict(self) -> dict[str, Any]:
        """Return the scores of the last round, and what was gathered since."""
        gathered, missed = list[Any](), list[Any]()
        if self._gatherer is not None:
            means = self._gatherer.means
            gathered = [[*k, made, m.total, m.weight] for k, (made, m) in means.places.items()]
            missed = [[*key, weight] for key, weight in means.missed.items()]
        last: dict[str, Any] = {}
        if self.last is not None:
            values = {n: torch.from_numpy(v.copy()) for n, v in self.last.values.items()}
            last = {"values": values, "unscored": dict(self.last.unscored)}
        return {"seen": self._seen, "gathered": gathered, "missed": missed, "last": last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._seen, last = state["seen"], state["last"]
        self.last = None
        if last:
            values = {n: v.double().cpu().numpy().copy() for n, v in last["values"].items()}
            self.last = Scores(values, self.name, dict(last["unscored"]))
        if self._gatherer is None:
            return
        means, tensors = Means(), self._anatomy.parameters
        device = next(iter(tensors.values())).device
        for group, where, made, total, weight in state["gathered"]:
            means.places[group, where] = (made, Mean(total.to(device, copy=True), weight))
        means.missed |= {(group, where): weight for group, where, weight in state["missed"]}
        self._gatherer.means = means


def smoothed(old: Scores | None, new: Scores, weight: float) -> Scores:
    """Return `weight` times the old scores and the rest of the new, where there are old ones."""
    if old is None or not weight:
        return new
    values = {
        name: weight * old[name] + (1 - weight) * now if name in old.values else now
        for name, now in new.values.items()
    }
    return replace(new, values={n: np.asarray(v, dtype=np.float64) for n, v in values.items()})


def _check_batches(found: Registered, batches: Iterable[Any] | None) -> None:
    if batches is None:
        message = (
            f"'{found.name}' looks at data in each round: give it as batches=..., an iterable of "
            "(inputs, target)"
        )
        raise SelectionError(message)
    if isinstance(batches, Iterator):
        message = (
            f"'{found.name}' looks at the data anew in each round, and a generator is spent after "
            "one; give batches=... as a list or a loader"
        )
        raise SelectionError(message)


def _finite(tensors: list[Tensor]) -> bool:
    if not tensors:
        return False
    norms = torch._foreach_norm(tensors, float("inf"))  # pyright: ignore[reportPrivateImportUsage]
    return bool(torch.stack([n.float() for n in norms]).isfinite().all())
