"""A cut model that borrows from the whole one whatever the cut leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonsor.errors import SurgeryError
from tonsor.graph.clone import clone
from tonsor.surgery.apply import mend
from tonsor.surgery.slice import cut_tensor, replace_parameter
from tonsor.types import Cut

WHOLE = Cut({}, {})


def thinned(model: nn.Module, cut: Cut) -> nn.Module:
    """Return a cut copy in eval mode; parameters that are not cut are those of the model itself.

    Buffers are copied, for running a model may write into them.
    """

    def replaced(name: str, tensor: Tensor) -> Tensor:
        kept = cut.keep.get(name)
        if kept is not None:
            return replace_parameter(tensor, cut_tensor(tensor, kept))
        return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()

    try:
        with torch.inference_mode(False):
            thin = clone(model, replaced)
            mend(thin, cut)
    except Exception as error:
        message = f"{type(model).__name__} could not be cut: {type(error).__name__}: {error}"
        raise SurgeryError(message) from error
    return thin.eval()
