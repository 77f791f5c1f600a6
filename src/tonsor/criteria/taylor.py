"""First-order Taylor criteria: how much the loss would change, were a piece zero."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tonsor.criteria.registry import criterion

Absolute = Literal["position", "sample", "batch"]


@criterion("taylor_weight", needs="gradients")
def taylor_weight(weight: Tensor, gradient: Tensor) -> Tensor:
    """The sum over a piece's weights of (weight · gradient) squared (Molchanov et al., 2019)."""
    return (weight * gradient).square().flatten(1).sum(1)


@criterion("taylor_gate", needs="map_gradients")
def taylor_gate(map: Tensor, gradient: Tensor, *, per_sample: bool = False) -> Tensor:
    """The squared gradient of a gate of value 1 on a piece's map (Molchanov et al., 2019).

    The gate stands behind the norm and before the activation. Its gradient is taken of the loss of
    a minibatch, or with `per_sample=true` of each sample, squared, and averaged.
    """
    by_sample = (map * gradient).flatten(2).sum(2) if map.dim() > 2 else map * gradient
    return by_sample.square().mean(1) if per_sample else by_sample.mean(1).square()


@criterion("taylor_map", needs="map_gradients", unit=True)
def taylor_map(map: Tensor, gradient: Tensor, *, absolute: Absolute = "position") -> Tensor:
    """The mean of |map · gradient| over a piece's map, scaled by place (Molchanov et al., 2017).

    `absolute` says of what the size is taken before the mean: of each `position`, as published
    code does, of the mean over each `sample`'s map, as the paper says, or over the `batch`.
    Minibatches of one sample make the last two the same.
    """
    product = (map * gradient).flatten(2) if map.dim() > 2 else (map * gradient).unsqueeze(2)
    if absolute == "position":
        return product.abs().mean((1, 2))
    by_sample = product.mean(2)
    return by_sample.abs().mean(1) if absolute == "sample" else by_sample.mean(1).abs()
