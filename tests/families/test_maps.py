"""Where the pieces of a group can be seen, and that they are met there when the model runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.models import ALL
from tonsor.families.maps import Site, sites
from tonsor.families.watch import Watch


def where(model: nn.Module, inputs: object, group: str) -> tuple[list[str], list[str]]:
    """The sites of a group as it is made, and as it is read."""
    anatomy = tonsor.inspect(model.eval(), inputs)
    found = anatomy.by_name[group]
    return [str(s) for s in sites(anatomy, found, "made")], [
        str(s) for s in sites(anatomy, found, "read")
    ]


def of_case(name: str) -> tuple[nn.Module, tonsor.Inputs, tonsor.Anatomy]:
    model, args, kwargs = next(c for c in ALL if c.name == name).build()
    inputs = tonsor.Inputs(*args, **kwargs)
    return model, inputs, tonsor.inspect(model, inputs)


def watched(
    anatomy: tonsor.Anatomy, inputs: tonsor.Inputs, *, keep: bool = False, samples: int = 2
) -> tuple[list[tuple[Site, Tensor]], Watch, list[Site]]:
    """Everything that is seen of all groups in one run of the model."""
    asked = [s for g in anatomy.groups for w in ("made", "read") for s in sites(anatomy, g, w)]
    seen: list[tuple[Site, Tensor]] = []
    watch = Watch(
        anatomy, asked, lambda s, t: seen.append((s, t if keep else t.clone())), keep=keep
    )
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with watch.over(anatomy.model, samples):
            inputs.call(anatomy.model)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return seen, watch, asked


# ---------------------------------------------------------------- where


def test_behind_the_norm_and_before_the_next_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    made, read = where(net, torch.randn(1, 3, 8, 8), "0.weight[0]")
    assert made == ["what comes out of '1.weight'"]
    assert read == ["what goes into '3.weight'"]


def test_behind_the_weight_where_there_is_no_norm() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    made, read = where(net, torch.randn(1, 3), "0.weight[0]")
    assert made == ["what comes out of '0.weight'"]
    assert read == ["what goes into '2.weight'"]


class Branches(nn.Module):
    """What a layer makes goes through a norm, and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(self.norm(x).relu() + x)


def test_before_a_norm_that_does_not_see_all_of_it() -> None:
    made, _ = where(Branches(), torch.randn(2, 3), "first.weight[0]")
    assert made == ["what comes out of 'first.weight'"]


class Joined(nn.Module):
    """The norm reads a concatenation, as in networks that normalise first."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(3, 5)
        self.norm, self.last = nn.BatchNorm1d(9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(torch.cat([self.left(x), self.right(x)], 1)).relu())


def test_a_norm_of_a_concatenation() -> None:
    net, x = Joined(), torch.randn(3, 3)
    made, read = where(net, x, "right.weight[0]")
    assert made == ["what comes out of 'right.weight'"]
    assert read == ["what goes into 'last.weight'"]
    anatomy = tonsor.inspect(net, x)
    seen, *_ = watched(anatomy, tonsor.Inputs(x), samples=3)
    inside = net.norm(torch.cat([net.left(x), net.right(x)], 1)).relu()
    shown = {(s.group, s.side): next(iter(s.maps(t, 3))) for s, t in seen}
    torch.testing.assert_close(shown["right.weight[0]", "in"], inside[:, 4:].T)
    torch.testing.assert_close(shown["left.weight[0]", "in"], inside[:, :4].T)
    torch.testing.assert_close(shown["right.weight[0]", "out"], net.right(x).T)


def test_a_residual_stream_is_seen_where_each_block_adds() -> None:
    model, _, anatomy = of_case("resnet_pad")
    group = max(anatomy.prunable, key=lambda g: len(sites(anatomy, g, "made")))
    made = sites(anatomy, group, "made")
    assert len(made) > 1
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert all(s.parameter.rpartition(".")[0] in norms for s in made)


# ---------------------------------------------------------------- what is seen


def test_pieces_and_samples_are_in_front() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4, 2))
    x = torch.randn(5, 3, 4, 4)
    anatomy = tonsor.inspect(net, torch.randn(2, 3, 4, 4))
    seen, *_ = watched(anatomy, tonsor.Inputs(x), samples=5)
    inside = net[1](net[0](x))
    shapes = {}
    for site, tensor in seen:
        if site.group == "0.weight[0]":
            (view,) = site.maps(tensor, 5)
            shapes[site.side] = view.shape
            wanted = inside if site.side == "in" else net[0](x)
            torch.testing.assert_close(view, wanted.transpose(0, 1).reshape(view.shape))
    assert shapes == {"out": (4, 5, 2, 2), "in": (4, 5, 2, 2)}


class SequenceFirst(nn.Module):
    """The samples are in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.transpose(0, 1)).relu()).transpose(0, 1)


def test_samples_are_found_in_the_middle() -> None:
    net = SequenceFirst()
    anatomy = tonsor.inspect(net, torch.randn(2, 7, 3))
    x = torch.randn(4, 5, 3)
    seen, *_ = watched(anatomy, tonsor.Inputs(x), samples=4)
    shown = {s.side: next(iter(s.maps(t, 4))) for s, t in seen if s.group == "first.weight[0]"}
    assert shown["out"].shape == (4, 4, 5)
    torch.testing.assert_close(shown["out"][:, 1], net.first(x[1]).T)


