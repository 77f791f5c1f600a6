"""Taking the statistics of BatchNorm anew, which a cut or an average of weights makes stale."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from tonsor.errors import TrainError
from tonsor.train.data import Batches
from tonsor.train.evaluate import modes_kept

_NORMS = (nn.modules.batchnorm._BatchNorm,)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Batches, count: int = 50) -> int:
    """Replace the running statistics by the mean over so many batches; return how many were seen.

    Known as adaptive BatchNorm: after a cut it often brings back much of the accuracy, at the
    price of some forward passes. Only BatchNorms are put in training mode; the weights, and all
    else, stay. A model without running statistics is left alone, and nothing is seen.
    """
    norms = [m for m in model.modules() if isinstance(m, _NORMS) and m.running_mean is not None]
    if not norms:
        return 0
    if count < 1 or not len(batches):
        message = f"count={count} of {len(batches)} batches leaves none to take statistics from"
        raise TrainError(message)
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    seen = 0
    with modes_kept(model):
        model.eval()
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)
            norm.momentum = None  # the mean over all batches instead of a moving one
        try:
            for images, _ in itertools.islice(batches.epoch(0), count):
                model(images)
                seen += 1
        finally:
            for norm, (momentum, tracked) in zip(norms, kept, strict=True):
                norm.momentum, norm.num_batches_tracked = momentum, tracked
    return seen
