"""The commands that list, score, time and remove blocks, as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

import tonsor
from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.cli.chosen_blocks import batches_seen, looks_at_data
from tonsor.cli.options import parse
from tonsor.cli.study_layerprune import layerprune_study
from tonsor.cli.timing import bench_of
from tonsor.cost.bench import Bench
from tonsor.cost.engines import registry
from tonsor.cost.latency import Latency, Timing
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import SelectionError
from tonsor.study.base import Base
from tonsor.study.layerprune import LayerPruneStudy
from tonsor.zoo.loading import fill

ARGS = ["--args", '{"width": 0.25, "channels": 1}']
NET = ["zoo:resnet20", *ARGS]
CUT = ["prune", *NET, "--family", "blocks"]
DIGITS = ["--data", "digits", "--limit", "200", "--quiet"]
STAY = {"layer2.0", "layer3.0"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("base") / "net.safetensors"
    save_model(small(), str(path))
    return ["--weights", str(path)]


def small() -> nn.Module:
    return zoo.build("resnet20", width=0.25, channels=1)


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is the number of parameters, so that what is measured is known beforehand."""

    def measure(bench: Bench, models: Any, inputs: Any = None, **_: Any) -> Latency:
        times = {n: float(sum(p.numel() for p in m.parameters())) for n, m in models.items()}
        return Latency(
            {n: Timing(t, t, t) for n, t in times.items()}, rounds=bench.rounds,
            threads=bench.threads or 1, batch=bench.batch or 0, device="cpu", dtype="float32",
            engine=bench.engine, samples={n: [t] * 9 for n, t in times.items()},
        )  # fmt: skip

    monkeypatch.setattr(Bench, "ready", lambda bench, model, inputs: model)
    monkeypatch.setattr(Bench, "measure", measure)


# ---------------------------------------------------------------- blocks


def test_blocks_are_listed_with_what_goes_with_them_and_why_the_rest_stays(
    weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "blocks", *NET, *weights)
    assert len(found["blocks"]) == 9
    assert {b["name"] for b in found["blocks"] if not b["removable"]} == STAY
    assert all(bool(b["reason"]) == (b["name"] in STAY) for b in found["blocks"])
    assert main(["blocks", *NET]) == 0
    assert "9 blocks, of which 7 may go" in capsys.readouterr().out
    assert main(["inspect", *NET]) == 0
    assert "9 blocks, 7 may go; `tonsor blocks` lists them" in capsys.readouterr().out
    one = next(b for b in found["blocks"] if b["name"] == "layer2.1")
    cut = answer(capsys, *CUT, *weights, "--remove", "layer2.1")
    for cost in ("macs", "params"):
        assert cut[cost]["before"] - cut[cost]["after"] == one[cost] > 0


def test_branches_are_blocks_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        [b["name"] for b in answer(capsys, "blocks", *NET, "--level", level)["blocks"]]
        for level in ("block", "branch")
    ]
    assert len(names[1]) == len(names[0])  # these have one branch each
    family = ["prune", *NET, "--family", "branches", "--by", "l2", "--remove", "1"]
    assert len(answer(capsys, *family)["gone"]) == 1


