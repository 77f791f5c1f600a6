"""What blocks are judged on: a model, its blocks, and data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import together
from tonsor.criteria.stream import Loss
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.blocks.block import Blocks


@dataclass(frozen=True)
class Material:
    """A model and its blocks, and what may be shown to it.

    `batches` is what is learned from or looked at, `judge` what is judged on where that is
    another matter; of each at most `at_most` minibatches are taken.
    """

    anatomy: Anatomy
    blocks: Blocks
    batches: Iterable[Any] | None = None
    judge: Iterable[Any] | None = None
    loss: Loss | None = None
    at_most: int | None = None
    seed: int = 0
    quiet: bool = False

    def shown(self, by: str) -> Iterable[Any]:
        """Return the minibatches, or say that there have to be some."""
        if self.batches is None:
            message = (
                f"'{by}' looks at data: give it as batches=..., an iterable of (inputs, target)"
            )
            raise SelectionError(message)
        if not isinstance(self.batches, Iterable):
            got = type(self.batches).__name__
            message = f"batches must be an iterable of minibatches, got a {got}"
            raise ScoreError(message)
        return self.batches

    def check_runs(self, by: str) -> None:
        """Refuse what can't be run here."""
        if any(p.is_meta for p in self.anatomy.parameters.values()):
            message = f"the model is on the meta device and can't run for '{by}'; load it first"
            raise ScoreError(message)
        if together():
            message = (
                f"'{by}' is computed by one process, and several run here, each with its share of "
                "the data; score blocks before they are started, or in one of them alone"
            )
            raise ScoreError(message)
