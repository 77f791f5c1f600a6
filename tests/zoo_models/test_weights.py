"""Weights from files: what is read, what is refused, and what is said of those that don't fit."""

from __future__ import annotations

import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.errors import WeightsError
from tonsor.zoo.weights import read_weights


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(3)
    model = zoo.build("resnet20", width=0.25)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return model.eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, yours = a.state_dict(), b.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(mine[k], yours[k]) for k in mine)


def load(path: Path) -> nn.Module:
    return zoo.load("resnet20", path, width=0.25)


# ---------------------------------------------------------------- what is read


def wrapped(state: dict[str, Any], *prefixes: str) -> dict[str, Any]:
    for prefix in prefixes:
        state = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    return state


FORMS = {
    "plain": lambda s: s,
    "ordered": OrderedDict,
    "under state_dict": lambda s: {"epoch": 3, "best": torch.tensor(0.9), "state_dict": s},
    "under model": lambda s: {"model": s, "optimizer": {"state": {}, "param_groups": []}},
    "twice nested": lambda s: {"model": {"state_dict": s}},
    "data parallel": lambda s: {"state_dict": wrapped(s, "module.")},
    "compiled and parallel": lambda s: wrapped(s, "_orig_mod.", "module."),
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "without counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "parameters": lambda s: {k: nn.Parameter(v, requires_grad=False) for k, v in s.items()},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_state_dicts_of_torch_are_read(
    net: nn.Module, tmp_path: Path, form: str, zipped: bool
) -> None:
    state = net.state_dict()
    torch.save(FORMS[form](dict(state)), tmp_path / "w", _use_new_zipfile_serialization=zipped)
    found = load(tmp_path / "w")
    if form == "half":
        net = zoo.build("resnet20", width=0.25)
        net.load_state_dict({k: v.half() for k, v in state.items()})
    assert same(found, net)
    assert not found.training


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("padding", range(0, 64, 8))
def test_safetensors_are_read(net: nn.Module, tmp_path: Path, prefix: str, padding: int) -> None:
    """Whatever the header's length, which is how the file begins."""
    path = tmp_path / "w.safetensors"
    save_file(wrapped(net.state_dict(), prefix), path, {"note": "x" * padding})
    assert same(load(path), net)


def test_a_header_that_begins_as_a_pickle_does_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for padding in range(256):
        save_file({"a": torch.ones(2)}, path, {"tonsor": "x" * padding})
        if path.read_bytes()[:1] == b"\x80":
            break
    else:
        pytest.fail("no header of this length")
    with pytest.raises(WeightsError, match="slim model"):  # torch would have read the weights
        read_weights(path)


def test_names_are_left_alone_where_not_all_have_the_prefix(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w")
    assert read_weights(tmp_path / "w").keys() == {"module.a", "b"}


# ---------------------------------------------------------------- what is refused


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_hostile_file_is_refused_and_nothing_runs(
    tmp_path: Path, zipped: bool, nested: bool
) -> None:
    evil = Hostile(tmp_path / "made")
    content = {"state_dict": {"conv1.weight": torch.ones(1), "x": evil}} if nested else evil
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"it asks for '\w+\.mkdir'.*code would have to run"):
        load(tmp_path / "w.pt")
    assert not (tmp_path / "made").exists()
    with pytest.raises(AttributeError):  # the file would have worked
        pickle.loads(pickle.dumps(evil)).state_dict()
    assert (tmp_path / "made").exists()


def test_a_pickled_module_or_object_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pt")
    with pytest.raises(WeightsError, match=r"Linear', .* save its state dict alone"):
        load(tmp_path / "whole.pt")
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Namespace(lr=1)}, tmp_path / "args.pt")
    with pytest.raises(WeightsError, match=r"asks for 'argparse\.Namespace'"):
        load(tmp_path / "args.pt")


