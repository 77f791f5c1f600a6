"""Timing the parts of a model: what is measured once, what is remembered, what adds up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tonsor import zoo
from tonsor.cost.bench import Bench
from tonsor.cost.latency import Timing
from tonsor.cost.signature import capture, signature
from tonsor.cost.table import Memory, Part, PartTable, prediction_error, time_parts
from tonsor.errors import SelectionError, TonsorError
from tonsor.graph.inputs import Inputs

BENCH = Bench(rounds=3)


def parts_of(model: nn.Module, x: Tensor, names: list[str]) -> dict[str, Part]:
    inside, given = dict(model.named_modules()), capture(model, x, names)
    return {n: Part(inside[n], given[n], signature([inside[n]], given[n])) for n in names}


def resnet_parts() -> dict[str, Part]:
    net = zoo.build("resnet20", width=0.5)
    names = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    return parts_of(net, torch.randn(2, 3, 32, 32), names)


def test_equal_blocks_share_a_measurement() -> None:
    table = time_parts(resnet_parts(), BENCH, quiet=True)
    assert len(table) == 9
    assert table.measured == 5  # the second and third stage each begin with a block of its own
    assert table["layer1.0"] == table["layer1.2"]
    assert table["layer2.1"] == table["layer2.2"] != table["layer2.0"]
    assert "eager, cpu, float32, batch 2" in str(table)


def test_a_part_is_called_with_what_the_model_calls_it_with() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(input=x - 1)
            self.relu(y)
            return self.inner(input=y + 100)

    net = Twice()
    x = torch.tensor([-1.0, 3.0])
    found = capture(net, x, ["inner", "relu"])
    assert torch.equal(found["inner"].kwargs["input"], x - 1)  # the first call, before the relu
    assert torch.equal(found["relu"].args[0], x - 1)
    assert net.training
    assert not net.inner._forward_pre_hooks


def test_what_is_not_there_or_never_runs_is_said() -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(SelectionError, match="no module called '1'"):
        capture(net, torch.zeros(1, 2), ["1"])
    net[0].spare = nn.Linear(2, 2)
    with pytest.raises(SelectionError, match=r"'0\.spare' is never called"):
        capture(net, torch.zeros(1, 2), ["0.spare"])


CHANGES: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "width": lambda: (nn.Conv2d(4, 9, 3), torch.zeros(2, 4, 8, 8)),
    "stride": lambda: (nn.Conv2d(4, 8, 3, stride=2), torch.zeros(2, 4, 8, 8)),
    "bias": lambda: (nn.Conv2d(4, 8, 3, bias=False), torch.zeros(2, 4, 8, 8)),
    "batch": lambda: (nn.Conv2d(4, 8, 3), torch.zeros(3, 4, 8, 8)),
    "dtype": lambda: (nn.Conv2d(4, 8, 3).double(), torch.zeros(2, 4, 8, 8).double()),
    "layout": lambda: (
        nn.Conv2d(4, 8, 3),
        torch.zeros(2, 4, 8, 8).to(memory_format=torch.channels_last),
    ),
    "wrapped": lambda: (nn.Sequential(nn.Conv2d(4, 8, 3)), torch.zeros(2, 4, 8, 8)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_may_cost_time_is_in_a_signature(change: str) -> None:
    module, x = nn.Conv2d(4, 8, 3), torch.zeros(2, 4, 8, 8)
    other, y = CHANGES[change]()
    assert signature([module], x) != signature([other], y)
    twin = nn.Conv2d(4, 8, 3).eval()
    vars(twin)["layer_idx"] = 7
    assert signature([module], x) == signature([twin], x + 1)


def test_a_file_remembers_over_runs_what_holds_under_the_same_conditions(tmp_path: Path) -> None:
    path, every = tmp_path / "timings.json", resnet_parts()
    parts = {n: every[n] for n in ("layer2.0", "layer3.1")}
    first = time_parts(parts, BENCH, memory=Memory(path), quiet=True)
    again = time_parts(parts, BENCH, memory=Memory(path), quiet=True)
    assert again.measured == 0
    assert again.timings == first.timings
    other = Bench(threads=2, rounds=1)
    assert time_parts(parts, other, memory=Memory(path), quiet=True).measured == 2
    with pytest.raises(SelectionError, match="no engine"):
        time_parts(parts, Bench(engine="odd"), memory=Memory(path), quiet=True)
    assert len(json.loads(path.read_text())["timings"]) == 4


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "timings.json"
    path.write_text("{}")
    with pytest.raises(TonsorError, match=r"timings\.json' holds no timings.*delete it"):
        time_parts(resnet_parts(), BENCH, memory=Memory(path), quiet=True)


def test_what_is_not_there_is_told() -> None:
    table = PartTable({"a": Timing(2, 1, 3), "b": Timing(3, 1, 4)}, "", 2)
    assert prediction_error(4.5, 5.0) == pytest.approx(-0.1)
    with pytest.raises(SelectionError, match="no part is called 'c'; there are a, b"):
        table["c"]
    with pytest.raises(TonsorError, match="no parts"):
        time_parts({}, BENCH)


def test_the_parts_of_a_row_add_up_to_the_whole() -> None:
    class Nap(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(self.seconds)
            return x

    net = nn.Sequential(Nap(0.004), Nap(0.008), Nap(0.004))
    parts = parts_of(net, torch.zeros(1), ["0", "1", "2"])
    whole = Part(net, Inputs(torch.zeros(1)), "whole")
    table = time_parts({**parts, "": whole}, BENCH, quiet=True)
    assert table.measured == 3
    predicted = sum(table[name].median_ms for name in ("0", "1", "2"))
    assert abs(prediction_error(predicted, table[""].median_ms)) < 0.25
