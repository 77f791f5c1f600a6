"""The command that learns by which criterion each layer is pruned, as it is typed."""

from __future__ import annotations

import inspect
import json
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
from tests.test_cli_stripes import BLIND, NET, TRAIN, filled, small, written
from tonsor.artifact import read_plan
from tonsor.cli import main, options
from tonsor.cli.along_lfpc import chosen_by, criteria_named, searched
from tonsor.cli.choose_options import Prune
from tonsor.cli.lfpc_options import Lfpc
from tonsor.errors import SelectionError
from tonsor.methods.lfpc import LearnedCriteria, prune_by_learned_criteria, search_criteria
from tonsor.methods.lfpc.search import CRITERIA, Search
from tonsor.train.data import open_data, split
from tonsor.train.recipe import Recipe

LFPC = [*TRAIN, "--method", "lfpc"]
FAST = ["--epochs", "1", "--search-epochs", "1"]
BRIEF = [*FAST, "--set", "batch=16"]  # seven steps of search: two are not enough to stop between
ALL = [
    "--criteria", "l2,lp:p=3", "--criteria", "median", "--search-epochs", "2", "--share", "0.3",
    "--cut", "given", "--rates", "0", "0.25", "0.5", "0.75", "--masks", "straight", "--warm", "2",
    "--cold", "0.5", "--among", "2", "--turns", "criteria", "--begin", "even", "--tolerance", "0.1",
    "--no-upper-tolerance", "--cost-weight", "3", "--expectation", "drawn", "--no-train-weights",
    "--refresh", "2", "--search-lr", "0.05", "--search-betas", "0.4", "0.9", "--search-decay", "0",
    "--end", "expected", "--no-exact",
]  # fmt: skip
MEANT = Search(
    rates=(0, 0.25, 0.5, 0.75), masks="straight", warm=2, cold=0.5, among=2,
    turns="criteria first", begin="even", tolerance=0.1, upper_tolerance=False, weight=3,
    expectation="drawn", train_weights=False, refresh=2, lr=0.05, betas=(0.4, 0.9), decay=0,
    end="expected", exact=False, round_to=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


# ---------------------------------------------------------------- what is learned


@pytest.mark.parametrize("family", ["channels", "stripes", "columns", "blocks"])
def test_each_layer_chooses_and_the_budget_is_met(
    family: str, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*LFPC, *weights, *FAST, "--macs", "70%", *place(tmp_path, "a")]
    words += ["--family", family] if family != "channels" else []  # which is what it is for
    found = answer(capsys, *words)
    whole = found["macs"]["before"]
    assert (0.6 if family == "blocks" else 0.68) * whole < found["macs"]["after"] <= 0.7 * whole
    assert found["reached"] == found["macs"]["after"]
    assert found["proof"]["error"] <= found["proof"]["tolerance"]
    plan = read_plan(tmp_path / "a.tonsor")
    assert (plan.made_by["family"], plan.made_by["method"]) == (family, "lfpc")
    went = {
        "columns": bool(plan.columns), "stripes": bool(plan.stripes), "channels": bool(plan.keep),
        "blocks": bool(plan.drops),
    }  # fmt: skip
    assert went[family]
    took = [site["criterion"] for site in found["sites"].values()]
    assert found["chosen"] == {by: took.count(by) for by in CRITERIA}
    assert len(took) == {"channels": 10, "blocks": 1}.get(family, 19)
    for name, site in found["sites"].items():
        assert site["criteria"][CRITERIA.index(site["criterion"])] == max(site["criteria"])
        assert 0 < site["left"] <= site["of"]
        if family == "channels":
            assert found["kept"].get(name, site["of"]) == site["left"]
    judged = answer(capsys, "eval", *NET, "--weights", str(tmp_path / "a.tonsor"), "--limit", "200")
    assert judged["correct"] == found["test"]["correct"]


def test_it_is_what_python_does(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = [word for word in ALL if word != "--no-train-weights"]  # or all cuts were the same
    words = [*LFPC, *weights, *trained, "--budget", "params=60%", "--seed", "3"]
    words += [
        "--combine",
        "sum",
        "--epochs",
        "1",
        "--lr",
        "0.02",
        "--keep",
        "layer2",
        "--round-to",
        "2",
    ]
    found = answer(capsys, *words, *place(tmp_path, "a"))
    net = filled(weights)
    recipe = Recipe(
        name="lfpc", epochs=1, batch=64, lr=0.02, nesterov=True, weight_decay=1e-4,
        schedule="cosine", choose="last", seed=3,
    )  # fmt: skip
    splits = split(open_data("digits"), limit=200)
    slim, result, wanted = prune_by_learned_criteria(
        net, tonsor.inspect(net, torch.randn(2, *splits.shape)), splits, recipe,
        budget="params=60%", criteria=("l2", "lp:p=3", "median"), combine="sum", keep=["layer2"],
        search=MEANT.but(train_weights=True), search_epochs=2, share=0.3, weights="given",
        folder=tmp_path / "python", device="cpu", quiet=True, board=False,
    )  # fmt: skip
    plan = read_plan(tmp_path / "a.tonsor")
    assert plan.keep == wanted.keep
    assert dict(plan.made_by) == json.loads(json.dumps(dict(wanted.made_by)))
    assert not any(name.startswith("layer2") for name in plan.keep)
    assert found["test"]["correct"] == result.final.correct
    saved = tonsor.load(tmp_path / "a.tonsor", small()).state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in slim.state_dict().items())


def test_defaults_are_those_of_the_engine() -> None:
    command = options.parse(["prune", *NET])
    assert isinstance(command, Prune)
    assert command.lfpc == Lfpc()
    assert searched(Lfpc()) == Search()
    assert criteria_named(()) == CRITERIA
    assert Lfpc().share == inspect.signature(search_criteria).parameters["share"].default
    both = inspect.signature(prune_by_learned_criteria).parameters
    assert (Lfpc().cut, Lfpc().search_epochs) == (both["weights"].default, None)
    assert both["search_epochs"].default is None


def test_every_option_of_a_search_can_be_typed() -> None:
    command = options.parse(["prune", *NET, *ALL, "--round-to", "2"])
    assert isinstance(command, Prune)
    assert searched(command.lfpc, command.round_to) == MEANT
    meant, usual = asdict(MEANT), asdict(Search())
    assert all(meant[name] != usual[name] for name in usual)
    assert all(getattr(command.lfpc, n) != v for n, v in asdict(Lfpc()).items() if n != "choice")


@given(items=st.lists(st.lists(
    st.sampled_from(["l1", "l2", "lp:p=3", "taylor_gate:inner=true,unit=false", "ensemble:l1+l2"]),
    min_size=1, max_size=3,
), max_size=3))  # fmt: skip
def test_criteria_are_read_with_commas_or_one_at_a_time(items: list[list[str]]) -> None:
    wanted = tuple(by for some in items for by in some)
    assert criteria_named([",".join(some) for some in items]) == (wanted or CRITERIA)
    assert criteria_named([" , ".join(some) for some in items]) == (wanted or CRITERIA)


@given(
    site=st.sampled_from(["layer1.0.conv1", "layer1.1.conv2", "layer2.0.conv1", "conv1"]),
    named=st.lists(st.tuples(
        st.sampled_from(["*", "layer1*", "layer1.0*", "conv1", "*conv2"]),
        st.sampled_from(["l1", "l2", "lp:p=3"]),
    ), min_size=1, unique_by=lambda pair: pair[0]),
)  # fmt: skip
def test_what_is_chosen_for_all_is_for_those_that_no_pattern_fits(
    site: str, named: list[tuple[str, str]]
) -> None:
    read = chosen_by([f"{p}={by}" if p != "*" else by for p, by in named], ["l1", "l2", "lp:p=3"])
    assert not isinstance(read, str)
    fits = [by for p, by in named if p != "*" and fnmatchcase(site, p)] + [
        by for p, by in named if p == "*"
    ]
    assert [by for p, by in read.items() if fnmatchcase(site, p)] == fits


@pytest.mark.parametrize(
    "items", [["l3"], ["layer1=l3"], ["=l1"], ["layer1="], ["learned", "random"], ["l1", "l2"],
              ["a=l1", "a=l2"], ["random", "a=l1"]],
)  # fmt: skip
def test_choices_that_can_not_be_read_are_refused(items: list[str]) -> None:
    with pytest.raises(SelectionError, match="--choice takes learned, random, a criterion"):
        chosen_by(items, CRITERIA)


def test_criteria_may_be_given_or_drawn_instead(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*LFPC, *weights, *FAST, "--macs", "70%"]
    said = ["--choice", "l2", "--choice", "layer3*=geometric_median"]
    found = answer(capsys, *words, *said, *place(tmp_path, "a"))
    for name, site in found["sites"].items():
        last = name.startswith("layer3")
        assert site["criterion"] == ("geometric_median" if last else "l2"), name
    drawn = answer(capsys, *words, "--choice", "random", *place(tmp_path, "b"))
    assert all(max(site["criteria"]) == 1 for site in drawn["sites"].values())
    assert len([by for by, count in drawn["chosen"].items() if count]) > 1


@pytest.mark.parametrize(
    ("family", "criteria", "sites"),
    [("channels", "l1,taylor_weight,mean_map", 10), ("blocks", "l1,imprint,taylor_gate", 1)],
)
def test_criteria_may_look_at_data(
    family: str, criteria: str, sites: int, weights: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [*LFPC, *weights, *FAST, "--macs", "70%", *place(tmp_path, "a")]
    words += ["--criteria", criteria, "--refresh", "2", "--family", family]
    found = answer(capsys, *words, "--score-batches", "2", "--score-batch", "20")
    assert list(found["chosen"]) == criteria.split(",")
    assert sum(found["chosen"].values()) == len(found["sites"]) == sites


# ---------------------------------------------------------------- going on


@pytest.mark.parametrize(
    ("more", "at"),
    [(BRIEF, 3), ([*ALL, "--epochs", "1", "--set", "batch=16"], 11)], ids=["usual", "all"],
)  # fmt: skip
def test_a_search_is_stopped_and_goes_on_bit_for_bit(
    more: list[str], at: int, weights: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def words(folder: str, *rest: str) -> list[str]:
        return [*LFPC, *weights, "--macs", "60%", *more, *place(tmp_path, folder), *rest]

    whole = answer(capsys, *words("a"))
    with monkeypatch.context() as patched:
        stopping(patched, LearnedCriteria, at)
        assert main(words("b")) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "b.tonsor").exists()
    assert "--resume" in refusal(capsys, *words("b"))
    again = answer(capsys, *words("b", "--resume"))
    once_more = answer(capsys, *words("b", "--resume"))  # when all is done already
    for found in (whole, again, once_more):
        found.pop("files")
        found["proof"].pop("error")
    assert again == whole == once_more
    one, two = (load_file(tmp_path / f"{n}.tonsor") for n in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) for n in one)
    said = refusal(capsys, *words("b", "--resume", "--seed", "5"))
    assert "begun" in said


def test_it_goes_on_from_what_has_gone_already(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.tonsor"
    columns = ["--family", "columns", "--no-measure"]
    answer(capsys, "prune", *NET, *weights, *columns, "--macs", "80%", "--out", str(one))
    words = [*LFPC, "--weights", str(one), *FAST, "--macs", "60%"]
    answer(capsys, *words, "--family", "columns", *place(tmp_path, "two"))
    earlier, plan = read_plan(one), read_plan(tmp_path / "two.tonsor")
    assert plan.columns.keys() >= earlier.columns.keys()
    for name, before in earlier.columns.items():
        kept = plan.columns[name].rows
        assert all(a & b == a for a, b in zip(kept, before.rows, strict=True))
    loaded = tonsor.load(tmp_path / "two.tonsor", filled(weights)).eval()
    assert torch.isfinite(loaded(torch.randn(2, 1, 8, 8))).all()
    for family in ("channels", "blocks"):
        said = refusal(capsys, *words, "--family", family, *place(tmp_path, "three"))
        assert f"has lost columns, and {family} can't follow them" in said


# ---------------------------------------------------------------- what is said


def test_what_came_of_it_is_told(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*LFPC, *weights, *FAST, "--macs", "60%", *place(tmp_path, "a")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    sites = read_plan(tmp_path / "a.tonsor").made_by["sites"]
    assert "searched by lfpc for 1 epoch(s), 2 steps; then trained for 1 epoch(s)" in shown
    assert shown.count("test, once, after the cut: ") == 1
    took = [site["criterion"] for site in sites.values()]
    times = ", ".join(f"{by} {took.count(by)} times" for by in CRITERIA)
    assert f"criteria, learned: {times}\n" in shown
    for name, site in sites.items():
        row = next(line for line in shown.splitlines() if line.startswith(f"│ {name} "))
        odds = f"{max(site['criteria']):.0%}"
        wanted = [site["criterion"], odds, str(site["left"]), str(site["of"])]
        assert [cell.strip() for cell in row.split("│")][2:6] == wanted
    assert "proven: pruned equals masked in float64" in shown
    assert "prunes trained ones" not in shown
    history = json.loads((tmp_path / "a" / "search" / "search.json").read_text())
    assert history["sites"] == list(sites)


def test_a_budget_that_is_missed_is_told(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*LFPC, *weights, *FAST, "--family", "blocks", "--macs", "70%", "--no-exact"]
    found = answer(capsys, *words, "--rates", "0", "0.9", *place(tmp_path, "a"))
    assert abs(found["macs"]["after"] / (0.7 * found["macs"]["before"]) - 1) > 0.05
    assert any("macs=70% is missed" in note for note in found["notes"])


def test_the_help_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Of --method lfpc. Each layer learns by which criterion it is pruned" in shown
    assert "lfpc: each layer learns by which criterion" in shown


# ---------------------------------------------------------------- failing

HALF = [*LFPC, "--macs", "50%"]
MISTAKES = [
    (["prune", *NET, "--method", "lfpc", "--macs", "50%"], "--method lfpc needs images: --data"),
    (LFPC, "say how much to keep, by one of --budget, --macs and --params"),
    ([*HALF, "--by", "l1"], "--by l1 names one criterion for all layers"),
    ([*HALF, "--family", "branches"], "by lfpc go channels, columns, stripes or blocks"),
    ([*HALF, "--ratio", "conv1=0.5"], "--ratio has no meaning for --method lfpc"),
    ([*HALF, "--rank", "global"], "--rank has no meaning for --method lfpc"),
    ([*HALF, "--floor", "0.1"], "--floor has no meaning for --method lfpc"),
    ([*HALF, "--skew", "0"], "--skew has no meaning for --method lfpc"),
    ([*HALF, "--alpha", "0.1"], "--alpha has no meaning for --method lfpc"),
    ([*HALF, "--schedule", "ramp:2/3"], "--schedule has no meaning for --method lfpc"),
    ([*LFPC, "--family", "stripes", "--threshold", "0.1"], "--threshold has no meaning for"),
    ([*LFPC, "--family", "blocks", "--remove", "2"], "--remove has no meaning for --method lfpc"),
    ([*HALF, "--recover", "compensate"], "has been trained since"),
    ([*HALF, "--guard", "9"], "--guard is about --method spp, and here it is lfpc"),
    ([*HALF, "--no-recovery"], "--no-recovery is about --method spp, and here it is lfpc"),
    ([*HALF, "--no-revival"], "--no-revival is about --method swp, and here it is lfpc"),
    ([*HALF, "--family", "stripes", "--combine", "max"], "--combine is about channels"),
    ([*HALF, "--family", "blocks", "--round-to", "2"], "--round-to is about channels"),
    ([*HALF, "--criteria", "l1,l3"], "no criterion is called 'l3'"),
    ([*HALF, "--criteria", "l1,l1"], "each criterion may be there once"),
    ([*HALF, "--family", "blocks", "--criteria", "l3"], "no criterion of blocks is called 'l3'"),
    ([*HALF, "--family", "columns", "--criteria", "apoz"], "apoz looks at data, and columns are"),
    ([*HALF, "--score-batches", "2"], "--score-batches is for criteria that look at data"),
    ([*HALF, "--choice", "l3"], "--choice takes learned, random, a criterion"),
    ([*HALF, "--choice", "layer1*=l1"], "choice says no criterion for 'conv1.weight[0]'"),
    ([*HALF, "--choice", "l1", "--turns", "rates"], "there are rates alone to learn"),
    ([*HALF, "--rates", "0", "1"], "rising from at least 0 to below 1"),
    ([*HALF, "--rates", "0", "0.1"], "can't be reached by rates up to 0.1"),
    ([*HALF, "--tolerance", "2"], "tolerance must be a number from 0 to 1"),
    ([*HALF, "--warm", "0.01"], "the temperature falls from warm=0.01"),
    ([*HALF, "--search-lr", "-1"], "--search-lr must be a number"),
    ([*HALF, "--cost-weight", "-1"], "--cost-weight must be a number"),
    ([*HALF, "--share", "1"], "share=1.0 of 200 training images leaves none"),
    ([*HALF, "--search-epochs", "0"], "--search-epochs 0"),
    ([*LFPC, "--budget", "latency=50%"], "can't be searched for"),
    ([*LFPC, "--macs", "0.1%"], "can't be reached by rates up to 0.7"),
    ([*TRAIN, "--method", "swp", "--macs", "50%", "--share", "0.3"], "is about --method lfpc"),
    ([*TRAIN, "--method", "spp", "--macs", "50%", "--no-exact"], "--no-exact is about --method"),
    (["prune", *NET, "--macs", "50%", "--criteria", "l1,l2"], "add --method lfpc"),
    ([*BLIND, "--macs", "50%", "--masks", "straight"], "add --method lfpc"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_in_words(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())
