"""The commands that list stripes, remove them, and train them away, as they are typed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor, nn

import tonsor
from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.plans import Plan
from tonsor.select.fibres import execution
from tonsor.surgery.dropping import gone
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.zoo.loading import fill

ARGS = ["--args", '{"width": 0.25, "channels": 1}']
NET = ["zoo:resnet20", *ARGS]
CUT = ["prune", *NET, "--family", "stripes"]
BLIND = [*CUT, "--no-measure"]
DIGITS = ["--data", "digits", "--limit", "200", "--quiet"]
TRAIN = ["prune", *NET, *DIGITS, "--no-measure", "--device", "cpu"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


def written(path: Path) -> list[str]:
    """Write the weights that all begin from, and say so on the command line."""
    torch.manual_seed(0)
    save_model(small(), str(path))
    return ["--weights", str(path)]


def small() -> nn.Module:
    return zoo.build("resnet20", width=0.25, channels=1)


def filled(weights: list[str]) -> nn.Module:
    net = small()
    fill(net, "resnet20", weights[1])
    return net.eval()


def cut_again(path: Path, weights: list[str]) -> tuple[Plan, Tensor, Tensor]:
    """The plan in a file, and what its model and the plan's own of the first weights compute."""
    plan, net = read_plan(path), filled(weights)
    x = torch.randn(2, 1, 32, 32)
    return plan, tonsor.load(path, net).eval()(x), plan.apply(net)(x)


# ---------------------------------------------------------------- stripes


def test_convolutions_are_listed_with_why_their_stripes_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answer(capsys, "stripes", "zoo:resnet50")
    by_name = {x["name"]: x for x in found["layers"]}
    assert by_name["layer1.0.conv2"]["free"]
    assert by_name["layer1.0.conv2"]["stripes"] == 64 * 9
    assert "one position" in by_name["layer1.0.conv1"]["reason"]
    assert all(x["free"] == (x["kernel"] != [1, 1]) for x in found["layers"])
    assert found["free"] == sum(x["free"] for x in found["layers"]) == 17
    assert found["structure"] is None
    assert main(["stripes", *NET]) == 0
    assert "19 convolutions, of which 19 may lose stripes" in capsys.readouterr().out
    assert main(["inspect", *NET]) == 0
    assert "19 of 19 convolutions may lose stripes; `tonsor stri" in capsys.readouterr().out


