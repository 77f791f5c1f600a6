"""How the norms of filters are spread in each convolution: one curve for each, on one chart."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.report.canvas import INK, canvas, literal
from tonsor.report.depth import depth_colours, depth_key
from tonsor.report.distributions import bandwidth, density
from tonsor.types import Conv

Norms = Mapping[str, Sequence[float]]
_WIDE = 7.0
_PER_INCH = 15  # letters of the conditions that fit on an inch
_POINTS = 160  # of a curve


def filter_norms(anatomy: Anatomy) -> dict[str, list[float]]:
    """Return the L2 norm of each filter, for each convolution in the order in which they run.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(2, 1, 1))
    >>> torch.nn.init.constant_(net[0].weight, 2.0) is net[0].weight
    True
    >>> filter_norms(tonsor.inspect(net, torch.randn(1, 1, 8, 8)))["0"]
    [6.0, 6.0]

    A weight that several convolutions share is there once, and one that is neither a parameter nor
    an attribute `weight` of its module is left out, as are biases.
    """
    found: dict[str, list[float]] = {}
    seen: set[str] = set()
    for conv in anatomy.convs:
        path = conv.weight or _join(conv.name, "weight")
        weight = _at(anatomy.model, path)
        if path in seen or weight is None:
            continue
        seen.add(path)
        name = conv.name if conv.name and conv.name not in found else path
        norms = _filters(weight.detach().double(), conv).norm(dim=1)
        found[name] = [float(n) for n in norms]
    return found


def norm_densities(
    norms: Norms, *, conditions: Sequence[str] = (), x: str = "L2 norm of a filter"
) -> str:
    """Draw a smooth density of the norms of each layer, all on one chart.

    Curves go from red, near the input, to blue, near the output; their key numbers the layers from
    1. A layer whose norms are all the same has no density, and a mark on the axis instead. What
    smoothing takes below 0 is left out.
    """
    values = {name: np.asarray(v, np.float64) for name, v in norms.items()}
    _check(values)
    widths = {name: bandwidth(v) for name, v in values.items()}
    colours = depth_colours(len(values))
    single = [str(i + 1) for i, w in enumerate(widths.values()) if w == 0]
    told = [*conditions]
    if single:
        told.append(f"marks on the axis: all norms are the same in {', '.join(single)}")
    said = textwrap.fill("; ".join(told), int(_PER_INCH * _WIDE))
    with canvas(_WIDE, 4.0 + 0.15 * said.count("\n")) as (axes, save):
        for colour, (name, mine) in zip(colours, values.items(), strict=True):
            width = widths[name]
            if width == 0:
                axes.plot([mine[0]], [0.0], marker=2, markersize=9, markeredgewidth=1.8,
                          color=colour, clip_on=False, zorder=4, linestyle="none")  # fmt: skip
                continue
            at = np.linspace(max(mine.min() - 3 * width, 0), mine.max() + 3 * width, _POINTS)
            axes.plot(at, density(mine, at), color=colour, linewidth=1.2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(x)
        axes.set_ylabel("density")
        depth_key(axes.figure, axes, colours, "convolution")
        if said:
            axes.figure.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


def _filters(weight: Tensor, conv: Conv) -> Tensor:
    """Lay out a weight with a row for each filter; transposed ones have them second."""
    if conv.transposed:
        weight = weight.unflatten(0, (conv.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def _at(model: nn.Module, path: str) -> Tensor | None:
    try:
        found: object = attrgetter(path)(model)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check(values: Mapping[str, Any]) -> None:
    if not values:
        message = "there are no convolutions to draw: give the norms of at least one"
        raise ValueError(message)
    for name, mine in values.items():
        if mine.ndim != 1 or not len(mine) or not all(map(math.isfinite, mine.tolist())):
            message = f"the norms of '{name}' are no list of finite numbers"
            raise ValueError(message)
