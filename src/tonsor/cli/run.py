"""What each command does with the verbs of the library."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import nn

from tonsor._version import __version__
from tonsor.anatomy import Anatomy, inspect
from tonsor.api import Report, prune
from tonsor.artifact import save
from tonsor.axes.registry import RULES
from tonsor.cli.learn_options import Eval, Finetune, Train
from tonsor.cli.model import build, fill, find, read_inputs, zoo_inputs
from tonsor.cli.options import Command, Demo, Doctor, Explain, Inspect, List, Prune, Source
from tonsor.cli.show import console, show, show_json, show_table, step
from tonsor.cost.conventions import CONVENTIONS
from tonsor.criteria.registry import CRITERIA
from tonsor.errors import SelectionError
from tonsor.explain import short
from tonsor.graph.inputs import Inputs
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.select.make import plan
from tonsor.zoo.registry import ZOO

_OPTIONAL = ("transformers", "timm", "torchvision", "accelerate", "onnx", "onnxruntime")


def run(command: Command) -> int:
    """Carry out a command and return the exit code."""
    match command:
        case Inspect():
            return _inspect(command)
        case Explain():
            return _explain(command)
        case Prune():
            return _prune(command)
        case List():
            return _list(command)
        case Doctor():
            return _doctor(command)
        case Train() | Finetune() | Eval():
            from tonsor.cli.learn import learn  # brings accelerate, which the others don't need

            return learn(command)
        case Demo():
            from tonsor import demo

            demo.run(command.out, console())
            return 0


# ---------------------------------------------------------------- inspect, explain


@dataclass(frozen=True, slots=True)
class _Made:
    """A model and its inputs; `earlier` is the plan of a model that is slim already."""

    model: nn.Module
    inputs: Inputs
    earlier: Plan | None = None
    random: bool = False


def _make(spec: str, source: Source) -> _Made:
    with step(f"importing {spec}"):
        found = find(spec)
    inputs = read_inputs(source.input or zoo_inputs(spec, source.args), source.seed)
    with step(f"making {spec}"):
        model = build(found, spec, source.args, source.seed)
    if source.weights is None:
        return _Made(model, inputs, random=isinstance(found, (type, partial)))
    with step(f"loading {source.weights}"):
        model, earlier = fill(model, str(source.weights), spec)
    return _Made(model, inputs, earlier)


def _anatomy(spec: str, source: Source) -> Anatomy:
    made = _make(spec, source)
    with step("tracing, and trying cuts on shapes"):
        return inspect(made.model, made.inputs, head_dims=source.head_dims)


def _inspect(command: Inspect) -> int:
    anatomy = _anatomy(command.model, command.source)
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
    return 0


def _notes(group: Any) -> str:
    notes = [f"approximate: {what}" for what in group.approximate]
    return "; ".join(notes + ([f"as many as tie {group.tie}"] if group.tie is not None else []))


def _explain(command: Explain) -> int:
    anatomy = _anatomy(command.model, command.source)
    explanation = anatomy.explain(command.name)
    if command.json:
        show_json(explanation.to_json())
    else:
        show(explanation)
    return 0


# ---------------------------------------------------------------- prune


def _prune(command: Prune) -> int:
    budget = _budget(command)
    made = _make(command.model, command.source)
    with step("tracing, ranking, cutting" + (" and proving" if command.verify else "")):
        slim, report = prune(
            made.model, made.inputs, budget=budget, by=command.by, rank=command.rank,
            keep=command.keep, round_to=command.round_to, floor=command.floor,
            seed=command.source.seed, head_dims=command.source.head_dims, verify=command.verify,
        )  # fmt: skip
    total = report.plan if made.earlier is None else report.plan.rebase(made.earlier)
    files = _save(command, slim, total)
    notes = [*report.warnings, *_advice(made, files)]
    if command.json:
        show_json(_report_json(report, budget, notes, files))
    else:
        _show_report(report, notes, files)
    return 0


def _budget(command: Prune) -> str:
    if (command.macs is None) == (command.params is None):
        message = "say how much to keep, by one of --macs and --params: --macs 50%"
        raise SelectionError(message)
    if command.macs is not None:
        return f"macs={command.macs}"
    return f"params={command.params}"


def _save(command: Prune, slim: nn.Module, total: Plan) -> dict[str, str]:
    files = {}
    if command.out is not None:
        with step(f"writing {command.out}"):
            save(command.out, slim, total)
        files["out"] = str(command.out)
    if command.plan is not None:
        save_plan(command.plan, total)
        files["plan"] = str(command.plan)
    return files


def _advice(made: _Made, files: dict[str, str]) -> Iterator[str]:
    if made.random:
        yield "the weights were random; --weights FILE prunes trained ones"
    if not files:
        yield "nothing was saved; --out slim.tonsor keeps the slim model, --plan the plan"


def _show_report(report: Report, notes: list[str], files: dict[str, str]) -> None:
    rows = [
        (name, short(before), short(after), f"{after / (before or 1):.1%}")
        for name, (before, after) in (("parameters", report.params), ("MACs", report.macs))
    ]
    name = type(report.anatomy.model).__name__
    show_table(("", "before", "after", "kept"), rows, title=name, numbers=1)
    cut, free = len(report.plan.keep), len(report.anatomy.prunable)
    show(f"{cut} of {free} free groups were cut, {len(report.anatomy.pinned)} may not be")
    show(f"proven: {report.proof}" if report.proof else "not proven (--no-verify)")
    for note in notes:
        show(f"note: {note}", "yellow")
    for path in files.values():
        show(f"written: {path}", "green")


def _report_json(
    report: Report, budget: str, notes: list[str], files: dict[str, str]
) -> dict[str, Any]:
    proof = report.proof
    return {
        "model": type(report.anatomy.model).__name__,
        "budget": budget,
        "params": dict(zip(("before", "after"), report.params, strict=True)),
        "macs": dict(zip(("before", "after"), report.macs, strict=True)),
        "kept": report.plan.counts,
        "proof": None if proof is None else {"error": proof.error, "tolerance": proof.tolerance},
        "notes": notes,
        "files": files,
    }


# ---------------------------------------------------------------- list, doctor


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
    if what == "criteria":
        return ("name", "what it measures"), [(c.name, c.summary) for c in CRITERIA.values()]
    if what == "conventions":
        return ("name", "what it counts"), [(c.name, c.about) for c in CONVENTIONS.values()]
    rows = [(n, (r.__doc__ or "").strip().partition("\n")[0]) for n, r in sorted(RULES.items())]
    return ("operator", "rule"), rows


def _doctor(command: Doctor) -> int:
    rows = [("tonsor", __version__), ("python", platform.python_version())]
    rows += [(n, _version(n)) for n in ("torch", "numpy", "safetensors", "rich", "tyro")]
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    rows += [("threads", str(torch.get_num_threads())), ("GPU", cuda)]
    rows += [(f"{n} (optional)", _version(n)) for n in _OPTIONAL]
    works, what = _check()
    rows.append(("check", what))
    if command.json:
        show_json(dict(rows) | {"works": works})
    else:
        show_table(("", "here"), rows)
    return 0 if works else 1


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _check() -> tuple[bool, str]:
    """Prune a small network, and say how that went."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    try:
        anatomy = inspect(net.eval(), torch.randn(2, 3, 8, 8))
        decided = plan(anatomy, "params=50%")
        return True, str(decided.prove(net, decided.apply(net, verify=False)))
    except Exception as error:  # noqa: BLE001  whatever it is, the doctor is asked for it
        return False, f"{type(error).__name__}: {error}"
