"""The command line: what it takes, what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

import tonsor
from tonsor.axes.registry import RULES
from tonsor.cli import doctor as cli_doctor
from tonsor.cli import made, main, options
from tonsor.cli import prune as cli_prune
from tonsor.cli.choose_options import Ranking
from tonsor.cli.model import build, fill, find, read_inputs
from tonsor.cli.show import console, show_table
from tonsor.cost.conventions import CONVENTIONS
from tonsor.cost.engines.registry import ENGINES
from tonsor.criteria.blocks.score import block_criteria
from tonsor.criteria.registry import CRITERIA
from tonsor.criteria.rows import Combine
from tonsor.errors import SelectionError
from tonsor.methods.swp.run import StripeMethod
from tonsor.select.fibres.make import FibreRank
from tonsor.select.rank import Rank
from tonsor.zoo.registry import ZOO

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3)
        self.second = nn.Conv2d(width, 2 * width, 3)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.head(x.mean((2, 3)))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.hidden = nn.Linear(16, 32)
        self.out = nn.Linear(32, 5)

    def forward(self, ids, mask):
        x = self.embed(ids) * mask[..., None]
        return self.out(self.hidden(x.mean(1)).relu())


class Shelf:
    net = Net(4)


def make(width=8):
    return Net(width)


def nothing():
    return None


ready = Net(12)
number = 3
"""
INPUT = ("--input", "1,3,12,12")
FLAGS = {
    "inspect": {"--json"},
    "explain": {"--json"},
    "prune": {
        "--family", "--budget", "--macs", "--params", "--remove", "--rank", "--keep",
        "--ratio", "--skew", "--round-to", "--floor", "--schedule", "--recover", "--no-verify",
        "--out", "--plan", "--json",
        "--recipe", "--epochs", "--lr", "--set", "--run", "--resume", "--device", "--quiet",
        "--engine", "--threads", "--batch",
        "--threshold", "--method", "--alpha", "--start", "--no-revival", "--skeleton-only",
        "--ramp", "--every", "--no-measure",
        "--interval", "--most", "--centre", "--shape", "--scores", "--history", "--no-recovery",
        "--guard", "--elementwise", "--gradient",
        "--criteria", "--choice", "--search-epochs", "--share", "--cut", "--rates", "--masks",
        "--warm", "--cold", "--among", "--turns", "--begin", "--tolerance", "--no-upper-tolerance",
        "--cost-weight", "--expectation", "--no-train-weights", "--refresh", "--search-lr",
        "--search-betas", "--search-decay", "--end", "--no-exact", "--stripe-group",
    },
    "stripes": {"--plan", "--figure", "--json"},
    "columns": {"--plan", "--json"},
    "blocks": {
        "--level", "--by", "--score-batches", "--score-batch", "--judge", "--time", "--engine",
        "--threads", "--batch", "--device", "--out", "--figure", "--quiet", "--json",
    },
    "score": {"--layers", "--out", "--figure", "--json"},
    "sensitivity": {
        "--layers", "--kept", "--worst", "--processes", "-o", "--out", "--resume", "--quiet",
        "--json",
    },
    "study": {
        "--weights", "-d", "--data", "--mean", "--std", "--by", "--kept", "--most", "--seeds",
        "--images", "--epochs", "--processes", "-o", "--out", "--quiet", "--json", "--traceback",
    },
    "list": {"--json"},
    "deploy": {"--way", "--rounds", "--margin", "--threads", "--batch", "--json"},
    "doctor": {"--build", "--clean", "--strict", "--json"},
    "demo": {"--out"},
    "train": {"--weights", "--json"},
    "finetune": {"--weights", "--teacher", "--json"},
    "eval": {"--weights", "--on", "--batch", "--device", "--json"},
}  # fmt: skip
IMAGE_FLAGS = {
    "--args", "--traceback", "-d", "--data", "--validation", "--limit", "--size", "--strict",
    "--mean", "--std", "--split-seed",
}  # fmt: skip
HOW_FLAGS = {
    "--recipe", "--epochs", "--batch", "--lr", "--seed", "--set", "-o", "--out", "--resume",
    "--device", "--no-board", "--quiet",
}  # fmt: skip
RANKING_FLAGS = {"--by", "--combine", "--score-batches", "--score-batch"}
SOURCE_FLAGS = {
    "-i", "--input", "--args", "--weights", "--seed", "--head-dims", "--traceback",
}  # fmt: skip

