"""Scores of channels by several criteria at once, cheap enough for every step of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import row
from tonsor.criteria.many import Many
from tonsor.criteria.registry import Registered, find_criterion
from tonsor.criteria.rows import Row, check_combine
from tonsor.criteria.score import from_rows
from tonsor.families.channels import Part, parts
from tonsor.methods.checks import check_trained
from tonsor.methods.pools.base import Wanted
from tonsor.methods.scoring import RoundScores


class ChannelScores:
    """Scores groups by each of several criteria, as the weights are now.

    Criteria of weights look at all of a model at once; others do what they do between rounds.
    """

    def __init__(self, anatomy: Anatomy, wanted: Wanted) -> None:
        check_combine(wanted.combine)
        self._anatomy, self._wanted = anatomy, wanted
        self._makers = wanted.combine == "producer"
        self._still: dict[int, Registered] = {}
        self._others: dict[int, RoundScores] = {}
        for i, by in enumerate(wanted.criteria):
            found = find_criterion(by) if isinstance(by, str) else None
            if found is not None and found.needs == "weights" and found.reads_weights:
                self._still[i] = found
                continue
            self._others[i] = RoundScores(
                anatomy, by, combine=wanted.combine, batches=wanted.batches,
                at_most=wanted.at_most, loss=wanted.loss, seed=wanted.seed,
            )  # fmt: skip
        self._places = list(self._seen()) if self._still else []

    @property
    def ready(self) -> bool:
        """Whether those that look at the gradients of training have seen some."""
        return all(s.ready for s in self._others.values())

    def see(self) -> None:
        """Look at the gradients of a step."""
        for scores in self._others.values():
            scores.see()

    def scored(self) -> set[str]:
        """Name the groups that all criteria can judge, or will."""
        found = {g.name for g in self._anatomy.prunable}
        for scores in self._others.values():
            found -= set((scores.look() if scores.ready else scores).unscored)
        if self._still:
            found &= {group for group, _ in self._places}
        return found

    def check(self, groups: Iterable[str]) -> None:
        """Refuse frozen parameters of these groups where their gradients are looked at."""
        names = list(groups)
        for scores in self._others.values():
            check_trained(scores, names)

    def look(self, groups: Iterable[str]) -> list[Tensor]:
        """Return the scores of these groups, `[criterion, piece]` of each."""
        found: dict[int, Mapping[str, object]] = {
            i: s.turn().values for i, s in self._others.items()
        }
        with torch.no_grad():
            tensors = self._anatomy.parameters
            many = Many([part.of(tensors[part.member.tensor]) for _, part in self._places])
            for i, criterion in self._still.items():
                found[i] = self._combined(criterion, many.scores(criterion))
        order = range(len(self._wanted.criteria))
        return [torch.stack([torch.as_tensor(found[i][g]) for i in order]) for g in groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen of training."""
        return {str(i): s.state_dict() for i, s in self._others.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for i, scores in self._others.items():
            scores.load_state_dict(state[str(i)])

    def _combined(self, found: Registered, values: list[Tensor]) -> Mapping[str, object]:
        rows: dict[str, list[Row]] = {}
        for (group, part), mine in zip(self._places, values, strict=True):
            where = f"'{part.member.tensor}' along dimension {part.member.dim}"
            made = row(mine, made=part.made, where=where, tensor=part.member.tensor)
            rows.setdefault(group, []).append(made)
        return from_rows(self._anatomy, found, rows, self._wanted.combine, {}).values

    def _seen(self) -> Iterator[tuple[str, Part]]:
        """Yield the places that are looked at, as `still_rows` does."""
        for group in self._anatomy.prunable:
            every = list(parts(self._anatomy, group))
            makers = [p for p in every if p.made] if self._makers else []
            for part in makers or every:
                yield group.name, part
