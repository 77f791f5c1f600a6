"""Graphs and axes of ten models, as text: a change in the engine shows up as a readable diff.

`TONSOR_UPDATE_GOLDEN=1 pytest tests/golden` records them anew; look at the diff before keeping it.
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import os
from pathlib import Path
from typing import Literal

import pytest

from tests.models import ALL
from tonsor.axes.show import axes_text
from tonsor.axes.solve import has_rule, solve
from tonsor.graph.inputs import Inputs
from tonsor.graph.show import graph_text
from tonsor.graph.trace import trace
from tonsor.types import Solution

FOLDER = Path(__file__).parent
CASES = {case.name: case for case in ALL}
NAMES = [
    "resnet_pad",  # the ResNet for CIFAR, with shortcuts that pad channels
    "vgg_flatten",
    "densenet",
    "shufflenet_v2",
    "vit_qkv_reshape",
    "swin",
    "lstm_two_layers",
    "hf_llama",
    "hf_gpt2",
    "hf_t5",
]
Kind = Literal["graph", "axes"]
HOW = "If the change is meant, run: TONSOR_UPDATE_GOLDEN=1 pytest tests/golden"


@functools.cache
def solution_of(name: str) -> Solution:
    model, args, kwargs = CASES[name].build()
    return solve(trace(model, Inputs(*args, **kwargs), known=has_rule))


def text_of(name: str, kind: Kind) -> str:
    solution = solution_of(name)
    return graph_text(solution.graph) if kind == "graph" else axes_text(solution)


def packages(name: str) -> dict[str, str]:
    """The packages whose code is recorded, with their versions."""
    wanted = ("torch", "transformers") if name.startswith("hf_") else ("torch",)
    return {p: importlib.metadata.version(p).partition("+")[0] for p in wanted}


def read(path: Path) -> tuple[dict[str, str], str]:
    """Versions from the header, and the text below it."""
    header, _, text = path.read_text("utf-8").partition("\n\n")
    return dict(line.removeprefix("# ").split(" ", 1) for line in header.splitlines()), text


def write(path: Path, versions: dict[str, str], text: str) -> None:
    header = "\n".join(f"# {package} {version}" for package, version in versions.items())
    path.write_text(f"{header}\n\n{text}\n", "utf-8")


@pytest.mark.parametrize("kind", ["graph", "axes"])
@pytest.mark.parametrize("name", NAMES)
def test_text_is_as_recorded(name: str, kind: Kind) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    path = FOLDER / f"{name}.{kind}.txt"
    here = packages(name)
    if os.environ.get("TONSOR_UPDATE_GOLDEN") == "1":
        write(path, here, text_of(name, kind))
    assert path.exists(), f"{path.name} was never recorded. {HOW}"
    then, recorded = read(path)
    if then.get("transformers") != here.get("transformers"):
        pytest.skip(
            f"the model is the library's own code: recorded with transformers "
            f"{then.get('transformers')}, {here.get('transformers')} is installed"
        )
    found = f"{text_of(name, kind)}\n"
    if found != recorded:
        diff = difflib.unified_diff(recorded.splitlines(), found.splitlines(), lineterm="", n=1)
        notes = [f"{p} was {then[p]}, is {here[p]}" for p in here if then.get(p) != here[p]]
        shown = "\n".join(list(diff)[2:80])
        pytest.fail("\n".join([f"{path.name} has changed", shown, *notes, HOW]), pytrace=False)


def test_every_recorded_file_belongs_to_a_case() -> None:
    kept = {f"{name}.{kind}.txt" for name in NAMES for kind in ("graph", "axes")}
    assert {path.name for path in FOLDER.glob("*.txt")} == kept


@pytest.mark.parametrize("name", ["swin", "lstm_two_layers"])
def test_text_is_the_same_twice(name: str) -> None:
    once = text_of(name, "graph"), text_of(name, "axes")
    solution_of.cache_clear()
    assert (text_of(name, "graph"), text_of(name, "axes")) == once
