"""The blocks of some models, as text: a change in what is found shows up as a readable diff.

`TONSOR_UPDATE_GOLDEN=1 pytest tests/families/blocks/test_golden.py` records them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import tonsor
from tests.golden.test_golden import CASES, packages, read, write
from tonsor import zoo
from tonsor.families.blocks.find import Level, find_blocks

FOLDER = Path(__file__).parent / "golden"
NAMES = ["densenet", "mobilenet_v2", "swin", "hf_llama", "hf_t5", "hf_whisper", "hf_dinov2"]
LEVELS: list[Level] = ["block", "branch"]
HOW = "If the change is meant, run it with TONSOR_UPDATE_GOLDEN=1"


def text_of(name: str, level: Level) -> str:
    if name in CASES:
        model, args, kwargs = CASES[name].build()
        given = tonsor.Inputs(*args, **kwargs)
    else:
        model, given = zoo.build(name, width=0.25).eval(), torch.randn(2, 3, 32, 32)
    return str(find_blocks(tonsor.inspect(model, given), level=level))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "vgg16", *NAMES])
def test_blocks_are_as_recorded(name: str, level: Level) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    path = FOLDER / f"{name}.{level}.txt"
    here = packages(name)
    if os.environ.get("TONSOR_UPDATE_GOLDEN") == "1":
        write(path, here, text_of(name, level))
    assert path.exists(), f"{path.name} was never recorded. {HOW}"
    then, recorded = read(path)
    if then.get("transformers") != here.get("transformers"):
        pytest.skip("the model is the library's own code, and another version of it is installed")
    assert f"{text_of(name, level)}\n" == recorded, HOW


def test_every_recorded_file_belongs_to_a_model() -> None:
    names = ["resnet20", "resnet50", "vgg16", *NAMES]
    kept = {f"{name}.{level}.txt" for name in names for level in LEVELS}
    assert {path.name for path in FOLDER.glob("*.txt")} == kept
