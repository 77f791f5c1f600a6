"""What `tonsor stripes` and `columns` show: convolutions, and what is left of their fibres."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from tonsor.anatomy import Anatomy, inspect
from tonsor.cli.fibre_options import Columns, Stripes
from tonsor.cli.made import Made, make
from tonsor.cli.show import show, show_json, show_table, step
from tonsor.errors import SelectionError
from tonsor.explain import short
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import FibreLayer, FibreLayers
from tonsor.families.stripes.groups import shared_by
from tonsor.families.stripes.layers import find_stripes
from tonsor.families.stripes.positions import positions
from tonsor.fibres import Fibres, Kind, dim_of
from tonsor.methods.swp.table import listing
from tonsor.plan_json import load_plan
from tonsor.plan_parts import fibres_text
from tonsor.plans import Plan
from tonsor.report.raw import save_figure
from tonsor.report.stripes import remaining
from tonsor.surgery.dropping import gone


def show_fibres(command: Stripes | Columns) -> int:
    """List the convolutions of a model, with what a plan leaves of them if there is one."""
    figure = command.figure if isinstance(command, Stripes) else None
    if figure is not None and figure.suffix != ".svg":
        message = f"--figure draws SVG, so it takes a name that ends in .svg, not {figure}"
        raise SelectionError(message)
    made = make(command.model, command.source)
    slim, plan = _slim(command, made)
    original = made.model if made.original is None else made.original
    with step("tracing, and trying cuts on shapes"):
        anatomy = inspect(original, made.inputs)
        layers = (find_stripes if isinstance(command, Stripes) else find_columns)(anatomy)
    if figure is not None:
        _draw(figure, anatomy, plan, quiet=command.json)
    left = {} if plan is None else dict(_left(layers, plan))
    structure = None
    if slim is not None and layers.kind == "stripes" and not (plan and plan.columns):
        structure = listing(slim)
    if command.json:
        show_json({
            "model": type(original).__name__,
            "free": len(layers.free),
            "layers": [_as_json(layer, left.get(layer.name)) for layer in layers],
            **_listed(layers.kind, structure),
        })  # fmt: skip
        return 0
    show(f"{len(layers)} convolutions, of which {len(layers.free)} may lose {layers.kind}")
    across = "inputs" if layers.kind == "stripes" else "filters"
    columns = ["layer", "kernel", across, "parameters", layers.kind]
    columns += ["left"] if plan is not None else []
    show_table((*columns, "notes"), [_row(x, left.get(x.name), plan) for x in layers])
    if plan is not None and plan.fibres:
        show(fibres_text(plan.cut().fibres))
    if structure is not None:
        show(f"what is left, layer by layer:\n{structure}")
    return 0


def _listed(kind: Kind, structure: str | None) -> dict[str, Any]:
    """Say what is left layer by layer, as it is said of stripes."""
    if kind != "stripes":
        return {}
    return {"structure": None if structure is None else structure.splitlines()}


def _draw(path: Path, anatomy: Anatomy, plan: Plan | None, *, quiet: bool) -> None:
    """Draw which stripes are left, of the layers whose kernel is the most frequent one."""
    if plan is None:
        message = "--figure shows what is left, so say of what: --weights slim.tonsor, or --plan"
        raise SelectionError(message)
    shares = positions(anatomy, plan)
    if not shares:
        message = "no convolution is left whose stripes could be drawn"
        raise SelectionError(message)
    kernels = {x.name: x.kernel for x in find_stripes(anatomy)}
    usual, _ = Counter(kernels[n] for n in shares).most_common(1)[0]
    drawn = {n: s for n, s in shares.items() if kernels[n] == usual}
    columns = usual[-1]
    said = [f"{type(anatomy.model).__name__}, kernels of {'x'.join(map(str, usual))}"]
    data = {"positions": drawn, "kernel": list(usual)}
    save_figure(path, remaining(drawn, columns=columns, conditions=said), data)
    if not quiet:
        show(f"written: {path}, and the numbers beside it", "green")


def _slim(command: Stripes | Columns, made: Made) -> tuple[nn.Module | None, Plan | None]:
    """Return the slim model that is to be shown, and the plan that has made it."""
    if command.plan is None:
        return (None if made.earlier is None else made.model), made.earlier
    if made.earlier is not None:
        message = (
            f"'{command.source.weights}' has a plan of its own, so --plan {command.plan} can't be "
            "shown on it; leave one of them out"
        )
        raise SelectionError(message)
    plan = load_plan(command.plan)
    return plan.apply(made.model, verify=False), plan


def _left(layers: FibreLayers, plan: Plan) -> Iterator[tuple[str, Fibres | int]]:
    """Yield what a plan leaves of each layer: its fibres or, if it has not lost any, how many."""
    cut = plan.cut()
    for layer in layers:
        if gone(plan.drops, layer.weight):
            yield layer.name, 0
        elif layer.weight in cut.fibres:
            yield layer.name, cut.fibres[layer.weight]
        else:
            kept = cut.keep.get(layer.weight, (None, None))[dim_of(layer.kind)]
            yield layer.name, (layer.rows if kept is None else len(kept)) * layer.positions


def _count(layer: FibreLayer, left: Fibres | int) -> int | None:
    """How many are left; of a layer that has lost those of the other kind it can't be said."""
    if isinstance(left, int):
        return left
    return left.left if left.kind == layer.kind else None


def _row(layer: FibreLayer, left: Fibres | int | None, plan: Plan | None) -> list[str]:
    kernel = "x".join(map(str, layer.kernel))
    row = [layer.name, kernel, str(layer.width)]
    row += [short(layer.size * layer.width), f"{layer.size:,}"]
    count = None if left is None else _count(layer, left)
    row += [] if left is None else ["" if count is None else f"{count:,}"]
    notes = [f"stays: {layer.reason}"] if layer.reason else []
    if plan is not None and gone(plan.drops, layer.weight):
        notes = ["went with its block"]
    if isinstance(left, Fibres) and left.kind != layer.kind:
        notes = [f"has lost {left.kind}: `tonsor {left.kind}`"]
    elif isinstance(left, Fibres) and left.run:
        notes.append(f"runs as {left.run}")
    if (shared := _shared(left)) > 1:
        notes.append(f"filters share by {shared}")
    return [*row, "; ".join(notes)]


def _shared(left: Fibres | int | None) -> int:
    """How many filters keep the same stripes, if that has been chosen."""
    return shared_by(left.mask) if isinstance(left, Fibres) and left.kind == "stripes" else 1


def _as_json(layer: FibreLayer, left: Fibres | int | None) -> dict[str, Any]:
    return {
        "name": layer.name,
        "weight": layer.weight,
        "filters": layer.filters,
        "inputs": layer.inputs,
        "kernel": list(layer.kernel),
        layer.kind: layer.size,
        "free": not layer.reason,
        "reason": layer.reason,
        "left": None if left is None else _count(layer, left),
        "run": left.run if isinstance(left, Fibres) else "",
        **({"stripe_group": _shared(left)} if layer.kind == "stripes" else {}),
    }
