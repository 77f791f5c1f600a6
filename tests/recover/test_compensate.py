"""Compensation keeps means exactly, and says what it has left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.recover.nets import cut, data, kept_of, mean_of, same, settled, state
from tonsor.errors import DataError, PlanError, RecoverError
from tonsor.recover import compensate, recalibrate

TINY = 1e-10


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["linear", "conv1d", "conv2d", "transposed"]),
    norm=st.booleans(),
    hidden=st.integers(2, 6),
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_the_mean_of_a_reading_layer_is_the_originals(
    kind: str, norm: bool, hidden: int, groups: int, kernel: int, stride: int, padding: int,
    dilation: int, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    linear, flat = kind == "linear", kind == "conv1d"
    width = 2 * hidden
    if linear:
        first, read, last = nn.Linear(3, width), nn.Linear(width, 6, bias=not norm), nn.Linear(6, 2)
        behind, batches = nn.BatchNorm1d(6), data((7, 3), (4, 3), seed=seed)
    else:
        conv, bn = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
        kwargs: dict[str, Any] = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
        }
        reading = nn.ConvTranspose2d if kind == "transposed" else conv
        first = conv(3, width, 3, padding=1)
        read, behind = reading(width, 6, kernel, bias=not norm, **kwargs), bn(6)
        last = conv(6, 2, 1)
        space = ((9,), (7,)) if flat else ((8, 9), (7, 7))
        batches = data((3, 3, *space[0]), (2, 3, *space[1]), seed=seed)
    net = nn.Sequential(first, nn.ReLU(), read, behind if norm else nn.Identity(), nn.ReLU(), last)
    settled(net, seed)
    anatomy, plan, slim = cut(net, batches[0][0])
    where = "3" if norm else "2"
    before = mean_of(slim, where, batches)
    done = compensate(net, slim, plan, anatomy, batches)
    kept = kept_of(plan, "3.weight" if norm else "2.bias", 6)
    wanted = mean_of(net, where, batches)[kept]
    assert (mean_of(slim, where, batches) - wanted).abs().max() < TINY
    if "2.weight" in done.changed.values():
        assert (before - wanted).abs().max() > TINY
        assert done.samples == sum(len(x) for x, _ in batches)
        assert done.changed["3.running_mean" if norm else "2.bias"] == "2.weight"
    else:
        assert groups == 2  # whole groups went, and with them what they made


def dead(kernel: int, padding: int) -> nn.Module:
    """A network in which every other filter makes a constant."""
    torch.manual_seed(1)
    net = settled(nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, kernel, padding=padding)
    ))  # fmt: skip
    with torch.no_grad():
        net.get_parameter("0.weight")[::2] = 0
    return net


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1)])
def test_constants_are_made_up_for_exactly_but_at_padded_borders(kernel: int, padding: int) -> None:
    net, batches = dead(kernel, padding), data((4, 3, 8, 8))
    anatomy, plan, slim = cut(net, batches[0][0], ratios={"0": 0.5}, by="l1")
    assert plan.keep["0.weight[0]"] == (1, 3, 5, 7)
    compensate(net, slim, plan, anatomy, batches)
    with torch.no_grad():
        apart = (net(batches[0][0]) - slim(batches[0][0])).abs()
    if not padding:
        assert apart.max() < TINY
        return
    # The mean over all positions is right, so the border's share is missing inside.
    inside, wrong = apart[..., 1:-1, 1:-1], apart.max()
    assert wrong > 1e-3
    assert torch.allclose(inside, inside[:1, :, :1, :1].expand_as(inside), atol=TINY)


def test_a_constant_in_front_of_a_linear_layer_is_made_up_for_exactly() -> None:
    torch.manual_seed(2)
    net = settled(nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 9, 5)
    ))  # fmt: skip
    with torch.no_grad():
        net.get_parameter("0.weight")[:3] = 0
    batches = data((5, 3, 8, 8))
    anatomy, plan, slim = cut(net, batches[0][0], ratios={"0": 0.5}, by="l1")
    compensate(net, slim, plan, anatomy, batches)
    with torch.no_grad():
        assert (net(batches[0][0]) - slim(batches[0][0])).abs().max() < TINY


class Wired(nn.Module):
    """A layer used twice, one weight with two biases, a shared bias, and a bare matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.twice = nn.Linear(8, 4)
        self.one, self.other = nn.Linear(8, 4), nn.Linear(8, 4)
        self.other.weight = self.one.weight
        self.left, self.right = nn.Linear(8, 4), nn.Linear(8, 4)
        self.right.bias = self.left.bias
        self.bare = nn.Parameter(torch.randn(8, 4))
        self.no_bias = nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        out = self.twice(h) + self.twice(h.square())
        out = out + self.one(h) + self.other(h * 2)
        return out + self.left(h) + self.right(h) + h @ self.bare + self.no_bias(h)


