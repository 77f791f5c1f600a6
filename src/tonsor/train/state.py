"""All that a run needs to go on as if it had never ended, taken down and put back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from tonsor.train.ema import Ema
from tonsor.train.method import Method
from tonsor.train.rng import rng_state, set_rng_state
from tonsor.train.tree import copied, laid_out, mapped, whole


@dataclass
class Progress:
    """How far a run has come, and the best that it has seen."""

    epoch: int = 0  # epochs that are done and judged
    step: int = 0  # optimizer steps that are done
    losses: list[float] = field(default_factory=list)  # one for each step
    history: list[dict[str, Any]] = field(default_factory=list)  # one row for each epoch
    chosen: dict[str, Any] = field(default_factory=dict)  # the row of the chosen epoch
    weights: dict[str, Any] = field(default_factory=dict)  # the model's state in that epoch
    method: dict[str, Any] = field(default_factory=dict)  # the method's state in that epoch
    over: bool = False  # ended before its last epoch, for lack of progress

    def start(self, steps_per_epoch: int) -> int:
        """Return how many steps of the epoch at hand are done."""
        return self.step - self.epoch * steps_per_epoch

    def choose(self, model: nn.Module, method: Method) -> None:
        """Take down the model and the method as they are in the epoch just judged."""
        self.chosen = self.history[-1]
        self.weights = copied(model.state_dict())
        self.method = copied(method.state_dict())


@dataclass
class State:
    """The moving parts of a run."""

    accelerator: Accelerator
    model: nn.Module  # the user's own, inside of what the accelerator made of it
    optimizer: Any
    ema: Ema | None
    method: Method
    progress: Progress

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as a tree; every process has to take part."""
        progress = {**vars(self.progress), "losses": torch.tensor(self.progress.losses).double()}
        scaler = self.accelerator.scaler
        return {
            "progress": progress,
            "model": mapped(self.model.state_dict(), whole),
            "optimizer": mapped(self.optimizer.state_dict(), whole),
            "scaler": {} if scaler is None else scaler.state_dict(),
            "ema": {} if self.ema is None else mapped(self.ema.state_dict(), whole),
            "method": mapped(self.method.state_dict(), whole),
            "rng": gather_object([rng_state(self.accelerator.device)]),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Put everything back as it was when `saved` was taken."""
        progress = dict(saved["progress"])
        progress["losses"] = progress["losses"].tolist()
        vars(self.progress).update(progress)
        self.pour(saved["model"])
        self._restore_optimizer(saved["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        if self.ema is not None:
            self.ema.load_state_dict(saved["ema"])
        self.method.load_state_dict(saved["method"])
        generators = saved["rng"]
        if len(generators) == self.accelerator.num_processes:
            mine = generators[self.accelerator.process_index]
            set_rng_state(mine, self.accelerator.device)

    def pour(self, weights: dict[str, Any]) -> None:
        """Give the model these weights."""
        live = self.model.state_dict()
        self.model.load_state_dict(
            {
                name: laid_out(value, live[name]) if isinstance(value, torch.Tensor) else value
                for name, value in weights.items()
            }
        )

    def _restore_optimizer(self, saved: dict[str, Any]) -> None:
        """Load the optimizer's state in the layout of its parameters.

        Momentum that lies otherwise in memory than its weight would be right, but slow.
        """
        flat = [p for group in self.optimizer.param_groups for p in group["params"]]
        state = {
            index: {
                key: laid_out(value, flat[index])
                if isinstance(value, torch.Tensor) and value.shape == flat[index].shape
                else value
                for key, value in entry.items()
            }
            for index, entry in saved["state"].items()
        }
        self.optimizer.load_state_dict({**saved, "state": state})


def plain(progress: Progress) -> dict[str, Any]:
    """Return progress without the weights, as JSON can hold it."""
    return {k: v for k, v in asdict(progress).items() if k not in ("weights", "method")}
