"""From which indices of each group stay to what that means for tensors and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tonsor.axes.tree import Mask, count, mask
from tonsor.types import Axis, Cut, Mend


def make_cut(
    layout: Mapping[str, tuple[Axis, ...]], mends: Iterable[Mend], masks: Mapping[str, Mask]
) -> Cut:
    """Work out the kept indices of every tensor and the new value of every attribute."""
    keep: dict[str, tuple[tuple[int, ...] | None, ...]] = {}
    for name, axes in layout.items():
        kept = [mask(a, masks) for a in axes]
        if not all(k.all() for k in kept):
            keep[name] = tuple(None if k.all() else tuple(k.nonzero()[0].tolist()) for k in kept)
    counts = {name: int(m.sum()) for name, m in masks.items()}
    sizes = {}
    for item in mends:
        new = count(item.axis, counts)
        if new != item.axis.size:
            sizes[item.module, item.path] = new
    return Cut(keep, sizes)