def test_what_can_not_be_helped_is_left_and_says_why() -> None:
    torch.manual_seed(0)
    net, batches = settled(Wired()), data((20, 3), (5, 3))
    anatomy, plan, slim = cut(net, batches[0][0])
    before = state(slim)
    done = compensate(net, slim, plan, anatomy, batches)
    assert dict(done.changed) == {
        "twice.bias": "twice.weight", "one.bias": "one.weight", "other.bias": "one.weight",
    }  # fmt: skip
    assert set(done.left) == {"left.weight", "right.weight", "bare", "no_bias.weight"}
    assert "shared with another layer" in done.left["left.weight"]
    assert "aten.matmul" in done.left["bare"]
    assert "no bias" in done.left["no_bias.weight"]
    for path in ("twice", "one", "other"):
        apart = mean_of(slim, path, batches) - mean_of(net, path, batches)
        assert apart.abs().max() < TINY
    now = state(slim)
    assert {n for n in now if not torch.equal(now[n], before[n])} == set(done.changed)
    assert "and 1 more" in str(done)


class Stream(nn.Module):
    """Blocks on a stream, where a layer reads what it also writes; norms that read more or less."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.square = nn.Conv2d(8, 8, 3, padding=1)
        self.seen_twice = nn.Conv2d(8, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.batch = nn.Conv2d(8, 6, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 6, 1))
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.square(x)
        y = self.seen_twice(x)
        y = self.norm(y) + y + self.batch_norm(self.batch(x)) + self.weighted(x)
        return self.head(y.relu())


def test_a_stream_is_followed_and_norms_are_used_only_where_they_alone_read() -> None:
    torch.manual_seed(0)
    net, batches = settled(Stream()), data((4, 3, 6, 6))
    anatomy, plan, slim = cut(net, batches[0][0], ratios={"stem": 0.5})
    done = compensate(net, slim, plan, anatomy, batches)
    assert dict(done.changed) == {"square.bias": "square.weight"}
    reasons = {n: w for n, w in done.left.items() if "original" not in n}
    assert "no BatchNorm alone" in reasons.pop("seen_twice.weight")
    assert "the mean of each batch" in reasons.pop("batch.weight")
    assert not reasons
    computed = done.left["weighted.parametrizations.weight.original1"]
    assert "computes another weight" in computed
    kept = kept_of(plan, "square.bias", 8)
    # What it still reads is what it was, so its own output has the original's mean.
    apart = mean_of(slim, "square", batches) - mean_of(net, "square", batches)[kept]
    assert apart.abs().max() < TINY


class OwnStatistics(nn.Module):
    """A norm that uses the statistics of the batch, and keeps running ones for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 5, bias=False)
        self.register_buffer("running_mean", torch.zeros(5))
        self.register_buffer("running_var", torch.ones(5))
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu())
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        return self.last(nn.functional.batch_norm(y, mean, variance, training=True).relu())


def test_a_running_mean_that_is_not_subtracted_is_not_changed() -> None:
    torch.manual_seed(0)
    net, batches = settled(OwnStatistics()), data((20, 3), (9, 3))
    anatomy, plan, slim = cut(net, batches[0][0], ratios={"first": 0.5})
    done = compensate(net, slim, plan, anatomy, batches)
    assert not done.changed
    assert "the mean of each batch" in done.left["second.weight"]


def test_depthwise_convolutions_lack_nothing() -> None:
    torch.manual_seed(0)
    net = settled(nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 5, 1),
    ))  # fmt: skip
    batches = data((4, 3, 6, 6))
    anatomy, plan, slim = cut(net, batches[0][0])
    done = compensate(net, slim, plan, anatomy, batches)
    assert (dict(done.changed), dict(done.left)) == ({"4.bias": "4.weight"}, {})
    assert (mean_of(slim, "4", batches) - mean_of(net, "4", batches)).abs().max() < TINY


class Attention(nn.Module):
    """Attention with a projection for all of query, key and value, and a net behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.heads = 4

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        split = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = split.unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).reshape(n, length, -1))
        return x + self.down(self.up(self.norm(x)).relu())


def test_heads_and_hidden_layers_of_a_transformer_are_helped() -> None:
    torch.manual_seed(0)
    net, batches = settled(Attention()), data((3, 5, 8), (2, 4, 8))
    anatomy, plan, slim = cut(net, batches[0][0])
    done = compensate(net, slim, plan, anatomy, batches)
    assert dict(done.changed) == {"out.bias": "out.weight", "down.bias": "down.weight"}
    # Attention reads the input, which is whole, so behind it the mean is exact.
    apart = mean_of(slim, "out", batches, -1) - mean_of(net, "out", batches, -1)
    assert apart.abs().max() < TINY


class Joined(nn.Module):
    """Two branches side by side, flattened in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 1), nn.Conv1d(2, 6, 3, padding=1)
        self.linear = nn.Linear(50, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.cat([self.a(x), self.b(x)], 1).relu().flatten(1))


