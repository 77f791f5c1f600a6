"""The commands that list columns, remove them, and train on what has lost some, as typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tonsor
from tests.commands import answer, refusal
from tests.test_cli_stripe_training import stopping
from tests.test_cli_stripes import ARGS, DIGITS, NET, TRAIN, cut_again, filled, small, written
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.surgery.column_conv import ColumnConv2d
from tonsor.surgery.fibre_conv import FibreConv
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.train.method import NoMethod

CUT = ["prune", *NET, "--family", "columns"]
BLIND = [*CUT, "--no-measure"]
STRIPES = ["prune", *NET, "--family", "stripes", "--no-measure"]
NETS = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.flat = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.flat(self.deep(self.first(x).relu()).relu())
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


def held(model: nn.Module, kind: type[FibreConv]) -> dict[str, int]:
    """How many fibres each layer of a kind holds."""
    return {n: len(m.weight) for n, m in model.named_modules() if isinstance(m, kind)}


# ---------------------------------------------------------------- columns


def test_convolutions_are_listed_with_why_their_columns_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "columned_nets.py"
    path.write_text(NETS, "utf-8")
    words = [f"{path}:Net", "--input", "1,3,8,8"]
    found = answer(capsys, "columns", *words)
    assert [(x["name"], x["columns"], x["free"]) for x in found["layers"]] == [
        ("first", 27, True), ("deep", 9, False), ("flat", 8, True),
    ]  # fmt: skip
    assert "it has groups" in found["layers"][1]["reason"]
    assert found["free"] == 2
    assert {x["left"] for x in found["layers"]} == {None}
    assert main(["columns", *words]) == 0
    shown = capsys.readouterr().out
    assert "3 convolutions, of which 2 may lose columns" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ first"))
    assert [cell.strip() for cell in row.split("│")][1:6] == ["first", "3x3", "8", "216", "27"]
    assert main(["inspect", *words]) == 0
    told = capsys.readouterr().out
    assert "2 of 3 convolutions may lose columns; `tonsor columns` lists them" in told
    assert "2 of 3 convolutions may lose stripes; `tonsor stripes` lists them" in told


def test_what_is_left_is_shown_of_a_file_and_of_a_plan(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow, slim, plan = tmp_path / "a.tonsor", tmp_path / "slim.tonsor", tmp_path / "plan.json"
    answer(capsys, "prune", *NET, *weights, "--macs", "60%", "--out", str(narrow))
    words = [*BLIND, "--weights", str(narrow), "--macs", "60%", "--keep", "layer1"]
    answer(capsys, *words, "--out", str(slim), "--plan", str(plan))
    net = tonsor.load(slim, small())
    left, modules = held(net, ColumnConv2d), dict(net.named_modules())
    assert left
    found = answer(capsys, "columns", *NET, "--weights", str(slim))
    for layer in found["layers"]:
        conv = modules[layer["name"]]
        whole = conv.weight[0].numel() if type(conv) is nn.Conv2d else 0
        assert layer["left"] == left.get(layer["name"], whole)
    assert answer(capsys, "columns", *NET, *weights, "--plan", str(plan)) == found
    assert main(["columns", *NET, "--weights", str(slim)]) == 0
    assert f"{sum(left.values()):,} of " in capsys.readouterr().out
    said = refusal(capsys, "columns", *NET, "--weights", str(slim), "--plan", str(plan))
    assert "has a plan of its own" in said


# ---------------------------------------------------------------- prune, at once


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--budget", "macs=40%"], {"budget": "macs=40%"}),
        (["--threshold", "1.1", "--floor", "0.5"], {"threshold": 1.1, "floor": 0.5}),
        (
            ["--params", "60%", "--by", "l2", "--rank", "per_layer", "--keep", "layer2"],
            {"budget": "params=60%", "by": "l2", "rank": "per_layer", "keep": ["layer2"]},
        ),
    ],
)
def test_columns_go_as_they_do_in_python(
    words: list[str], options: dict[str, Any], weights: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "slim.tonsor"
    found = answer(capsys, *BLIND, *weights, *words, "--out", str(out))
    anatomy = tonsor.inspect(filled(weights), torch.randn(1, 1, 32, 32))
    wanted = tonsor.plan_columns(anatomy, **options)
    plan, loaded, applied = cut_again(out, weights)
    assert plan.columns
    assert (plan.columns, plan.keep) == (wanted.columns, wanted.keep)
    torch.testing.assert_close(loaded, applied)
    assert found["proof"]["error"] <= found["proof"]["tolerance"]
    slim = tonsor.load(out, small())
    assert sum(p.numel() for p in slim.parameters()) == found["params"]["after"]
    left = {n: c["left"] for n, c in found["columns"].items()}
    assert left == {n: c.left for n, c in wanted.cut().fibres.items()}
    assert found["stripes"] == {}
    assert found["latency"] is None


def test_a_criterion_may_look_at_data(
    weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*BLIND, *weights, "--by", "taylor_weight", "--macs", "60%"]
    assert "--by taylor_weight needs images" in refusal(capsys, *words)
    by_data = answer(capsys, *words, *DIGITS, "--score-batches", "2")["columns"]
    assert by_data != answer(capsys, *BLIND, *weights, *DIGITS, "--macs", "60%")["columns"]


def test_how_layers_run_is_measured_told_and_kept(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "slim.tonsor"
    keep = [w for n in ("conv1", "layer1", "layer2", "layer3.0") for w in ("--keep", n)]
    words = [*CUT, *weights, *keep, "--threshold", "0.9", "--quiet", "--out", str(out)]
    found = answer(capsys, *words)
    timed = found["execution"]["layers"]
    assert timed.keys() == {n.removesuffix(".weight") for n in found["columns"]}
    assert all(dense > 0 and columns > 0 for dense, columns in timed.values())
    runs = {n: c["run"] for n, c in found["columns"].items()}
    assert set(runs.values()) <= {"dense", "columns"}
    slim: Any = tonsor.load(out, small())
    assert {n: slim.get_submodule(n.removesuffix(".weight")).run for n in runs} == runs
    assert main(words) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("│ layer3.2.conv2"))
    left = found["columns"]["layer3.2.conv2.weight"]
    assert row.split("│")[2].strip() == f"{left['left']} of {left['of']} columns"


# ---------------------------------------------------------------- one after the other


def test_columns_follow_channels_and_columns(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (tmp_path / f"{n}.tonsor" for n in "abc")
    before = answer(capsys, "prune", *NET, *weights, "--macs", "70%", "--out", str(one))
    begun = answer(capsys, *BLIND, "--weights", str(one), "--macs", "60%", "--out", str(two))
    assert begun["params"]["before"] == before["params"]["after"]
    again = [*BLIND, "--weights", str(two), "--macs", "40%"]
    went_on = answer(capsys, *again, "--by", "random", "--out", str(three))
    assert went_on["params"]["after"] < begun["params"]["after"]
    assert any("some stripes or columns were gone already" in n for n in went_on["notes"])
    earlier = read_plan(two).cut().fibres
    total, loaded, applied = cut_again(three, weights)
    torch.testing.assert_close(loaded, applied)
    for name, first in earlier.items():
        kept = total.cut().fibres[name]
        assert all(a & b == a for a, b in zip(kept.rows, first.rows, strict=True))
    seeds = [answer(capsys, *again, "--seed", seed)["columns"] for seed in "12"]
    assert seeds[0] == seeds[1]  # the weights that were thrown away have no say
    for family in ("channels", "blocks", "branches"):
        words = ["prune", *NET, "--weights", str(two), "--family", family, "--macs", "50%"]
        said = refusal(capsys, *words, "--by", "l1")
        assert f"has lost columns, and {family} can't follow them" in said


@pytest.mark.parametrize("order", [(BLIND, STRIPES), (STRIPES, BLIND)], ids=["columns", "stripes"])
def test_stripes_and_columns_go_from_different_layers(
    order: tuple[list[str], list[str]], weights: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    one, two = tmp_path / "a.tonsor", tmp_path / "b.tonsor"
    keep = ["--keep", "layer3", "--keep", "layer2"]
    first = answer(capsys, *order[0], *weights, "--macs", "90%", *keep, "--out", str(one))
    both = answer(capsys, *order[1], "--weights", str(one), "--macs", "60%", "--out", str(two))
    kind, other = (words[words.index("--family") + 1] for words in order)
    assert first[kind]
    assert first[kind] == both[kind]  # the layers that had lost the others are as they were
    assert both[other]
    assert not first[kind].keys() & both[other].keys()
    plan, loaded, applied = cut_again(two, weights)
    torch.testing.assert_close(loaded, applied)
    slim = tonsor.load(two, small())
    layers = {"columns": ColumnConv2d, "stripes": StripeConv2d}
    for one_kind, layer in layers.items():
        counted = {n.removesuffix(".weight"): f["left"] for n, f in both[one_kind].items()}
        assert held(slim, layer) == counted
    for command in ("columns", "stripes"):
        found = answer(capsys, command, *NET, "--weights", str(two))["layers"]
        gone = {x["weight"] for x in found if x["left"] is None}
        assert gone == {n for n, f in plan.cut().fibres.items() if f.kind != command}
    assert main(["columns", *NET, "--weights", str(two)]) == 0
    assert "has lost stripes: `tonsor stripes`" in capsys.readouterr().out


# ---------------------------------------------------------------- training on


def test_a_model_of_columns_is_trained_on_and_judged(
    weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    slim = tmp_path / "slim.tonsor"
    answer(capsys, *BLIND, *weights, "--macs", "50%", "--out", str(slim))

    def words(folder: str, *rest: str) -> list[str]:
        tune = ["finetune", *NET, "--weights", str(slim), *DIGITS, "--no-board", "--epochs", "2"]
        return [*tune, "--out", str(tmp_path / folder), "--device", "cpu", *rest]

    whole = answer(capsys, *words("a"))
    with monkeypatch.context() as patched:
        stopping(patched, NoMethod, 2)
        assert main(words("b")) == 130
    capsys.readouterr()
    assert answer(capsys, *words("b", "--resume"))["test"] == whole["test"]
    one, two = (load_file(tmp_path / n / "slim.tonsor") for n in "ab")
    assert all(torch.equal(one[n], two[n]) for n in one)
    tuned: Any = tonsor.load(tmp_path / "a" / "slim.tonsor", small())
    assert isinstance(tuned.layer3[0].conv1, ColumnConv2d)
    before = load_file(slim)
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in before.items()}
    assert not torch.equal(one["layer3.0.conv1.weight"], before["layer3.0.conv1.weight"])
    judged = answer(capsys, "eval", *NET, "--weights", whole["out"], "--limit", "200")
    assert judged["correct"] == whole["test"]["correct"]


def test_stripes_are_trained_away_beside_columns(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "a.tonsor", tmp_path / "b.tonsor"
    answer(capsys, *BLIND, *weights, "--macs", "90%", "--keep", "layer3", "--out", str(one))
    words = [*TRAIN, "--weights", str(one), "--method", "swp", "--macs", "60%", "--epochs", "1"]
    found = answer(capsys, *words, "--run", str(tmp_path / "run"), "--out", str(two))
    first, total = read_plan(one), read_plan(two)
    assert total.columns == first.columns
    assert total.stripes
    judged = answer(capsys, "eval", *NET, "--weights", str(two), "--limit", "200")
    assert judged["correct"] == found["test"]["correct"]


# ---------------------------------------------------------------- failing

MISTAKES = [
    (CUT, "Or say by --threshold which columns go"),
    ([*CUT, "--macs", "50%", "--threshold", "0.4"], "or what goes (--threshold), not both"),
    ([*CUT, "--budget", "latency=50%"], "a latency can't be the budget of stripes or columns"),
    (
        [*CUT, "--macs", "10%", "--keep", "layer1"],
        "can't be met by columns: the least that can be left is",
    ),
    ([*CUT, "--macs", "50%", "--by", "bn_scale"], "choose a criterion of weights"),
    ([*CUT, "--macs", "50%", "--rank", "isomorphic"], "--rank isomorphic is for channels"),
    ([*CUT, "--macs", "50%", "--ratio", "conv1=0.5"], "--ratio is about channels"),
    ([*CUT, "--macs", "50%", "--round-to", "8"], "--family columns removes columns"),
    ([*CUT, "--remove", "2"], "or which of them go by --threshold"),
    ([*CUT, "--macs", "50%", "--schedule", "ramp:2/3"], "by --method spp"),
    ([*CUT, "--macs", "50%", "--guard", "9"], "--guard is about training by a method"),
    ([*CUT, "--macs", "50%", "--epochs", "3"], "train what comes out by `tonsor finetune`"),
    ([*CUT, "--macs", "50%", "--recover", "compensate"], "--recover compensate makes up for"),
    (["columns", *NET, "--plan", "none.json"], "none.json"),
    (
        ["prune", "zoo:resnet20", *ARGS, "--family", "columns", "--method", "swp"],
        "--method swp trains stripes away, and columns go here",
    ),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_words(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())