def test_windows_of_a_picture_are_of_its_sample() -> None:
    _, inputs, anatomy = of_case("swin")
    seen, *_ = watched(anatomy, inputs)
    name = "first.0.attention.qkv.weight"
    site, tensor = next((s, t) for s, t in seen if s.parameter == name and s.side == "in")
    (view,) = site.maps(tensor, 2)
    assert view.shape[1] == 2
    windows = tensor.unflatten(0, (2, -1))
    assert view[3, 1].flatten().sort().values.equal(windows[1, ..., 3].flatten().sort().values)


class InPlace(nn.Module):
    """What is made is changed in place, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)), inplace=True)
        y = self.last(x)
        x += 1
        x.mul_(2)
        return y + x.sum(1, keepdim=True)


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_seen_is_not_changed_in_place(keep: bool) -> None:
    net = InPlace().eval()
    x = torch.randn(2, 3, 4, 4)
    anatomy = tonsor.inspect(net, x)
    wanted = net(x)
    made = sites(anatomy, anatomy.by_name["first.weight[0]"], "made")
    seen: list[Tensor] = []
    watch = Watch(anatomy, made, lambda _, t: seen.append(t if keep else t.clone()), keep=keep)
    with watch.over(net, 2):
        out = net(x)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(seen[0], net.norm(net.first(x)))


@pytest.mark.parametrize(
    "name",
    ["vit_multihead", "vit_encoder_layer", "hf_bert", "hf_llama", "hf_falcon", "lstm",
     "weight_norm_new", "weight_standardised", "tied_embedding", "slice_assign", "checkpointed",
     "custom_function_linear", "densenet", "swin", "gru"],
)  # fmt: skip
def test_every_site_is_met_and_shows_what_was_recorded(name: str) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    _, inputs, anatomy = of_case(name)
    seen, watch, asked = watched(anatomy, inputs)
    assert not watch.lost
    assert {str(s) for s in asked} == {str(s) for s, _ in seen}
    for site, tensor in seen:
        assert tensor.shape == site.shape


# ---------------------------------------------------------------- runs that go another way


class Steered(nn.Module):
    """How often a layer runs is for the data to say; so is whether it runs at all."""

    def __init__(self, turns: Callable[[Tensor], int]) -> None:
        super().__init__()
        self.first, self.turn, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.turns = turns

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for _ in range(self.turns(x)):
            x = self.turn(x).relu()
        return self.last(x)


def test_a_layer_that_runs_more_often_than_it_did_is_not_believed() -> None:
    turns = [2]
    anatomy = tonsor.inspect(Steered(lambda _: turns[0]), torch.randn(2, 3))
    turns[0], x = 3, torch.randn(2, 3)
    group = next(g for g in anatomy.groups if g.name == "first.weight[0]")
    asked = sites(anatomy, group, "read")
    watch = Watch(anatomy, asked, lambda s, t: None, keep=False)
    with watch.over(anatomy.model, 2):
        anatomy.model(x)
    assert "used 3 times on this data, and 2 times" in watch.lost["first.weight[0]"]


def test_a_layer_that_does_not_run_is_not_met() -> None:
    turns = [1]
    anatomy = tonsor.inspect(Steered(lambda _: turns[0]), torch.randn(2, 3))
    turns[0], x = 0, torch.randn(2, 3)
    asked = [s for g in anatomy.groups for s in sites(anatomy, g, "read")]
    watch = Watch(anatomy, asked, lambda s, t: None, keep=False)
    with watch.over(anatomy.model, 2):
        anatomy.model(x)
    assert not watch.lost
    assert {s.parameter for s in watch.met} == {"first.weight", "last.weight"}


class Turned(nn.Module):
    """The same layer, along another dimension, as a flag says."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.flat = nn.Linear(3, 4), nn.Linear(4, 2), False

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(0, 1) if self.flat else x)
        return self.last(x.relu())


def test_a_tensor_of_another_rank_is_not_believed() -> None:
    net = Turned()
    anatomy = tonsor.inspect(net, torch.randn(2, 5, 3))
    net.flat = True
    seen, watch, _ = watched(anatomy, tonsor.Inputs(torch.randn(2, 5, 3)))
    assert not seen
    assert "was of shape (2, 5, 4)" in watch.lost["first.weight[0]"]


def test_an_error_in_the_model_is_not_hidden() -> None:
    anatomy = tonsor.inspect(Plain(), torch.randn(2, 3))
    asked = [s for g in anatomy.groups for s in sites(anatomy, g, "read")]
    watch = Watch(anatomy, asked, lambda s, t: None, keep=False)
    wrong, right = torch.randn(2, 5), torch.randn(2, 3)
    with pytest.raises(RuntimeError, match="shapes"), watch.over(anatomy.model, 2):
        anatomy.model(wrong)
    watch.lost.clear()
    with watch.over(anatomy.model, 2):
        anatomy.model(right)
    assert not watch.lost
    assert len(watch.met) == len(asked)


class Plain(nn.Sequential):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