Tonsor = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of models, and nothing left of it afterwards."""
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [n for n in sys.modules if n.startswith("nets")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.fixture
def cli(here: Path, capsys: pytest.CaptureFixture[str]) -> Tonsor:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def help_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


# ---------------------------------------------------------------- what it takes


@pytest.mark.parametrize("command", FLAGS)
def test_the_flags_are_these_and_no_others(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new flag is a promise to keep; add it here only when it is meant."""
    rows = re.findall(r"^[│ ] (--?[a-z].*)", help_of(command, capsys=capsys), re.MULTILINE)
    found = {flag for row in rows for flag in re.findall(r"(?:^|, )(--?[a-z-]+)", row)}
    ranking = ("score", "sensitivity", "prune")
    source, images = (
        ("inspect", "explain", "blocks", "stripes", "columns", "deploy"),
        ("train", "finetune", "eval", "blocks"),
    )
    shared = SOURCE_FLAGS if command in (*source, *ranking) else set()
    shared = shared | (RANKING_FLAGS if command in ranking else set())
    shared = shared | (IMAGE_FLAGS if command in (*images, *ranking) else set())
    shared = shared | (HOW_FLAGS if command in ("train", "finetune") else set())
    assert found == FLAGS[command] | shared | {"-h", "--help"}


def test_the_commands_are_these_and_no_others() -> None:
    assert options.COMMANDS.keys() == FLAGS.keys()


@pytest.mark.parametrize("command", FLAGS)
def test_help_teaches_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys=capsys)
    example = re.search(rf"^\$ tonsor ({command}\b.*)", text, re.MULTILINE)
    assert example, text
    assert isinstance(options.parse(example[1].split()), options.COMMANDS[command])


def test_ranks_are_those_of_the_engine() -> None:
    wanted, _ = get_args(get_type_hints(options.Prune)["rank"])
    assert set(get_args(wanted)) == {*get_args(Rank), *get_args(FibreRank)}
    combined, _ = get_args(get_type_hints(Ranking)["combine"])
    assert get_args(combined) == get_args(Combine)


def test_defaults_are_those_of_the_engine(cli: Tonsor, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def remember(model: nn.Module, inputs: Any, **named: Any) -> Any:
        given.update(named)
        return tonsor.prune(model, inputs, **named)

    monkeypatch.setattr(cli_prune, "prune", remember)
    assert cli("prune", "nets.py:Net", *INPUT, "--macs", "50%")[0] == 0
    defaults = tonsor.prune.__kwdefaults__ or {}
    assert given.pop("budget") == "macs=50%"
    assert given == {name: defaults[name] for name in given}
    assert len(given) == 12


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; from tonsor.cli import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'numpy', 'safetensors'} & sys.modules.keys()))"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "tonsor inspect nets.py:Net" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


def test_version(cli: Tonsor) -> None:
    assert cli("--version") == (0, f"tonsor {tonsor.__version__}\n", "")


def test_names_in_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("layers[bold].weight[0] :bug:")
    show_table(["[red]"], [["[green]x"]], title="[blue]")
    out = capsys.readouterr().out
    assert out.startswith("layers[bold].weight[0] :bug:\n")
    assert all(name in out for name in ("[red]", "[green]x", "[blue]"))


