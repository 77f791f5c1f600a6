"""Recording watches all modules for a while, and leaves nothing behind."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules import module as modules

import tonsor

GLOBAL = [name for name in vars(modules) if name.startswith("_global_") and "hook" in name]


def test_no_global_hook_is_left_behind() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(1, 4)
    before = {name: len(getattr(modules, name)) for name in GLOBAL if _counts(name)}
    tonsor.inspect(model, x)
    assert {name: len(getattr(modules, name)) for name in before} == before
    assert len(before) > 3


def test_a_model_compiles_without_a_warning_after_it_was_recorded() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(1, 4)
    tonsor.inspect(model, x)
    wanted = model(x)
    assert torch.equal(torch.compile(model, backend="eager")(x), wanted)


def _counts(name: str) -> bool:
    return hasattr(getattr(modules, name), "__len__")