def test_scores_are_shown_saved_drawn_and_cut_by(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, figure = tmp_path / "scores.json", tmp_path / "blocks.svg"
    words = ["blocks", *NET, *weights, *DIGITS, "--by", "imprint", "--score-batches", "4"]
    found = answer(capsys, *words, "--out", str(scores), "--figure", str(figure))
    order = found["scores"]["order"]
    assert set(order) == {b["name"] for b in found["blocks"]} - STAY
    assert [b["goes"] for b in found["blocks"] if b["name"] == order[0]] == [1]
    read = BlockScores.from_json(json.loads(scores.read_text("utf-8")))
    assert read.ranking(order) == tuple(order)
    assert read.curve is not None
    assert figure.read_text("utf-8").startswith("<svg")
    assert (tmp_path / "blocks-accuracy.svg").exists()
    cut = answer(capsys, *CUT, *weights, "--by", str(scores), "--remove", "3")
    assert set(cut["gone"]) == set(order[:3])
    shown = answer(capsys, "blocks", *NET, "--by", str(scores))
    assert shown["scores"]["values"] == found["scores"]["values"]


def test_imprints_are_judged_where_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["blocks", *NET, *DIGITS, "--by", "imprint"]
    judged = [
        answer(capsys, *words, "--judge", on)["scores"]["conditions"]
        for on in ("validation", "test")
    ]
    assert judged[0] != judged[1]


def test_time_tells_how_well_the_sum_tells_the_whole(
    weighed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "blocks", *NET, "--time", "--batch", "3", "--quiet")
    latency = found["latency"]
    assert "batch 3, 1 thread" in latency["conditions"]
    going = [b for b in found["blocks"] if b["removable"]]
    assert [b["ms"] for b in going] == [b["params"] for b in going]
    assert all(b["ms"] is None for b in found["blocks"] if not b["removable"])
    assert latency["whole_ms"] == sum(p.numel() for p in small().parameters())
    assert latency["predicted_ms"] == latency["whole_ms"]
    assert latency["error"] == 0


@pytest.mark.slow
def test_time_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blocks", *NET, "--time", "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "eager, cpu, float32, batch 1, 1 thread" in shown
    assert re.search(r"the whole was measured at [\d.]+ ms \(.*\): [+-]\d+\.\d%", shown)


# ---------------------------------------------------------------- prune


def test_blocks_go_by_number_name_and_budget(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_number = answer(capsys, *CUT, *weights, "--by", "l1", "--remove", "2")
    assert len(by_number["gone"]) == 2
    out = tmp_path / "slim.tonsor"
    named = [w for n in by_number["gone"] for w in ("--remove", n)]
    by_name = answer(capsys, *CUT, *weights, *named, "--out", str(out))
    assert by_name["gone"] == by_number["gone"]
    assert by_name["latency"]["interval"][0] <= by_name["latency"]["ratio"]
    assert by_name["proof"]["error"] <= by_name["proof"]["tolerance"]
    slim = tonsor.load(str(out), small())
    assert sum(p.numel() for p in slim.parameters()) == by_name["params"]["after"]
    kept = answer(capsys, *CUT, "--by", "l1", "--budget", "pieces=60%", "--keep", "layer1.*")
    assert kept["gone"]
    assert not any(n.startswith("layer1") for n in kept["gone"])


def test_a_latency_is_met_by_as_few_blocks_as_can(
    weights: list[str], weighed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*weights, "--by", "l1"]
    whole = sum(p.numel() for p in small().parameters())
    listed = answer(capsys, "blocks", *NET, *words)
    size, left = {b["name"]: b["params"] for b in listed["blocks"]}, whole
    gone = []
    for name in listed["scores"]["order"]:
        if left <= 0.75 * whole:
            break
        gone.append(name)
        left -= size[name]
    words += ["--batch", "4", "--quiet", "--budget", "latency=75%"]
    found = answer(capsys, *CUT, *words)
    assert sorted(found["gone"]) == sorted(gone)
    latency = found["latency"]
    assert (latency["before_ms"], latency["after_ms"]) == (whole, left)
    assert latency["ratio"] == pytest.approx(left / whole)
    assert "batch 4" in latency["conditions"]
    assert found["predicted_ms"] == left


def test_a_latency_is_met_by_channels(
    weights: list[str], weighed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["prune", *NET, *weights, "--quiet", "--engine", "compile"]
    found = answer(capsys, *cut, "--budget", "latency=85%")
    assert 0.8 < found["params"]["after"] / found["params"]["before"] <= 0.85
    assert found["latency"]["conditions"].startswith("compile")
    asked = answer(capsys, *cut, "--params", "85%")["latency"]
    assert asked["conditions"].startswith("compile")
    assert answer(capsys, *cut[:-2], "--params", "85%")["latency"] is None


@pytest.mark.parametrize("first", ["blocks", "channels"])
def test_a_cut_goes_on_from_one_of_the_other_family(
    first: str, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.tonsor", tmp_path / "two.tonsor"
    cuts = {
        "blocks": [*CUT, "--remove", "layer1.1", "--remove", "layer3.2"],
        "channels": ["prune", *NET, "--macs", "70%"],
    }
    second = "channels" if first == "blocks" else "blocks"
    before = answer(capsys, *cuts[first], *weights, "--out", str(one))
    after = answer(capsys, *cuts[second], "--weights", str(one), "--out", str(two))
    assert after["params"]["before"] == before["params"]["after"]
    total, net = read_plan(two), small()
    assert {d.name for d in total.drops} == {"layer1.1", "layer3.2"}
    assert total.keep
    slim = tonsor.load(str(two), net)
    fill(net, "resnet20", weights[1])
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(slim(x), total.apply(net)(x))


def test_statistics_are_taken_anew_after_blocks_too(
    weights: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*CUT, *weights, *DIGITS, "--remove", "layer1.1", "--recover"]
    found = answer(capsys, *words, "batchnorm")["recovery"]["stages"]
    assert found["batchnorm"]["error"] != found["cut"]["error"]
    assert "compensate makes up for channels" in refusal(capsys, *words, "compensate")


def test_blocks_go_one_by_one_with_training_between(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "slim.tonsor", tmp_path / "run"
    words = [*CUT, *weights, *DIGITS, "--schedule", "iterative:1", "--by", "cosine"]
    words += ["--run", str(run)]
    once = answer(capsys, *words, "--remove", "1")
    assert once["steps"][0]["gone"] == once["gone"]
    assert (run / "step1" / "run.toml").exists()
    assert "go on with it by --resume" in refusal(capsys, *words, "--remove", "2")
    trained = (run / "step1.tonsor").stat().st_mtime_ns
    twice = answer(capsys, *words, "--remove", "2", "--resume", "--out", str(out))
    assert (run / "step1.tonsor").stat().st_mtime_ns == trained
    assert next(s["gone"] for s in twice["steps"]) == once["gone"]
    assert len(twice["gone"]) == 2
    assert twice["proof"]["error"] <= twice["proof"]["tolerance"]
    slim = tonsor.load(str(out), small())
    plain = read_plan(out).apply(small())
    assert [p.shape for p in slim.parameters()] == [p.shape for p in plain.parameters()]
    assert "has removed 2 blocks, not 1" in refusal(capsys, *words, "--remove", "1", "--resume")


# ---------------------------------------------------------------- failing

MISTAKES = [
    ([*CUT, "--remove", "layer9.1"], "no block is called 'layer9.1'; the blocks are layer1.0, lay"),
    ([*CUT, "--remove", "layer2.0"], "block 'layer2.0' may not go: it turns"),
    ([*CUT, "--remove", "8", "--by", "l1"], "8 blocks can't go: only 7"),
    ([*CUT, "--remove", "2"], "--by imprint needs images: --data"),
    ([*CUT, "--remove", "2", "--by", "l3"], "no criterion of blocks is called 'l3'"),
    ([*CUT, "--by", "l1"], "Or say which blocks go: --remove 4"),
    ([*CUT, "--by", "l1", "--remove", "2", "--macs", "50%"], "not both"),
    ([*CUT, "--remove", "2", "--remove", "layer1.1"], "takes one number"),
    ([*CUT, "--remove", "-2"], "takes one number"),
    ([*CUT, "--remove", "1", "--ratio", "conv1=0.5", "--skew", "0"], "--skew and --ratio is about"),
    ([*CUT, "--remove", "1", "--round-to", "8"], "--round-to is about channels"),
    ([*CUT, "--remove", "1", "--head-dims"], "--head-dims is about channels"),
    ([*CUT, "--remove", "1", "--combine", "max"], "--combine is about channels"),
    ([*CUT, "--remove", "1", "--schedule", "ramp:2/3"], "is none for blocks"),
    ([*CUT, "--macs", "50%", "--schedule", "iterative:1", "--by", "l1"], "number of blocks to go"),
    ([*CUT, "--remove", "3", "--schedule", "iterative:2", "--by", "l1"], "no multiple of the 2"),
    ([*CUT, "--remove", "1", "--schedule", "iterative:1", "--by", "l1"], "needs images"),
    ([*CUT, "--by", "l1", "--budget", "latency=1%"], "Ask for latency="),
    ([*CUT, "--by", "l1", "--budget", "macs=1%"], "Ask for macs="),
    ([*CUT, "--by", "none.json", "--remove", "1"], "can't be read as scores of blocks"),
    ([*CUT, "--remove", "layer1.1", "--engine", "eagre"], "did you mean 'eager'"),
    (["prune", *NET, "--remove", "2"], "add --family blocks"),
    (["prune", *NET, "--budget", "latency=50%", "--schedule", "iterative:9/1"], "at once only"),
    (["blocks", *NET, "--out", "scores.json"], "--out keeps scores"),
    (["blocks", *NET, "--by", "l1", "--figure", "blocks.png"], "ends in .svg"),
    (["blocks", *NET, "--by", "taylor_gate"], "looks at data: --data"),
    (["blocks", *NET, "--by", "ensemble"], "looks at data: --data"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_words(
    words: list[str], said: str, weighed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_scores_of_channels_are_none_of_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scores.json"
    assert main(["score", *NET, "--by", "l1", "--out", str(path)]) == 0
    said = refusal(capsys, *CUT, "--by", str(path), "--remove", "1")
    assert "these are no scores of blocks" in said
    assert "`tonsor blocks --by CRITERION --out FILE.json` writes some" in said


def test_an_engine_that_is_not_installed_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tonsor.cost.engines.exported import lacking

    absent = registry.Engine(
        "absent", lambda m, i, t: lambda: None, lacking("no_such_package"), 3, False, (), list
    )  # fmt: skip
    monkeypatch.setitem(registry._ENGINES, "absent", absent)
    for words in ([*CUT, "--remove", "layer1.1"], ["blocks", *NET, "--time"]):
        said = refusal(capsys, *words, "--engine", "absent")
        assert "pip install 'tonsor[engines]'" in said
    assert main(["list", "engines"]) == 0
    assert "no_such_package must be installed" in capsys.readouterr().out
    found = answer(capsys, "doctor")
    assert found["engine eager"] == "available"
    assert "tonsor[engines]" in found["engine absent"]


# ---------------------------------------------------------------- small print


def test_ensembles_look_at_data_if_one_of_their_voters_does() -> None:
    assert looks_at_data("ensemble")
    assert looks_at_data("ensemble:l1+taylor_gate")
    assert looks_at_data("ensemble:inner=true")
    assert not looks_at_data("ensemble:l1+bn_scale,inner=true")
    assert not looks_at_data("l2:squared=true")
    with pytest.raises(SelectionError, match="'l9'"):
        looks_at_data("ensemble:l1+l9")


def test_what_learns_sees_everything() -> None:
    assert batches_seen(None, "imprint:first=stem") is None
    assert batches_seen(3, "imprint") == 3
    assert batches_seen(None, "taylor_gate") == 8


def test_one_sample_is_timed_unless_something_else_is_said() -> None:
    def batch(*words: str) -> int | None:
        command: Any = parse(["blocks", "zoo:resnet20", *words])
        return bench_of(command.timed, command.device, command.source).batch

    assert batch() == 1
    assert batch("--input", "8,3,32,32") is None
    assert batch("--input", "8,3,32,32", "--batch", "2") == 2


# ---------------------------------------------------------------- study


def test_the_study_is_as_large_as_the_network_allows(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_model(zoo.build("resnet20", channels=1), str(path))
    base = Base(network="resnet20", weights=str(path), data="digits", images=60)
    whole = layerprune_study(base, (), 7, (0,))
    usual = LayerPruneStudy(base=base)
    assert (whole.by, whole.main, whole.others) == (usual.by, "imprint", (2, 4))
    assert whole.filters == (100, 200, 300)  # of 336
    assert whole.deep == ()
    small = layerprune_study(base, ("cosine", "l2"), 1, (0,))
    assert (small.main, small.others, small.scratch, small.tuned_others) == ("cosine", (1,), 1, ())
    with pytest.raises(SelectionError, match="from 1 to 7"):
        layerprune_study(base, (), 8, (0,))


@pytest.mark.slow
def test_the_study_writes_tables_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "net.safetensors", tmp_path / "study"
    net = zoo.build("resnet20", channels=1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # all alike, some criteria can't rank them
    save_model(net, str(path))
    words = [
        "study", "layerprune", "resnet20", "--weights", str(path), "--data", "digits", "--images",
        "60", "--seeds", "1", "--most", "1", "--by", "cosine", "--out", str(out), "--quiet",
    ]  # fmt: skip
    found = answer(capsys, *words)
    assert any(r["settings"]["kind"] == "blocks" for r in found.values())
    assert "Blocks removed by cosine" in (out / "table.md").read_text("utf-8")
    assert (out / "importance.svg").exists()
