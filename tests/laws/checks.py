"""What is checked of a cut network, in plain torch: nothing here asks tonsor for help."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-9


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor that a network returns, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from tensors(inner)


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """What a copy of the model returns in float64 and eval mode."""
    with torch.no_grad():
        return list(tensors(copy.deepcopy(model).double().eval()(x.double())))


def apart(first: list[Tensor], second: list[Tensor]) -> float:
    """The largest difference, relative to the largest value of its tensor if that is large."""
    assert [t.shape for t in first] == [t.shape for t in second]
    differences = [
        (a - b).abs().max() / a.abs().max().clamp_min(1e-3)
        for a, b in zip(first, second, strict=True)
        if a.numel()
    ]
    return max(map(float, differences), default=0.0)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that a model is: values, flags, gradients, and every plain attribute."""
    held: dict[str, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        held[name] = tensor.detach().clone(), tensor.requires_grad, id(tensor), tensor.grad
    for path, module in model.named_modules():
        simple = bool, int, float, str, tuple
        plain = {k: v for k, v in vars(module).items() if isinstance(v, simple)}
        hooks = len(module._forward_pre_hooks), len(module._forward_hooks)
        held[f"{path}:"] = plain, hooks
    return held


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two snapshots are alike, bit by bit."""
    if first.keys() != second.keys():
        return False
    for name, value in first.items():
        other = second[name]
        if name.endswith(":"):
            if value != other:
                return False
        elif not torch.equal(value[0], other[0]) or value[1:] != other[1:]:
            return False
    return True


def train_one_step(model: nn.Module, x: Tensor) -> None:
    """One step of SGD on whatever the model returns; every weight must stay finite."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    loss = sum((t.float().tanh() ** 2).mean() for t in tensors(model(x)))
    assert isinstance(loss, Tensor)
    if loss.requires_grad:
        loss.backward()
        torch.optim.SGD(trained, lr=1e-3).step()
    assert all(p.isfinite().all() for p in trained)
