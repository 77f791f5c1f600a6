"""Every error tonsor raises, as one tree.

```
TonsorError
├── TraceError      the model could not be run or recorded on the given inputs
├── UnsupportedModelError   scripted or quantised: refused before anything is touched
├── SelectionError  a name, pattern or option points at nothing
├── BudgetError     the target can't be reached; carries the smallest that can
├── ScoreError      weights that can't be ranked (NaN, meta device)
├── PlanError       a plan does not belong to this model, or two plans contradict
├── SurgeryError    a cut failed; the model given is untouched
├── ProofError      pruned and masked model disagree; the slim model is withheld
├── WeightsError    a file of weights that can't be read, or does not fit its model
├── EngineError     a model can't be run in the engine it is to be timed in
├── DeployError     a model can't be made ready to run, or a deployed one is used in a wrong way
├── RecoverError    what a cut took can't be made up for; the slim model is untouched
├── DataError       images or labels that are missing, damaged or do not belong together
└── TrainError      training can't start, or can't go on; what was saved stays good
    ├── RecipeError     a recipe asks for what there is not
    ├── CheckpointError a checkpoint that can't be written, read, or gone on from
    ├── DivergedError   the loss or the weights are no numbers any more
    └── StoppedError    asked to stop; a checkpoint was written
```
"""

from __future__ import annotations


class TonsorError(Exception):
    """The root of all errors raised on purpose by tonsor."""


class TraceError(TonsorError):
    """The model could not be run or recorded on the given inputs."""


class UnsupportedModelError(TonsorError):
    """The model is of a kind that can't be cut, such as a scripted or quantised one."""


class SelectionError(TonsorError):
    """A name, pattern or option points at nothing."""


class BudgetError(TonsorError):
    """The target can't be met; `minimum` is the smallest kept fraction that can."""

    def __init__(self, message: str, minimum: float | None = None) -> None:
        super().__init__(message)
        self.minimum = minimum


class ScoreError(TonsorError):
    """The weights can't be ranked, because they hold NaN or no values at all."""


class PlanError(TonsorError):
    """A plan does not belong to this model, or two plans contradict each other."""


class SurgeryError(TonsorError):
    """A cut failed; the model that was given is untouched."""


class ProofError(TonsorError):
    """The pruned and the masked model disagree; the pruned one is withheld."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class WeightsError(TonsorError):
    """A file of weights can't be read safely, or does not fit the model."""


class EngineError(TonsorError):
    """A model can't be run in an engine, or the engine isn't installed."""


class DeployError(TonsorError):
    """A model can't be made ready to run fast, or a deployed one is used in a wrong way."""


class RecoverError(TonsorError):
    """What a cut took can't be made up for; the slim model is untouched."""


class DataError(TonsorError):
    """Images or labels are missing, damaged, or do not belong together."""


class TrainError(TonsorError):
    """Training can't start or can't go on; what was saved stays good."""


class RecipeError(TrainError):
    """A recipe, or a file with one, asks for what there is not."""


class CheckpointError(TrainError):
    """A checkpoint can't be written, can't be read, or belongs to another run."""


class DivergedError(TrainError):
    """The loss or the weights are no numbers any more; `step` is the first where it showed."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step


class StoppedError(TrainError):
    """Training was asked to stop and wrote a checkpoint to go on from."""
