"""Small networks to recover, in float64, and means of what their modules make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.plans import Plan

Batch = tuple[Tensor, None]


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """A model in float64 and eval mode, whose norms, biases and statistics all matter."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        drawn = torch.rand(like.shape, generator=generator, dtype=torch.float64)
        return drawn * (high - low) + low

    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(uniform(parameter, 0.2, 1.0))
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                low, high = (-0.5, 0.5) if name.endswith("mean") else (0.5, 1.5)
                buffer.copy_(uniform(buffer, low, high))
    return model


def data(*shapes: tuple[int, ...], seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(s, generator=generator, dtype=torch.float64) + 0.3, None) for s in shapes]


def cut(
    model: nn.Module, x: Tensor, by: str = "l2", **options: Any
) -> tuple[Anatomy, Plan, nn.Module]:
    """Cut a model, to half of what may go if nothing else is said."""
    anatomy = tonsor.inspect(model, x)
    if not options:
        options = {"ratios": dict.fromkeys((g.name for g in anatomy.prunable), 0.5)}
    plan = tonsor.plan(anatomy, by=by, **options)
    return anatomy, plan, plan.apply(model, verify=False)


@torch.no_grad()
def mean_of(model: nn.Module, path: str, batches: Iterable[Batch], channel: int = 1) -> Tensor:
    """The mean of what a module makes, for each channel, over all samples, positions and calls."""
    rows: list[Tensor] = []
    module = model.get_submodule(path)
    hook = module.register_forward_hook(
        lambda _, __, out: rows.append(out.movedim(channel, -1).flatten(0, -2))
    )
    for x, _ in batches:
        model(x)
    hook.remove()
    return torch.cat(rows).mean(0)


def kept_of(plan: Plan, tensor: str, size: int) -> list[int]:
    kept = plan.cut().keep.get(tensor, (None,))[0]
    return list(range(size)) if kept is None else list(kept)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.clone() for n, t in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
