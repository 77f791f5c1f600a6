"""The command that has pieces go by chance while a model trains, as it is typed."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import tonsor
from tests.commands import answer, place, refusal
from tests.test_cli_stripe_training import stopping
from tests.test_cli_stripes import BLIND, NET, TRAIN, cut_again, filled, small, written
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.cli.choose_options import Spp
from tonsor.cli.chosen import parts_going
from tonsor.errors import SelectionError
from tonsor.methods.spp import ByChance, prune_by_chance_while_training
from tonsor.train.data import open_data, split
from tonsor.train.recipe import Recipe

SPP = [*TRAIN, "--method", "spp"]
FAST = ["--most", "0.5", "--interval", "1", "--epochs", "2"]
ALL = [
    "--interval", "2", "--most", "0.3", "--centre", "0.4", "--shape", "linear", "--scores", "size",
    "--alpha", "adaptive", "--history", "0.5", "--no-recovery", "--guard", "7", "--elementwise",
    "--gradient", "caffe",
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


# ---------------------------------------------------------------- what goes


@pytest.mark.parametrize("family", ["columns", "stripes", "channels", "blocks"])
def test_a_family_goes_by_chance_until_the_budget_is_met(
    family: str, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SPP, *weights, *FAST, "--macs", "70%", *place(tmp_path, "a")]
    words += ["--family", family] if family != "columns" else []  # which is what it is for
    found = answer(capsys, *words)
    assert found["macs"]["after"] <= 0.7 * found["macs"]["before"]
    assert found["proof"]["error"] <= found["proof"]["tolerance"]
    plan = read_plan(tmp_path / "a.tonsor")
    assert (plan.made_by["family"], plan.made_by["method"]) == (family, "spp")
    went = {
        "columns": bool(plan.columns), "stripes": bool(plan.stripes), "channels": bool(plan.keep),
        "blocks": bool(plan.drops),
    }  # fmt: skip
    assert went[family]
    assert bool(plan.fibres) == (family in ("columns", "stripes"))
    assert found["lost"].keys() == found["updates"].keys()
    assert all(0 <= lost < size for lost, size in found["lost"].values())
    judged = answer(capsys, "eval", *NET, "--weights", str(tmp_path / "a.tonsor"), "--limit", "200")
    assert judged["correct"] == found["test"]["correct"]


def test_it_is_what_python_does(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SPP, *weights, *ALL, "--ratio", "0.4", "--by", "l2", "--seed", "3"]
    words += ["--epochs", "2", "--lr", "0.02", "--keep", "layer2", *place(tmp_path, "a")]
    answer(capsys, *words)
    net = filled(weights)
    recipe = Recipe(
        name="spp", epochs=2, batch=64, lr=0.02, nesterov=True, weight_decay=1e-4,
        schedule="cosine", choose="last", seed=3,
    )  # fmt: skip
    splits = split(open_data("digits"), limit=200)
    slim, _, wanted = prune_by_chance_while_training(
        net, tonsor.inspect(net, torch.randn(2, *splits.shape)), splits, recipe, ratio=0.4,
        by="l2", interval=2, most=0.3, centre=0.4, shape="linear", scores="size", alpha="adaptive",
        history=0.5, recovery=False, guard=7, elementwise=True, gradient="caffe", seed=3,
        keep=["layer2"], folder=tmp_path / "python", device="cpu", quiet=True, board=False,
    )  # fmt: skip
    plan = read_plan(tmp_path / "a.tonsor")
    assert plan.columns == wanted.columns
    assert dict(plan.made_by) == json.loads(json.dumps(dict(wanted.made_by)))
    trained = tonsor.load(tmp_path / "a.tonsor", small())
    for name, tensor in slim.state_dict().items():
        assert torch.equal(trained.state_dict()[name], tensor), name


def test_defaults_are_those_of_the_engine() -> None:
    known = inspect.signature(ByChance).parameters
    options = asdict(Spp())
    assert options.pop("interval") is None  # as many as the training has time for
    assert options == {name: known[name].default for name in options}
    left = known.keys() - options.keys() - {"model", "anatomy", "family", "ratio", "budget"}
    assert left == {"by", "interval", "alpha", "seed", "keep", "after"}


def test_ratios_say_which_part_of_each_layer_goes(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = {"layer3.*": 0.5, "layer3.0.*": 0.25, "layer1.*": 0.0}
    words = [*SPP, *weights, *FAST, "--ratio", "75%", *place(tmp_path, "a")]
    words += [w for name, part in ratios.items() for w in ("--ratio", f"{name}={part}")]
    found = answer(capsys, *words)
    assert found["budget"] is None
    assert len(found["lost"]) == 19
    for name, (lost, size) in found["lost"].items():
        part = [p for pattern, p in {"*": 0.75, **ratios}.items() if fnmatchcase(name, pattern)][-1]
        assert lost == math.ceil(part * size), name
        assert (found["updates"][name] == 0) == (part == 0)


@given(
    every=st.none() | st.integers(0, 99),
    named=st.dictionaries(st.from_regex(r"[a-z*][a-z.*\d=]{0,5}", fullmatch=True),
                          st.integers(0, 99), max_size=3),
    percent=st.booleans(),
)  # fmt: skip
def test_ratios_are_read(every: int | None, named: dict[str, int], percent: bool) -> None:
    def text(part: int) -> str:
        return f"{part}%" if percent else f"{part / 100}"

    items = [f"{name}={text(part)}" for name, part in named.items()]
    items += [] if every is None else [text(every)]
    wanted = {name: part / 100 for name, part in named.items()}
    read = parts_going(items)
    if named and every is not None:
        assert read == {"*": every / 100, **wanted}
    elif named:
        assert read == wanted
    else:
        assert read == (None if every is None else every / 100)


@pytest.mark.parametrize(
    "items", [["1"], ["-0.1"], ["a=1.5"], ["a"], ["=0.5"], ["a="], ["nan"], ["0.5", "0.6"],
              ["a=0.1", "a=0.2"], ["24"], ["a=100%"]],
)  # fmt: skip
def test_ratios_that_can_not_be_read_are_refused(items: list[str]) -> None:
    with pytest.raises(SelectionError, match="takes the part that goes"):
        parts_going(items)


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize("more", [[], ALL], ids=["usual", "all"])
def test_a_training_is_stopped_and_goes_on_bit_for_bit(
    more: list[str], weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def words(folder: str, *rest: str) -> list[str]:
        begun = [*SPP, *weights, "--macs", "60%", *(more or FAST[:-2]), "--epochs", "2"]
        return [*begun, *place(tmp_path, folder), *rest]

    whole = answer(capsys, *words("a"))
    with monkeypatch.context() as patched:
        stopping(patched, ByChance, 3)
        assert main(words("b")) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "b.tonsor").exists()
    assert "--resume" in refusal(capsys, *words("b"))
    again = answer(capsys, *words("b", "--resume"))
    for found in (whole, again):
        found.pop("files")
        found["proof"].pop("error")
    assert again == whole
    one, two = (load_file(tmp_path / f"{n}.tonsor") for n in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) for n in one)
    said = refusal(capsys, *words("b", "--resume", "--seed", "5"))
    assert "begun" in said


@pytest.mark.parametrize("kind", ["columns", "stripes", "channels"])
def test_it_goes_on_from_what_has_gone_already(
    kind: str, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.tonsor"
    first = [*NET, *weights, "--family", kind, "--macs", "80%", "--out", str(one)]
    keep = ["--keep", "layer1"] if kind == "stripes" else []
    answer(capsys, "prune", *first, *keep, *(["--no-measure"] if kind != "channels" else []))
    words = [*SPP, "--weights", str(one), *FAST, "--ratio", "0.5", *place(tmp_path, "two")]
    found = answer(capsys, *words)
    earlier, plan = read_plan(one), read_plan(tmp_path / "two.tonsor")
    total, loaded, _ = cut_again(tmp_path / "two.tonsor", weights)
    assert torch.isfinite(loaded).all()
    assert plan.stripes == earlier.stripes
    assert total.columns
    for name, before in earlier.columns.items():
        kept = total.columns[name].rows
        assert all(a & b == a for a, b in zip(kept, before.rows, strict=True))
    for lost, size in found["lost"].values():
        assert lost == math.ceil(0.5 * size)
    for family in ("channels", "blocks"):
        if kind != "channels":
            said = refusal(capsys, *words[:-4], "--family", family, *place(tmp_path, "three"))
            assert f"has lost {kind}, and {family} can't follow them" in said


def test_what_came_of_it_is_told(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SPP, *weights, *FAST, "--ratio", "0.5", *place(tmp_path, "a"), "--epochs", "1"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "trained by spp for 1 epoch(s), with new chances each 1 minibatch(es)" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ layer3.2.conv2"))
    assert [cell.strip() for cell in row.split("│")][2:4] == ["72", "144"]
    assert "note: training ended before the pruning did" in shown
    assert "stay in 19 convolutions" in shown
    assert "above" not in shown
    assert "prunes trained ones" not in shown
    assert main([*SPP, *FAST, "--epochs", "1", "--ratio", "0.5", *place(tmp_path, "b")]) == 0
    assert "--weights FILE prunes trained ones" in capsys.readouterr().out


def test_layers_are_measured_after_a_training_too(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = [w for w in SPP if w != "--no-measure"]
    words = [*measured, *weights, *FAST, "--ratio", "layer3.2.conv2=0.75", *place(tmp_path, "a")]
    found = answer(capsys, *words)
    assert found["columns"]["layer3.2.conv2.weight"]["left"] == 36
    assert found["execution"]["layers"].keys() == {"layer3.2.conv2"}
    assert found["latency"]["before_ms"] > 0


def test_the_help_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for family in ("channels", "columns", "stripes", "blocks"):
        assert f"- {family}: " in shown
    assert "Of --method spp." in shown


# ---------------------------------------------------------------- failing

MISTAKES = [
    (["prune", *NET, "--method", "spp", "--macs", "50%"], "--method spp needs images: --data"),
    (SPP, "Or say which part goes: --ratio 0.75"),
    ([*SPP, "--macs", "50%", "--ratio", "0.5"], "or what goes (--ratio), not both"),
    ([*SPP, "--ratio", "conv9=0.5"], "no pool of pieces is called 'conv9'"),
    ([*SPP, "--ratio", "0.5", "--threshold", "0.1"], "--threshold has no meaning for --method spp"),
    ([*SPP, "--ratio", "0.5", "--floor", "0.1"], "--floor has no meaning for --method spp"),
    ([*SPP, "--ratio", "0.5", "--rank", "global"], "--rank has no meaning for --method spp"),
    ([*SPP, "--ratio", "0.5", "--ramp", "9"], "--ramp is about --method swp, and here it is spp"),
    ([*SPP, "--ratio", "0.5", "--no-revival"], "--no-revival is about --method swp"),
    ([*SPP, "--ratio", "0.5", "--alpha", "0.1"], "--alpha 0.1 is for swp and lasso"),
    ([*SPP, "--ratio", "0.5", "--by", "taylor_weight"], "is no criterion of weights alone"),
    ([*SPP, "--ratio", "0.5", "--by", "scores.json"], "is no criterion of weights alone"),
    ([*SPP, "--ratio", "0.5", "--by", "l3"], "no criterion is called 'l3'"),
    ([*SPP, "--ratio", "0.5", "--family", "branches"], "not branches"),
    ([*SPP, "--ratio", "0.5", "--family", "blocks", "--by", "imprint"], "of weights alone"),
    ([*SPP, "--ratio", "0.5", "--schedule", "ramp:2/3"], "--schedule ramp:2/3 is none for columns"),
    ([*SPP, "--ratio", "0.5", "--recover", "compensate"], "--recover compensate"),
    (
        [*SPP, "--family", "channels", "--ratio", "0.5", "--recover", "compensate"],
        "the cut changes nothing",
    ),
    ([*SPP, "--ratio", "0.5", "--most", "2"], "above 0 and at most 1, got most=2"),
    ([*SPP, "--ratio", "0.5", "--interval", "0"], "interval is a number of steps, at least 1"),
    ([*SPP, "--budget", "latency=50%"], "a latency can't be the budget of a training"),
    ([*SPP, "--budget", "macs=1%"], "can't be met by pieces that go by chance"),
    ([*TRAIN, "--method", "swp", "--macs", "50%", "--guard", "9"], "--guard is about --method spp"),
    ([*TRAIN, "--method", "swp", "--macs", "50%", "--alpha", "adaptive"], "is for spp"),
    ([*TRAIN, "--method", "swp", "--macs", "50%", "--ratio", "0.5"], "--ratio is about channels"),
    (["prune", *NET, "--macs", "50%", "--interval", "9"], "add --method spp"),
    ([*BLIND, "--macs", "50%", "--alpha", "adaptive"], "--alpha is about training by a method"),
    (["prune", *NET, "--ratio", "0.5"], "--ratio takes NAME=KEPT"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_words(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())