def test_what_lies_side_by_side_and_flat_is_found() -> None:
    torch.manual_seed(0)
    net, batches = settled(Joined()), data((4, 2, 5), (3, 2, 5))
    anatomy, plan, slim = cut(net, batches[0][0])
    done = compensate(net, slim, plan, anatomy, batches)
    assert len(plan.keep) == 2
    assert set(done.changed) == {"linear.bias"}
    assert (mean_of(slim, "linear", batches) - mean_of(net, "linear", batches)).abs().max() < TINY


# ---------------------------------------------------------------- only right after the cut


def small() -> tuple[nn.Module, list[tuple[Tensor, None]]]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False),
        nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3),
    )  # fmt: skip
    return settled(net), data((6, 3, 8, 8), (2, 3, 8, 8))


def test_doing_it_twice_changes_nothing_more() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    compensate(net, slim, plan, anatomy, batches)
    once = state(slim)
    again = compensate(net, slim, plan, anatomy, batches)
    assert same(state(slim), once)
    assert not again.changed
    assert all("not as the cut left it" in why for why in again.left.values())


def test_new_statistics_hold_it_already() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    recalibrate(None, slim, batches)
    taken = state(slim)
    done = compensate(net, slim, plan, anatomy, batches)
    assert not done.changed
    assert "running_mean" in done.left["3.weight"]
    assert same(state(slim), taken)


def test_a_trained_layer_is_left_and_others_are_helped() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    with torch.no_grad():
        slim.get_parameter("7.weight").mul_(2)
    done = compensate(net, slim, plan, anatomy, batches)
    assert set(done.changed.values()) == {"3.weight"}
    assert "'7.weight'" in done.left["7.weight"]


# ---------------------------------------------------------------- nothing else changes


def test_the_model_its_modes_and_chance_are_left_alone() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    net.train()
    slim.get_submodule("0").train()
    modes = [m.training for m in (*net.modules(), *slim.modules())]
    before, chance = state(net), torch.get_rng_state()

    def drawn():
        for x, _ in batches:
            yield x + 0 * torch.randn_like(x), None

    compensate(net, slim, plan, anatomy, drawn())
    assert same(state(net), before)
    assert [m.training for m in (*net.modules(), *slim.modules())] == modes
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_only_so_many_batches_are_looked_at() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    assert compensate(net, slim, plan, anatomy, batches, at_most=1).samples == 6


def test_a_plan_that_cuts_nothing_changes_nothing() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0], budget="params=100%")
    before = state(slim)
    done = compensate(net, slim, plan, anatomy, batches)
    assert not done.changed
    assert not done.left
    assert "nothing to compensate" in str(done)
    assert same(state(slim), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precisions_come_close_and_stay_what_they_are(dtype: torch.dtype) -> None:
    net, batches = small()
    low = copy.deepcopy(net).to(dtype)
    given = [(x.to(dtype), None) for x, _ in batches]
    anatomy, plan, slim = cut(low, given[0][0])
    before = mean_of(slim, "4", given).double()
    compensate(low, slim, plan, anatomy, given)
    kept = kept_of(plan, "4.weight", 6)
    wanted = mean_of(low, "4", given)[kept].double()
    assert {p.dtype for p in slim.parameters()} == {dtype}
    apart = (mean_of(slim, "4", given).double() - wanted).abs().max()
    assert apart < 0.05 * (before - wanted).abs().max()


# ---------------------------------------------------------------- refusals


def test_refusals_leave_the_slim_model_as_it_was() -> None:
    net, batches = small()
    anatomy, plan, slim = cut(net, batches[0][0])
    before = state(slim)
    with pytest.raises(DataError, match="batches is empty"):
        compensate(net, slim, plan, anatomy, [])
    with pytest.raises(RecoverError, match="no finite mean"):
        compensate(net, slim, plan, anatomy, [(batches[0][0] * float("nan"), None)])
    with pytest.raises(PlanError, match="this plan leaves"):
        compensate(net, net, plan, anatomy, batches)
    with pytest.raises(PlanError):
        compensate(slim, slim, plan, anatomy, batches)
    with pytest.raises(RecoverError, match="meta device"):
        compensate(copy.deepcopy(net).to("meta"), slim, plan, anatomy, batches)
    assert same(state(slim), before)


def test_a_part_that_data_does_not_reach_is_left_and_said() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.first(x).relu()
            return self.a(h) if len(x) > 2 else self.a(h) + self.b(h)

    torch.manual_seed(0)
    net, (few, many) = settled(Fork()), data((2, 3), (9, 3))
    anatomy, plan, slim = cut(net, few[0])
    done = compensate(net, slim, plan, anatomy, [many])
    assert set(done.changed) == {"a.bias"}
    assert "did not come by it" in done.left["b.weight"]
    assert tonsor.inspect(slim, few[0]).parameters["a.bias"].shape == (2,)