DAMAGED = {
    "empty": b"",
    "text": b"version https://git-lfs.github.com/spec/v1",
    "a broken zip": b"PK\x03\x04 and no more",
    "a broken pickle": b"\x80\x02 and no more",
    "a plain pickle": pickle.dumps({"a": 1}),
    "a long header": b"\xff" * 8 + b"{",
    "a short header": b"\x40" + b"\0" * 7 + b"{}",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_file_of_weights_is_told_in_words(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(DAMAGED[kind])
    with pytest.raises(WeightsError, match=r"w\.bin' (is neither|can't be read)"):
        load(path)


def test_a_truncated_file_is_told_in_words(net: nn.Module, tmp_path: Path) -> None:
    torch.save(net.state_dict(), tmp_path / "w.pt")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(WeightsError, match="damaged"):
            load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds nothing"),
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        ({"epoch": 3}, "'epoch' in it is a int"),
        ({"a": torch.ones(1), "lr": 0.1}, "'lr' in it is a float"),
        ({0: torch.ones(1)}, "holds no state dict"),
        ({"optimizer": {"state": {}}}, "Looked for the weights under state_dict"),
    ],
)
def test_what_holds_no_state_dict_says_what_it_holds(
    tmp_path: Path, content: Any, said: str
) -> None:
    torch.save(content, tmp_path / "w")
    with pytest.raises(WeightsError, match=said):
        load(tmp_path / "w")


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.pt")


def test_a_slim_model_is_sent_to_its_own_door(net: nn.Module, tmp_path: Path) -> None:
    slim, report = tonsor.prune(net, torch.zeros(1, 3, 32, 32), budget="macs=50%")
    tonsor.save(tmp_path / "slim.tonsor", slim, report.plan)
    with pytest.raises(WeightsError, match=r"slim model .* tonsor\.load\(path, model\)"):
        load(tmp_path / "slim.tonsor")


# ---------------------------------------------------------------- what does not fit

OTHERS: list[tuple[str, dict[str, Any], str, dict[str, Any], list[str]]] = [
    (
        "resnet20", {"classes": 100}, "resnet20", {},
        [r"linear\.weight should be \(10, 64\) and is \(100, 64\)",
         "fits 'resnet20' with classes=100"],
    ),
    (
        "resnet20", {"shortcut": "B"}, "resnet20", {},
        [r"unknown: layer2\.0\.shortcut\.0\.weight \(32, 16, 1, 1\).*and 6 more",
         "fits 'resnet20' with shortcut='B'"],
    ),
    (
        "resnet32", {}, "resnet20", {},
        [r"unknown: layer1\.3\.conv1\.weight", "fits 'resnet32'$"],
    ),
    (
        "resnet20", {}, "resnet32", {"classes": 5},
        [r"missing: layer1\.3\.conv1\.weight \(16, 16, 3, 3\).*and 56 more", "of another shape",
         "fits 'resnet20'$"],
    ),
    (
        "vgg16", {"bias": True, "head": "hidden", "width": 0.25, "classes": 3}, "vgg16", {},
        ["fits 'vgg16' with classes=3, width=0.25, bias=True, head='hidden'"],
    ),
    ("resnet18", {"channels": 1, "width": 0.25}, "resnet50", {},
     ["fits 'resnet18' with width=0.25, channels=1"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "keywords", "into", "given", "said"), OTHERS)
def test_weights_of_another_model_name_the_tensors_and_the_model(
    tmp_path: Path,
    name: str,
    keywords: dict[str, Any],
    into: str,
    given: dict[str, Any],
    said: list[str],
) -> None:
    right = zoo.build(name, **keywords)
    torch.save(right.state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=rf"w\.pt' does not fit this '{into}'") as refused:
        zoo.load(into, tmp_path / "w.pt", **given)
    for words in said:
        assert refused.match(words)
    assert same(zoo.load(name, tmp_path / "w.pt", **keywords), right)


def test_weights_of_nothing_in_the_zoo(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="nothing in the zoo has these names and shapes"):
        load(tmp_path / "w.pt")


def test_one_tensor_too_few_or_too_many(net: nn.Module, tmp_path: Path) -> None:
    state = dict(net.state_dict())
    del state["bn1.running_var"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"missing: bn1\.running_var \(4,\)\n"):
        load(tmp_path / "w.pt")
    torch.save(dict(net.state_dict()) | {"total_ops": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"unknown: total_ops \(1,\)\n"):
        load(tmp_path / "w.pt")


def test_a_zip_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="can't be read"):
        load(tmp_path / "w.zip")
