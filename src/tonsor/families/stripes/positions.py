"""Which share of the filters of each layer keeps its stripe at each position of the kernel."""

from __future__ import annotations

from tonsor.anatomy import Anatomy
from tonsor.families.stripes.layers import find_stripes
from tonsor.plans import Plan
from tonsor.surgery.dropping import gone


def positions(anatomy: Anatomy, decided: Plan) -> dict[str, list[float]]:
    """Return the shares that a plan leaves of each convolution whose stripes may go.

    Filters that went whole keep none; layers whose block went are left out.
    """
    cut = decided.cut()
    found: dict[str, list[float]] = {}
    for layer in find_stripes(anatomy).free:
        if gone(decided.drops, layer.weight):
            continue
        kept = cut.keep.get(layer.weight, (None,))[0]
        if layer.weight in cut.fibres:
            share = cut.fibres[layer.weight].mask.mean(axis=0)
            found[layer.name] = [round(float(s), 6) for s in share]
        else:
            whole = 1.0 if kept is None else len(kept) / layer.filters
            found[layer.name] = [round(whole, 6)] * layer.positions
    return found
