"""A slim model of stripes survives its file, wherever it is loaded to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import tonsor
from tests.families.stripe_nets import (
    NETS,
    Seen,
    computed,
    drawn,
    emptied,
    followed,
    looked_at,
    seen,
)
from tests.refusals import said
from tonsor.artifact import read_plan
from tonsor.errors import PlanError
from tonsor.families.stripes.layers import find_stripes
from tonsor.surgery.stripe_conv import StripeConv

SMALL = sorted(NETS.keys() - {"resnet20", "vgg16"})


def alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models are made of the same layers and hold the same, bit by bit."""
    one, two = first.state_dict(), second.state_dict()
    layers = [
        [type(m).__name__ if isinstance(m, StripeConv) else "" for m in net.modules()]
        for net in (first, second)
    ]
    return (
        layers[0] == layers[1]
        and one.keys() == two.keys()
        and all(torch.equal(one[n], two[n]) for n in one)
    )


@settings(max_examples=25)
@given(st.sampled_from(SMALL), st.integers(0, 99), st.sampled_from([0.1, 0.5]))
def test_what_is_saved_is_loaded(tmp_path_factory: Any, name: str, seed: int, share: float) -> None:
    it = seen(name)
    path = tmp_path_factory.mktemp("slim") / "slim.safetensors"
    plan = followed(it, drawn(it.layers, seed, share))
    slim = plan.apply(it.model, verify=False)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.mul_(1.5)
    tonsor.save(path, slim, plan)
    again = tonsor.load(path, it.model)
    assert alike(slim, again)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))
    assert read_plan(path) == plan
    assert not any(p.is_meta for p in again.parameters())


def saved(tmp_path: Path, name: str = "residual") -> tuple[Seen, nn.Module, Path, tonsor.Plan]:
    it = seen(name)
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    tonsor.save(tmp_path / "slim.safetensors", slim, plan)
    return it, slim, tmp_path / "slim.safetensors", plan


def test_the_file_holds_stripes_only(tmp_path: Path) -> None:
    _, slim, path, plan = saved(tmp_path)
    with safe_open(path, "pt") as file:
        shapes = {n: tuple(file.get_tensor(n).shape) for n in file.keys()}  # noqa: SIM118
    assert shapes == {n: tuple(t.shape) for n, t in slim.state_dict().items()}
    for weight, stripes in plan.cut().fibres.items():
        assert shapes[weight][0] == stripes.left


def test_it_is_loaded_from_no_values_at_all(tmp_path: Path) -> None:
    it, slim, path, _ = saved(tmp_path)
    with torch.device("meta"):
        empty = NETS["residual"][0]().eval()
    again = tonsor.load(path, empty)
    assert all(t.device.type == "cpu" for t in (*again.parameters(), *again.buffers()))
    assert alike(slim, again)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))
    assert all(p.is_meta for p in empty.parameters())


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
    plan = followed(it, drawn(it.layers, 0, 0.4))
    runs = {n: replace(s, run="stripes") for n, s in plan.stripes.items()}
    fields = {n: getattr(plan, n) for n in tonsor.Plan.__dataclass_fields__}
    plan = tonsor.Plan(**{**fields, "fibres": runs})
    tonsor.save(tmp_path / "a", plan.apply(it.model), plan)
    again = tonsor.load(tmp_path / "a", it.model)
    assert {m.run for m in again.modules() if isinstance(m, StripeConv)} == {"stripes"}


@pytest.mark.parametrize("first", ["channels", "blocks"])
def test_continual_pruning_is_one_file(tmp_path: Path, first: str) -> None:
    it = seen("residual")
    earlier = (
        tonsor.plan(it.anatomy, "params=80%", by="random") if first == "channels"
        else tonsor.plan_blocks(it.anatomy, remove=["one"])
    )  # fmt: skip
    middle = earlier.apply(it.model)
    anatomy = tonsor.inspect(middle, it.x)
    left = Seen(middle, it.x, anatomy, find_stripes(anatomy))
    later = followed(left, drawn(left.layers, 1, 0.4))
    slim = later.apply(middle)
    assert said(PlanError, lambda: tonsor.load(_wrong(tmp_path, slim, later), it.model))
    tonsor.save(tmp_path / "slim", slim, later.rebase(earlier))
    assert alike(tonsor.load(tmp_path / "slim", it.model), slim)


def _wrong(folder: Path, slim: nn.Module, later: tonsor.Plan) -> Path:
    tonsor.save(folder / "wrong", slim, later)
    return folder / "wrong"


def test_blocks_that_went_with_their_stripes(tmp_path: Path) -> None:
    it = seen("resnet20")
    plan = emptied(it, "layer1.1.conv2", "layer2.0.conv1")
    assert plan.drops
    assert plan.stripes
    slim = plan.apply(it.model)
    tonsor.save(tmp_path / "slim", slim, plan)
    assert alike(tonsor.load(tmp_path / "slim", it.model), slim)


def test_a_model_of_other_stripes_is_not_saved(tmp_path: Path) -> None:
    it, slim, path, plan = saved(tmp_path)
    other = followed(it, drawn(it.layers, 1, 0.8))
    told = said(PlanError, lambda: tonsor.save(path, slim, other))
    assert "Save a model with the plan that made it" in told
    assert "the plan leaves " in said(PlanError, lambda: tonsor.save(path, it.model, plan))


def test_other_buffers_are_still_told(tmp_path: Path) -> None:
    it = seen("plain")
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim: Any = plan.apply(it.model)
    slim.body.register_buffer("more", torch.zeros(2))
    told = said(PlanError, lambda: tonsor.save(tmp_path / "slim", slim, plan))
    assert "the model has a tensor 'body.more' that the plan knows nothing of" in told


def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    it, _, path, _ = saved(tmp_path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    cases = {
        "leaves": {**tensors, "stem.weight": tensors["stem.weight"][:-1]},
        "which the model needs": {n: t for n, t in tensors.items() if n != "stem.weight"},
        "that the model does not save": {**tensors, "stem.extra": torch.zeros(1)},
    }
    for told, changed in cases.items():
        save_file({n: t.contiguous() for n, t in changed.items()}, path, metadata)
        assert told in said(PlanError, lambda: tonsor.load(path, it.model))


def test_channels_last_stays_so(tmp_path: Path) -> None:
    net: Any = NETS["plain"][0]()
    it = looked_at(net.to(memory_format=torch.channels_last), seen("plain").x)
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    tonsor.save(tmp_path / "slim", slim, plan)
    again = tonsor.load(tmp_path / "slim", it.model)
    assert alike(again, slim)
    assert torch.equal(computed(slim, it.x), computed(again, it.x))
