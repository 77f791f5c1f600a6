"""What each command does with the verbs of the library."""

from __future__ import annotations

from typing import Any

from tonsor.axes.registry import RULES
from tonsor.cli.block_options import Blocks
from tonsor.cli.choose_options import Prune, Score, Sensitivity, Study
from tonsor.cli.deploy_options import Deploy
from tonsor.cli.fibre_options import Columns, Stripes
from tonsor.cli.learn_options import Eval, Finetune, Train
from tonsor.cli.made import make_anatomy
from tonsor.cli.options import Command, Demo, Doctor, Explain, Inspect, List
from tonsor.cli.show import console, show, show_json, show_table
from tonsor.cost.conventions import CONVENTIONS
from tonsor.cost.engines.ready import engines
from tonsor.criteria.blocks.score import block_criteria
from tonsor.criteria.registry import CRITERIA
from tonsor.families.blocks.find import find_blocks
from tonsor.families.columns.layers import find_columns
from tonsor.families.stripes.layers import find_stripes
from tonsor.zoo.registry import ZOO


def run(command: Command) -> int:
    """Carry out a command and return the exit code."""
    match command:
        case Inspect():
            return _inspect(command)
        case Explain():
            return _explain(command)
        case Blocks():
            from tonsor.cli.blocks import show_blocks

            return show_blocks(command)
        case Stripes() | Columns():
            from tonsor.cli.fibres import show_fibres

            return show_fibres(command)
        case Prune():
            from tonsor.cli.prune import cut

            return cut(command)
        case Score():
            from tonsor.cli.rank import show_scores

            return show_scores(command)
        case Sensitivity():
            from tonsor.cli.rank import show_sensitivity

            return show_sensitivity(command)
        case Study():
            from tonsor.cli.study import study

            return study(command)
        case Deploy():
            from tonsor.cli.deploy import show_deployed

            return show_deployed(command)
        case List():
            return _list(command)
        case Doctor():
            from tonsor.cli.doctor import doctor

            return doctor(command)
        case Train() | Finetune() | Eval():
            from tonsor.cli.learn import learn  # brings accelerate, which the others don't need

            return learn(command)
        case Demo():
            from tonsor import demo

            demo.run(command.out, console())
            return 0


# ---------------------------------------------------------------- inspect, explain


def _inspect(command: Inspect) -> int:
    anatomy = make_anatomy(command.model, command.source)
    if command.json:
        show_json(anatomy.to_json())
        return 0
    show("\n".join(str(anatomy).splitlines()[:2]))
    rows = [
        (g.name, g.size, g.kind.replace("_", " "), len({m.tensor for m in g.members}), _notes(g))
        for g in anatomy.prunable
    ]
    show_table(("group", "size", "kind", "tensors", "notes"), rows, title="may be cut")
    rows = [(g.name, g.size, g.pins[0]) for g in anatomy.pinned]
    show_table(("group", "size", "why"), rows, title="may not be cut")
    if anatomy.unreached:
        show(f"never reached by this input, and left alone: {', '.join(anatomy.unreached)}")
    for item in anatomy.cost.uncounted:
        show(f"not counted: {item}")
    if anatomy.graph.calls and (blocks := find_blocks(anatomy)):
        show(f"{len(blocks)} blocks, {len(blocks.removable)} may go; `tonsor blocks` lists them")
    for layers in (find_stripes(anatomy), find_columns(anatomy)):
        if layers.free:
            many, kind = f"{len(layers.free)} of {len(layers)}", layers.kind
            show(f"{many} convolutions may lose {kind}; `tonsor {kind}` lists them")
    return 0


def _notes(group: Any) -> str:
    notes = [f"approximate: {what}" for what in group.approximate]
    return "; ".join(notes + ([f"as many as tie {group.tie}"] if group.tie is not None else []))


def _explain(command: Explain) -> int:
    anatomy = make_anatomy(command.model, command.source)
    explanation = anatomy.explain(command.name)
    if command.json:
        show_json(explanation.to_json())
    else:
        show(explanation)
    return 0


# ---------------------------------------------------------------- list


def _list(command: List) -> int:
    columns, rows = _listed(command.what)
    if command.json:
        show_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        show_table(columns, rows)
    return 0


def _listed(what: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    if what == "models":
        return ("name", "what it is"), [(n, e.about) for n, e in ZOO.items()]
    if what == "recipes":
        from tonsor.train.recipes import RECIPES, about

        return ("name", "what it is for"), [(n, about(n).split("\n")[0]) for n in RECIPES]
    if what == "methods":
        from tonsor.methods.lfpc import LearnedCriteria
        from tonsor.methods.spp import ByChance
        from tonsor.methods.swp import FilterSkeleton, StripeLasso

        methods = (
            ("swp", FilterSkeleton), ("lasso", StripeLasso), ("spp", ByChance),
            ("lfpc", LearnedCriteria),
        )  # fmt: skip
        return ("name", "what it does"), [(n, _first_line(m)) for n, m in methods]
    if what == "criteria":
        return ("name", "what it measures"), [(c.name, c.summary) for c in CRITERIA.values()]
    if what == "block-criteria":
        return ("name", "what it measures"), list(block_criteria().items())
    if what == "engines":
        return ("name", "here"), [(n, why or "available") for n, why in engines().items()]
    if what == "conventions":
        return ("name", "what it counts"), [(c.name, c.about) for c in CONVENTIONS.values()]
    return ("operator", "rule"), [(n, _first_line(r)) for n, r in sorted(RULES.items())]


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
