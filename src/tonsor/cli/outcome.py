"""What a cut starts from and ends with, whatever it is that goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from tonsor.api import Report
from tonsor.cli.choose_options import Prune
from tonsor.cli.made import Made
from tonsor.errors import SelectionError

if TYPE_CHECKING:
    from tonsor.methods.layerprune.iterative import Step
    from tonsor.surgery.executing import Timing
    from tonsor.train.data import Splits
    from tonsor.train.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class Outcome:
    """A slim model, with all that it came from.

    `steps` are those of iterative pruning, `test` is how good it is after a training, and `timings`
    say how long each layer of stripes or columns takes in either execution.
    """

    made: Made
    splits: Splits | None
    slim: nn.Module
    report: Report
    steps: tuple[Step, ...] = ()
    test: Evaluation | None = None
    timings: tuple[Timing, ...] = ()


def splits_for(command: Prune, wanted: Sequence[str]) -> Splits | None:
    """Open the images; `wanted` names the options that can't do without."""
    if command.images.data is not None:
        from tonsor.cli.given import read_splits

        return read_splits(command.images)
    if command.recover:
        wanted = [*wanted, f"--recover {command.recover[0]}"]
    if wanted:
        message = f"{' and '.join(wanted)} needs images: --data cifar10:FOLDER, for example"
        raise SelectionError(message)
    return None
