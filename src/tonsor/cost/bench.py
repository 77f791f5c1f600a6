"""How to measure, as one object that can be handed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tonsor.cost.engines.ready import Ready, prepare
from tonsor.cost.engines.registry import Model
from tonsor.cost.latency import MOST_ROUNDS, Latency, measure
from tonsor.cost.rounds import SAMPLE_MS
from tonsor.errors import TonsorError
from tonsor.graph.inputs import Inputs, as_inputs


@dataclass(frozen=True, slots=True)
class Bench:
    """The conditions that models are timed under; see `measure`.

    `batch` is how many samples run at once, where it isn't that of the example input.
    """

    engine: str = "eager"
    threads: int | None = 1
    device: str | None = None
    batch: int | None = None
    rounds: int = 15
    within: float | None = None
    at_most: int = MOST_ROUNDS

    def __post_init__(self) -> None:
        for name in ("batch", "rounds", "threads", "at_most"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                message = f"{name} must be a whole number of at least 1, got {value!r}"
                raise TonsorError(message)
        if self.within is not None and not 0 < self.within < 1:
            message = f"within must be a fraction such as 0.02, got {self.within!r}"
            raise TonsorError(message)

    def inputs(self, example: Any) -> Inputs:
        """Repeat or cut the example input along dimension 0 until it has `batch` samples.

        >>> Bench(batch=3).inputs(torch.zeros(2, 5))
        Inputs((3, 5))
        """
        given = as_inputs(example)
        sizes = [t.shape[0] for _, t in given.tensors() if t.dim()]
        if self.batch is None or not sizes:
            return given
        index = torch.arange(self.batch) % sizes[0]

        def resized(tensor: Tensor) -> Tensor:
            if not tensor.dim() or tensor.shape[0] != sizes[0]:
                return tensor  # not something there is one of for each sample
            return tensor[index.to(tensor.device)]

        return given.map(resized)

    def ready(self, model: Model, inputs: Inputs) -> Ready:
        """Make a model ready to be measured more than once."""
        return prepare(self.engine, model, inputs, self.threads, self.device)

    def measure(
        self,
        models: Mapping[str, Model],
        inputs: Any = None,
        *,
        sample_ms: float = SAMPLE_MS,
        about: str = "",
    ) -> Latency:
        """Time models under these conditions."""
        return measure(
            models, inputs, rounds=self.rounds, threads=self.threads, engine=self.engine,
            device=self.device, within=self.within, at_most=self.at_most, sample_ms=sample_ms,
            about=about,
        )  # fmt: skip
