"""The engines that are part of torch: run as written, and compiled."""

from __future__ import annotations

import os
import shutil
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from tonsor.cost.engines.registry import Model, Run, engine
from tonsor.graph.inputs import Inputs, tensors_in

_COMPILERS = ("g++", "clang++", "c++", "cl")


def flat_tensors(out: Any) -> list[Tensor]:
    """The tensors in what a model returns, each once."""
    return list({id(t): t for _, t in tensors_in(out)}.values())


@engine("eager", missing=lambda: "", flat=flat_tensors, checked=False)
def eager(model: Model, inputs: Inputs, threads: int) -> Run:
    """Call the model as it is."""
    return lambda: model(*inputs.args, **inputs.kwargs)


def _no_compiler() -> str:
    named = os.environ.get("CXX")
    if shutil.which(named) if named else any(shutil.which(c) for c in _COMPILERS):
        return ""
    what = f"CXX names '{named}', which is not there" if named else "none is on the PATH"
    return f"it needs a C++ compiler, and {what}; install g++, or name one in CXX"


@engine("compile", missing=_no_compiler, flat=flat_tensors, warm_up=8)
def compiled(model: Model, inputs: Inputs, threads: int) -> Run:
    """Compile the model for exactly these inputs."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    # What is compiled is remembered by code, and after a few models of the same code torch
    # falls back to eager without a word. With code of its own each model has its own memory.
    own = FunctionType(run.__code__.replace(), globals(), "run", None, run.__closure__)
    ready = torch.compile(own, dynamic=False)
    return lambda: ready(*inputs.args, **inputs.kwargs)