def test_what_is_left_is_shown_of_a_file_and_of_a_plan(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slim, plan = tmp_path / "slim.tonsor", tmp_path / "plan.json"
    words = [*BLIND, *weights, "--macs", "50%", "--keep", "layer1"]
    answer(capsys, *words, "--out", str(slim), "--plan", str(plan))
    net = tonsor.load(slim, small())
    held = {n: len(m.weight) for n, m in net.named_modules() if isinstance(m, StripeConv2d)}
    found = answer(capsys, "stripes", *NET, "--weights", str(slim))
    for layer in found["layers"]:
        conv = dict(net.named_modules()).get(layer["name"])
        whole = conv.weight[:, 0].numel() if type(conv) is nn.Conv2d else 0
        assert layer["left"] == held.get(layer["name"], whole)
        if layer["name"] in held:
            line = f"({layer['name']}): Strip({conv.in_channels},{layer['left']}"  # type: ignore
            assert any(line in text for text in found["structure"])
    assert answer(capsys, "stripes", *NET, *weights, "--plan", str(plan)) == found
    assert main(["stripes", *NET, "--weights", str(slim)]) == 0
    shown = capsys.readouterr().out
    assert f"{sum(held.values()):,} of " in shown
    said = refusal(capsys, "stripes", *NET, "--weights", str(slim), "--plan", str(plan))
    assert "has a plan of its own" in said


def test_what_is_left_is_drawn(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, figure = tmp_path / "plan.json", tmp_path / "left.svg"
    answer(capsys, *BLIND, *weights, "--macs", "50%", "--plan", str(plan))
    words = ["stripes", *NET, *weights]
    found = answer(capsys, *words, "--plan", str(plan), "--figure", str(figure))
    data = json.loads(figure.with_suffix(".json").read_text())
    assert data["kernel"] == [3, 3]
    for layer in found["layers"]:
        shares = data["positions"][layer["name"]]
        assert len(shares) == 9
        assert layer["filters"] * sum(shares) == pytest.approx(layer["left"], abs=1e-3)
    assert figure.read_text().startswith("<svg")
    assert "say of what" in refusal(capsys, *words, "--figure", str(figure))
    assert "ends in .svg" in refusal(capsys, *words, "--plan", str(plan), "--figure", "a.png")


def test_blocks_that_went_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slim = tmp_path / "slim.tonsor"
    cut = ["prune", *NET, "--family", "blocks", "--remove", "layer1.1", "--no-measure"]
    answer(capsys, *cut, "--out", str(slim))
    layers = answer(capsys, "stripes", *NET, "--weights", str(slim))["layers"]
    assert {x["name"] for x in layers if x["left"] == 0} == {"layer1.1.conv1", "layer1.1.conv2"}
    assert main(["stripes", *NET, "--weights", str(slim)]) == 0
    assert capsys.readouterr().out.count("went with its block") == 2


# ---------------------------------------------------------------- prune, at once


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--budget", "macs=40%"], {"budget": "macs=40%"}),
        (["--threshold", "1.1", "--floor", "0.5"], {"threshold": 1.1, "floor": 0.5}),
        (
            ["--params", "60%", "--by", "l1", "--rank", "per_layer", "--keep", "layer2"],
            {"budget": "params=60%", "by": "l1", "rank": "per_layer", "keep": ["layer2"]},
        ),
    ],
)
def test_stripes_go_as_they_do_in_python(
    words: list[str], options: dict[str, Any], weights: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "slim.tonsor"
    found = answer(capsys, *BLIND, *weights, *words, "--out", str(out))
    wanted = tonsor.plan_stripes(
        tonsor.inspect(filled(weights), torch.randn(1, 1, 32, 32)), **options
    )
    plan, loaded, applied = cut_again(out, weights)
    assert (plan.stripes, plan.keep) == (wanted.stripes, wanted.keep)
    torch.testing.assert_close(loaded, applied)
    assert found["proof"]["error"] <= found["proof"]["tolerance"]
    slim = tonsor.load(out, small())
    assert sum(p.numel() for p in slim.parameters()) == found["params"]["after"]
    left = {n: s["left"] for n, s in found["stripes"].items()}
    assert left == {n: s.left for n, s in wanted.cut().fibres.items()}
    assert found["latency"] is None


def test_a_criterion_may_look_at_data(
    weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*BLIND, *weights, "--by", "taylor_weight", "--macs", "60%"]
    assert "--by taylor_weight needs images" in refusal(capsys, *words)
    by_data = answer(capsys, *words, *DIGITS, "--score-batches", "2")["stripes"]
    by_norm = answer(capsys, *BLIND, *weights, *DIGITS, "--macs", "60%")["stripes"]
    assert by_data != by_norm


def test_how_layers_run_is_measured_told_and_kept(
    weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out, seen = tmp_path / "slim.tonsor", {}

    class Timing:
        def __init__(self, name: str, run: str) -> None:
            self.name, self.run = name, run
            self.dense_ms, self.fibres_ms = (2.5, 1.25) if run == "stripes" else (1.5, 3.5)

    def fastest(slim: nn.Module, plan: Plan, inputs: Any, **options: Any) -> Any:
        seen.update(threads=torch.get_num_threads(), sizes=[len(t) for _, t in inputs.tensors()])
        stripes = {
            name: replace(s, run="stripes" if "layer3" in name else "dense")
            for name, s in plan.stripes.items()
        }
        for name, kept in stripes.items():
            layer: Any = slim.get_submodule(name.removesuffix(".weight"))
            layer.run = kept.run
        timings = tuple(Timing(n.removesuffix(".weight"), s.run) for n, s in stripes.items())
        layers = {t.name: [t.dense_ms, t.fibres_ms] for t in timings}
        made = {**plan.made_by, "execution": {"conditions": "batch 3", "layers": layers}}
        return replace(plan, fibres=stripes, made_by=made), timings

    monkeypatch.setattr(execution, "fastest", fastest)
    words = [*CUT, *weights, "--macs", "50%", "--batch", "3", "--threads", "1", "--quiet"]
    found = answer(capsys, *words, "--out", str(out))
    assert seen == {"threads": 1, "sizes": [3]}
    assert found["execution"]["conditions"] == "batch 3"
    assert found["execution"]["layers"]["layer3.2.conv2"] == [2.5, 1.25]
    assert {n: s["run"] for n, s in found["stripes"].items()} == {
        n: "stripes" if "layer3" in n else "dense" for n in found["stripes"]
    }
    assert "batch 3" in found["latency"]["conditions"]
    slim: Any = tonsor.load(out, small())
    assert (slim.layer3[0].conv1.run, slim.layer1[0].conv1.run) == ("stripes", "dense")
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "in 19 convolutions, 6 of which run by stripes" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ layer3.0.conv1"))
    assert [cell.strip() for cell in row.split("│")][3:6] == ["2.5", "1.25", "stripes"]
    seen.clear()
    blind = answer(capsys, *words, "--no-measure")
    assert seen == {}
    assert blind["execution"] is None
    assert {s["run"] for s in blind["stripes"].values()} == {""}


def test_layers_are_really_measured(weights: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    keep = [w for n in ("conv1", "layer1", "layer2", "layer3.0") for w in ("--keep", n)]
    found = answer(capsys, *CUT, *weights, *keep, "--threshold", "0.9", "--quiet")
    timed = found["execution"]["layers"]
    assert timed.keys() == {n.removesuffix(".weight") for n in found["stripes"]}
    assert all(dense > 0 and stripes > 0 for dense, stripes in timed.values())
    assert {s["run"] for s in found["stripes"].values()} <= {"dense", "stripes"}


def test_statistics_are_taken_anew_after_stripes_too(
    weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*BLIND, *weights, *DIGITS, "--macs", "40%", "--recover"]
    found = answer(capsys, *words, "batchnorm")["recovery"]["stages"]
    assert found["batchnorm"]["error"] != found["cut"]["error"]
    assert "compensate makes up for channels" in refusal(capsys, *words, "compensate")


# ---------------------------------------------------------------- one after the other


@pytest.mark.parametrize(
    "first",
    [
        ["--macs", "60%"],
        ["--family", "blocks", "--remove", "layer1.1", "--remove", "layer3.2", "--no-measure"],
    ],
    ids=["channels", "blocks"],
)
def test_stripes_follow_channels_blocks_and_stripes(
    first: list[str], weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three = (tmp_path / f"{n}.tonsor" for n in "abc")
    before = answer(capsys, "prune", *NET, *weights, *first, "--out", str(one))
    begun = answer(capsys, *BLIND, "--weights", str(one), "--macs", "60%", "--out", str(two))
    assert begun["params"]["before"] == before["params"]["after"]
    plan, loaded, applied = cut_again(two, weights)
    assert plan.drops == read_plan(one).drops
    assert plan.stripes
    torch.testing.assert_close(loaded, applied)
    again = [*BLIND, "--weights", str(two), "--macs", "40%"]
    went_on = answer(capsys, *again, "--by", "random", "--out", str(three))
    assert went_on["params"]["after"] < begun["params"]["after"]
    assert went_on["macs"]["before"] == begun["macs"]["before"]
    assert any("some stripes or columns were gone already" in note for note in went_on["notes"])
    total, loaded, applied = cut_again(three, weights)
    torch.testing.assert_close(loaded, applied)
    assert {d.name for d in total.drops} >= {d.name for d in plan.drops}
    for name, earlier in plan.cut().fibres.items():
        if not gone(total.drops, name):
            kept = total.cut().fibres[name]
            assert all(a & b == a for a, b in zip(kept.rows, earlier.rows, strict=True))
    seeds = [answer(capsys, *again, "--seed", seed)["stripes"] for seed in "12"]
    assert seeds[0] == seeds[1]  # the weights that were thrown away have no say
    for family in ("channels", "blocks", "branches"):
        words = ["prune", *NET, "--weights", str(two), "--family", family, "--macs", "50%"]
        said = refusal(capsys, *words, "--by", "l1")
        assert f"has lost stripes, and {family} can't follow them" in said


# ---------------------------------------------------------------- failing

SWP = [*TRAIN, "--method", "swp"]
MISTAKES = [
    (CUT, "Or say by --threshold which stripes go"),
    ([*CUT, "--macs", "50%", "--threshold", "0.4"], "or what goes (--threshold), not both"),
    ([*CUT, "--budget", "latency=50%"], "a latency can't be the budget of stripes"),
    (
        [*CUT, "--macs", "10%", "--keep", "layer1"],
        "can't be met by stripes: the least that can be left is",
    ),
    ([*CUT, "--macs", "50%", "--by", "bn_scale"], "choose a criterion of weights"),
    ([*CUT, "--macs", "50%", "--by", "l3"], "no criterion is called 'l3'"),
    ([*CUT, "--macs", "50%", "--keep", "layer9"], "layer9"),
    ([*CUT, "--macs", "50%", "--rank", "isomorphic"], "--rank isomorphic is for channels"),
    (["prune", *NET, "--macs", "50%", "--rank", "per_layer"], "--rank per_layer is for stripes"),
    ([*CUT, "--macs", "50%", "--ratio", "conv1=0.5"], "--ratio is about channels"),
    ([*CUT, "--macs", "50%", "--round-to", "8", "--skew", "0"], "--skew and --round-to is about"),
    ([*CUT, "--macs", "50%", "--combine", "max"], "--combine is about channels"),
    ([*CUT, "--remove", "2"], "--remove says which blocks go"),
    ([*CUT, "--macs", "50%", "--schedule", "ramp:2/3"], "by --method swp --ramp N"),
    ([*CUT, "--macs", "50%", "--alpha", "1", "--no-revival"], "--alpha and --no-revival is about"),
    ([*CUT, "--macs", "50%", "--epochs", "3"], "train what comes out by `tonsor finetune`"),
    ([*CUT, "--macs", "50%", "--resume"], "--resume is about training"),
    (
        ["prune", *NET, "--threshold", "0.4"],
        "--threshold is about stripes and columns, and channels",
    ),
    (
        ["prune", *NET, "--family", "blocks", "--method", "swp", "--macs", "50%"],
        "--method swp trains stripes away, and blocks go here",
    ),
    (["prune", *NET, "--method", "swp", "--macs", "50%"], "--method swp needs images: --data"),
    (SWP, "Or say by --threshold which stripes go"),
    ([*SWP, "--macs", "50%", "--by", "l1"], "--by is about scores"),
    ([*SWP, "--macs", "50%", "--rank", "global"], "--rank is about scores"),
    ([*SWP, "--macs", "50%", "--no-revival"], "--no-revival is for --threshold"),
    ([*SWP, "--threshold", "0.01", "--ramp", "9"], "--ramp is how the cost comes down"),
    ([*SWP, "--macs", "50%", "--ramp", "0"], "ramp is a number of steps, at least 1"),
    ([*SWP, "--threshold", "0.01", "--alpha", "-1"], "alpha is the weight of the penalty"),
    (
        [*TRAIN, "--method", "lasso", "--macs", "50%", "--start", "ones", "--skeleton-only"],
        "--start and --skeleton-only is about skeletons",
    ),
    (["stripes", *NET, "--plan", "none.json"], "none.json"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_words(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())