def test_progress_is_for_terminals(cli: Tonsor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("inspect", "nets.py:ready", *INPUT, "--json")[2] == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, err = cli("inspect", "nets.py:ready", *INPUT, "--json")
    assert code == 0
    assert "tracing, and trying cuts" in err
    assert json.loads(out)["params"] > 0


# ---------------------------------------------------------------- inspect, explain, list


def test_inspect_shows_what_may_be_cut_and_why_the_rest_may_not(cli: Tonsor) -> None:
    code, out, err = cli("inspect", "nets.py:Net", *INPUT)
    assert (code, err) == (0, "")
    free, pinned = out.split("may not be cut")
    assert re.search(r"│ second\.weight\[0\] +│ 32 +│ channels", free)
    assert re.search(r"│ first\.weight\[1\] +│ 3 +│ an axis of the input '0'", pinned)


def test_inspect_as_json_is_the_anatomy(cli: Tonsor) -> None:
    code, out, _ = cli("inspect", "nets:make", *INPUT, "--json", "--args", '{"width": 6}')
    data = json.loads(out)
    assert code == 0
    assert [g["size"] for g in data["groups"] if g["prunable"]] == [6, 12]


def test_explain_says_what_a_module_is_tied_to(cli: Tonsor) -> None:
    code, out, _ = cli("explain", "nets.py:ready", "second", *INPUT)
    assert code == 0
    assert "second.weight[0]: 24 channels, may be cut" in out
    assert "tied to second.bias[0], head.weight[1]" in out
    _, out, _ = cli("explain", "nets.py:ready", "second", *INPUT, "--json")
    assert json.loads(out)["name"] == "second"


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", ZOO),
        ("criteria", CRITERIA),
        ("rules", RULES),
        ("conventions", CONVENTIONS),
        ("block-criteria", block_criteria()),
        ("methods", {*get_args(StripeMethod), "spp", "lfpc"}),
        ("engines", ENGINES),
    ],
)
def test_list_shows_the_registry(cli: Tonsor, what: str, names: dict[str, Any]) -> None:
    _, out, _ = cli("list", what)
    rows = re.findall(r"^│ (\S+) +│ (\S.*?) +│$", out, re.MULTILINE)
    assert {name for name, _ in rows} == set(names)
    _, out, _ = cli("list", what, "--json")
    assert len(json.loads(out)) == len(names)


