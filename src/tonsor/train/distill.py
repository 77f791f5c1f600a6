"""Learning from a teacher's answers beside the labels (Hinton et al., 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tonsor.errors import TrainError


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return how far the student's softened answers are from the teacher's, as a mean.

    The square of the temperature keeps the size of the gradients when the temperature changes.

    >>> import torch
    >>> float(distillation(torch.ones(2, 3), torch.ones(2, 3), 4.0))
    0.0
    """
    log_student = F.log_softmax(student.float() / temperature, 1)
    log_teacher = F.log_softmax(teacher.float() / temperature, 1)
    apart = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return apart * temperature**2


def loss_of(
    logits: Tensor,
    labels: Tensor,
    *,
    smoothing: float = 0.0,
    teacher: Tensor | None = None,
    weight: float = 0.0,
    temperature: float = 4.0,
) -> Tensor:
    """Return the mean loss: the labels', the teacher's, or both in the ratio of `weight`."""
    if teacher is not None and teacher.shape != logits.shape:
        message = (
            f"the teacher tells {teacher.shape[1]} classes apart, the model {logits.shape[1]}; "
            "a teacher is the model before it was cut, or another with the same classes"
        )
        raise TrainError(message)
    hard = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if teacher is None:
        return hard
    return (1 - weight) * hard + weight * distillation(logits, teacher, temperature)
