"""A slim model of columns survives its file, wherever it is loaded to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

import tonsor
from tests.families.column_nets import NETS, SMALL, columns_only, looked_at, seen
from tests.families.stripe_nets import Seen, computed, drawn, followed
from tests.refusals import said
from tonsor.artifact import read_plan
from tonsor.errors import PlanError
from tonsor.families.columns.layers import find_columns
from tonsor.surgery.column_conv import ColumnConv


def alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models are made of the same layers and hold the same, bit by bit."""
    one, two = first.state_dict(), second.state_dict()
    kinds = [[type(m).__name__ for m in net.modules()] for net in (first, second)]
    return (
        kinds[0] == kinds[1]
        and one.keys() == two.keys()
        and all(torch.equal(one[n], two[n]) for n in one)
    )


@settings(max_examples=20)
@given(st.sampled_from(SMALL), st.integers(0, 99), st.sampled_from([0.1, 0.5]), st.booleans())
def test_what_is_saved_is_loaded(
    tmp_path_factory: Any, name: str, seed: int, share: float, follow: bool
) -> None:
    it = seen(name)
    path = tmp_path_factory.mktemp("slim") / "slim.safetensors"
    plan = (followed if follow else columns_only)(it, drawn(it.layers, seed, share))
    slim = plan.apply(it.model, verify=False)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.mul_(1.5)
    tonsor.save(path, slim, plan)
    again = tonsor.load(path, it.model)
    assert alike(slim, again)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))
    assert read_plan(path) == plan


def saved(tmp_path: Path) -> tuple[Seen, nn.Module, Path, tonsor.Plan]:
    it = seen("residual")
    plan = columns_only(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    tonsor.save(tmp_path / "slim.safetensors", slim, plan)
    return it, slim, tmp_path / "slim.safetensors", plan


def test_the_file_holds_columns_only(tmp_path: Path) -> None:
    it, slim, path, plan = saved(tmp_path)
    with safe_open(path, "pt") as file:
        shapes = {n: tuple(file.get_tensor(n).shape) for n in file.keys()}  # noqa: SIM118
    assert shapes == {n: tuple(t.shape) for n, t in slim.state_dict().items()}
    assert len(plan.columns) == 6
    for weight, columns in plan.columns.items():
        assert shapes[weight] == (columns.left, it.model.get_parameter(weight).shape[0])


def test_it_is_loaded_from_no_values_at_all(tmp_path: Path) -> None:
    it, slim, path, _ = saved(tmp_path)
    with torch.device("meta"):
        empty = NETS["residual"][0]().eval()
    again = tonsor.load(path, empty)
    assert all(t.device.type == "cpu" for t in (*again.parameters(), *again.buffers()))
    assert alike(slim, again)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_has_the_dtype_of_the_model_it_is_loaded_into(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    it, slim, path, _ = saved(tmp_path)
    again = tonsor.load(path, NETS["residual"][0]().eval().to(dtype))
    assert alike(again, slim.to(dtype))
    assert again(it.x.to(dtype)).dtype == dtype


def test_how_a_layer_runs_is_kept(tmp_path: Path) -> None:
    it = seen("plain")
    plan = columns_only(it, drawn(it.layers, 0, 0.4))
    plan = replace(plan, fibres={n: replace(f, run="columns") for n, f in plan.fibres.items()})
    tonsor.save(tmp_path / "a", plan.apply(it.model), plan)
    again = tonsor.load(tmp_path / "a", it.model)
    assert [m.run for m in again.modules() if isinstance(m, ColumnConv)] == ["columns"] * 2


@pytest.mark.parametrize("first", ["channels", "blocks"])
def test_continual_pruning_is_one_file(tmp_path: Path, first: str) -> None:
    it = seen("residual")
    earlier = (
        tonsor.plan(it.anatomy, "params=80%", by="random") if first == "channels"
        else tonsor.plan_blocks(it.anatomy, remove=["one"])
    )  # fmt: skip
    middle = earlier.apply(it.model)
    anatomy = tonsor.inspect(middle, it.x)
    left = Seen(middle, it.x, anatomy, find_columns(anatomy))
    later = followed(left, drawn(left.layers, 1, 0.4))
    slim = later.apply(middle)
    tonsor.save(tmp_path / "wrong", slim, later)
    assert said(PlanError, lambda: tonsor.load(tmp_path / "wrong", it.model))
    tonsor.save(tmp_path / "slim", slim, later.rebase(earlier))
    assert alike(tonsor.load(tmp_path / "slim", it.model), slim)


def test_a_model_of_other_columns_is_not_saved(tmp_path: Path) -> None:
    it, slim, path, plan = saved(tmp_path)
    other = columns_only(it, drawn(it.layers, 1, 0.8))
    told = said(PlanError, lambda: tonsor.save(path, slim, other))
    assert "Save a model with the plan that made it" in told
    assert "the plan leaves " in said(PlanError, lambda: tonsor.save(path, it.model, plan))


def test_channels_last_stays_so(tmp_path: Path) -> None:
    net: Any = NETS["plain"][0]()
    it = looked_at(net.to(memory_format=torch.channels_last), seen("plain").x)
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    tonsor.save(tmp_path / "slim", slim, plan)
    again = tonsor.load(tmp_path / "slim", it.model)
    assert alike(again, slim)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))