def test_doctor_checks_that_pruning_works(cli: Tonsor, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = cli("doctor", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["works"]
    assert data["torch"] == torch.__version__

    def fail(*_: Any, **__: Any) -> None:
        message = "no cut today"
        raise RuntimeError(message)

    monkeypatch.setattr(cli_doctor, "inspect", fail)
    code, out, _ = cli("doctor")
    assert code == 1
    assert "RuntimeError: no cut today" in out


# ---------------------------------------------------------------- prune


def test_prune_saves_a_model_that_loads(cli: Tonsor, here: Path) -> None:
    code, out, err = cli(
        "prune", "nets.py:Net", *INPUT, "--macs", "55%", "--out", "new/slim.tonsor",
        "--plan", "plan.json", "--keep", "second.bias", "--round-to", "2", "--floor", "2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert re.search(r"│ MACs +│.*│ +\d\d\.\d% │", out)
    assert "proven: pruned equals masked in float64" in out
    assert "written: new/slim.tonsor\nwritten: plan.json\n" in out
    model = find("nets.py:Net")()
    slim = tonsor.load(here / "new" / "slim.tonsor", model)
    plan = tonsor.load_plan(here / "plan.json")
    widths = [m.out_channels for m in slim.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [plan.counts["first.weight[0]"], 32] == [8, 32]
    assert slim(torch.zeros(1, 3, 12, 12)).shape == (1, 10)


def test_prune_as_json(cli: Tonsor) -> None:
    code, out, _ = cli(
        "prune", "nets.py:Text", "-i", "ids=2,16:int64:0..100", "-i", "mask=2,16:bool",
        "--params", "60%", "--json", "--no-verify",
    )  # fmt: skip
    data = json.loads(out)
    assert code == 0
    assert data["params"]["after"] <= 0.6 * data["params"]["before"]
    assert data["proof"] is None
    assert data["kept"]
    assert data["files"] == {}
    assert any("nothing was saved" in note for note in data["notes"])


def test_prune_uses_the_weights_and_goes_on_from_a_slim_model(cli: Tonsor, here: Path) -> None:
    trained = build(find("nets.py:Net"), "", seed=7)
    save_model(trained, "trained.safetensors")
    common = ("prune", "nets.py:Net", *INPUT)
    code, out, _ = cli(
        *common, "--weights", "trained.safetensors", "--macs", "70%", "--out", "one.tonsor"
    )
    assert code == 0
    assert "the weights were random" not in out
    once, plan = fill(build(find("nets.py:Net"), ""), "one.tonsor")
    assert plan is not None
    wanted = plan.apply(trained)
    assert all(
        torch.equal(a, b) for a, b in zip(once.parameters(), wanted.parameters(), strict=True)
    )
    code, _, _ = cli(*common, "--weights", "one.tonsor", "--macs", "70%", "--out", "two.tonsor")
    assert code == 0
    twice, total = fill(build(find("nets.py:Net"), ""), "two.tonsor")
    assert total is not None
    x = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(twice(x), total.apply(trained)(x))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (trained, once, twice)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_the_same_seed_gives_the_same_cut(cli: Tonsor, here: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        cli("prune", "nets.py:Net", *INPUT, "--macs", "50%", "--seed", seed, "--plan", name)
    a, b, c = (tonsor.load_plan(here / name) for name in "abc")
    assert a == b
    assert a.keep != c.keep


# ---------------------------------------------------------------- failing


MISTAKES = [
    (("prune", "nets.py:Net", *INPUT), "by one of --budget, --macs and"),
    (("prune", "nets.py:Net", *INPUT, "--macs", "50%", "--params", "50%"), "by one of --budget"),
    (("prune", "nets.py:Net", *INPUT, "--macs", "0.1%"), r"can't be met: .* remain"),
    (("prune", "nets.py:Net", *INPUT, "--macs", "much"), "can't read the budget"),
    (("prune", "nets.py:Net", *INPUT, "--macs", "50%", "--by", "l3"), "no criterion .* 'l3'"),
    (("prune", "nets.py:Net", *INPUT, "--macs", "50%", "--keep", "hed"), "did you mean head"),
    (("explain", "nets.py:Net", "secnd", *INPUT), "did you mean second"),
    (("inspect", "nets.py:Net"), "an example input is needed"),
    (("inspect", "nets.py:Net", "-i", "1,4,12,12"), "Net could not be run on"),
    (("inspect", "nets.py:Net", *INPUT, "--weights", "no.safetensors"), "no.safetensors"),
    (("inspect", "nets.py:Net", *INPUT, "--weights", "nets.py"), "tonsor reads no pickles"),
    (("inspect", "nets.py:Nett", *INPUT), "did you mean Net"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_is_told_in_words(cli: Tonsor, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert re.match(r"error: ", err)
    assert re.search(said, err)
    assert "Traceback" not in err


def test_traceback_shows_where_an_error_came_from(cli: Tonsor) -> None:
    with pytest.raises(SelectionError, match="nothing called 'Nett'"):
        cli("inspect", "nets.py:Nett", *INPUT, "--traceback")


def test_an_unknown_flag_is_told_with_a_hint(here: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["prune", "nets.py:Net", "--macz", "50%"])
    assert stopped.value.code == 2
    assert "--macs" in capsys.readouterr().err


def test_an_interrupt_is_quiet(cli: Tonsor, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "inspect", interrupted)
    try:
        assert cli("inspect", "nets.py:Net", *INPUT) == (130, "", "")
    except KeyboardInterrupt:  # left alone, it would end the tests
        pytest.fail("the interrupt came through")


@pytest.mark.parametrize("words", [["list", "criteria", "--json"], ["--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    code = f"import sys; from tonsor.cli import main; sys.exit(main({words}))"
    command = [sys.executable, "-c", code]
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    ) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""
    assert started.returncode == 141


# ---------------------------------------------------------------- finding a model


@pytest.mark.parametrize("spec", ["nets.py:Net", "nets:Net", "./nets.py:make", "nets.py:Shelf.net"])
def test_a_model_is_found(here: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    monkeypatch.syspath_prepend(here)
    assert type(build(find(spec), spec)).__name__ == "Net"


def test_a_file_is_imported_once(here: Path) -> None:
    assert find("nets.py:Net") is find(f"{here}/nets.py:Net")


def test_a_file_never_takes_the_place_of_a_module(here: Path) -> None:
    (here / "json.py").write_text(NETS, "utf-8")
    found = find("json.py:Net")
    assert sys.modules["json"] is json
    assert find("json.py:Net") is found


def test_a_file_may_import_its_neighbours(here: Path) -> None:
    (here / "deep").mkdir()
    (here / "deep" / "nets_beside.py").write_text("width = 5\n", "utf-8")
    text = "from torch import nn\nfrom nets_beside import width\nnet = nn.Linear(width, 1)\n"
    (here / "deep" / "nets_main.py").write_text(text, "utf-8")
    assert find("deep/nets_main.py:net").in_features == 5


BAD_SPECS = [
    ("nets.py", "", r"does not say which model.* it has Net, Text, ready"),
    ("torch.nn.Linear", "", r"Perhaps torch\.nn:Linear\?"),
    ("nets.py:zzz", "", "nothing called 'zzz'; it has Net, Text, ready"),
    ("nets.py:Net.zzz", "", r"'nets\.py:Net' has nothing called 'zzz'"),
    ("absent.py:Net", "", "there is no file 'absent.py'"),
    ("absent:Net", "", "no module 'absent'"),
    ("broken.py:Net", "", r"importing 'broken\.py' failed with ZeroDivisionError"),
    ("needy.py:Net", "", "needs 'nets_absent', which is not installed"),
    ("nets.py:number", "", "of type int"),
    ("nets.py:nothing", "", "makes something of type NoneType"),
    ("nets.py:ready", '{"width": 3}', "is a model already"),
    ("nets.py:Net", '{"depth": 3}', r"nets\.py:Net\(width: int = 16\) could not be made"),
    ("nets.py:Net", "[1]", "takes keywords"),
    ("nets.py:Net", "{", "takes JSON"),
]


@pytest.mark.parametrize(("spec", "arguments", "said"), BAD_SPECS)
def test_a_model_that_is_not_there(here: Path, spec: str, arguments: str, said: str) -> None:
    (here / "broken.py").write_text("1 / 0\n", "utf-8")
    (here / "needy.py").write_text("import nets_absent\n", "utf-8")
    with pytest.raises(SelectionError, match=said):
        build(find(spec), spec, arguments)


def test_weights_that_do_not_fit_are_refused(here: Path) -> None:
    save_model(nn.Linear(2, 2), "other.safetensors")
    with pytest.raises(SelectionError, match=r"do not fit this Net: .*first\.bias"):
        fill(build(find("nets.py:Net"), ""), "other.safetensors")


# ---------------------------------------------------------------- example inputs


def test_inputs_are_read_from_text() -> None:
    texts = [
        "1,3,8,8", "mask=4,16:bool", "ids=4,64:int64:3..6", "5:float16", "x=7,9:-2..-1",
        "flags=40:int32",
    ]  # fmt: skip
    given = read_inputs(texts)
    picture, half = given.args
    assert (picture.shape, picture.dtype) == ((1, 3, 8, 8), torch.float32)
    assert picture.min() < -1 < 1 < picture.max()
    assert (half.shape, half.dtype) == ((5,), torch.float16)
    assert given.kwargs["mask"].dtype == torch.bool
    assert set(given.kwargs["mask"].flatten().tolist()) == {True, False}
    assert set(given.kwargs["ids"].flatten().tolist()) == {3, 4, 5}
    assert set(given.kwargs["flags"].tolist()) == {0, 1}
    assert -2 <= given.kwargs["x"].min() < given.kwargs["x"].max() <= -1
    again, other = read_inputs(texts), read_inputs(texts, seed=1)
    assert torch.equal(again.args[0], picture)
    assert not torch.equal(other.args[0], picture)


BAD_INPUTS = [
    ([], "an example input is needed"),
    (["1x3x8x8"], "can't read the input '1x3x8x8': write sizes with commas"),
    (["x="], "can't read the input"),
    (["1,2:int64:bool"], "can't read the input"),
    (["1,2:0..1:0..2"], "can't read the input"),
    (["1,2:float33"], "'float33' is no type"),
    (["1,2:complex64"], "'complex64' is no type"),
    (["1,2:nn"], "'nn' is no type"),
    (["1,2:int64:5..5"], r"'5\.\.5' is no range"),
    (["1,2:int64:a..b"], "is no range"),
    (["a=1", "a=2"], "the input 'a' is given twice"),
]


@pytest.mark.parametrize(("texts", "said"), BAD_INPUTS)
def test_inputs_that_can_not_be_read(texts: list[str], said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        read_inputs(texts)
