"""Each layer runs in the fastest way that computes what it should, by what the clock says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tonsor.cost import rounds as clocks
from tonsor.deploy import choose as choosing
from tonsor.deploy.choose import Trial, choose, decide, fastest
from tonsor.deploy.layers import FusedConv, Site
from tonsor.graph.inputs import Inputs
from tonsor.surgery.column_conv import columned

X = torch.randn(2, 3, 8, 8)
MS = {"dense": 4.0, "good": 2.0, "close": 3.95, "wrong": 0.1, "broken": 0.1}


class Way(nn.Module):
    """Runs a layer as it is, and is known to the clock by its name."""

    ran: list[tuple[str, tuple[int, ...]]]

    def __init__(self, name: str, fused: FusedConv, ran: list[Any]) -> None:
        super().__init__()
        self.name, self.fused, self.ran = name, fused, ran

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        self.ran.append((self.name, tuple(x.shape)))
        if self.name == "broken":
            message = "no such luck"
            raise ArithmeticError(message)
        out = self.fused(x, residual)
        return out * 1.001 if self.name == "wrong" else out


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Have five ways, each of which takes as long as `MS` says."""
    seen: list[Any] = []

    def maker(name: str) -> Callable[[FusedConv, Tensor], dict[str, nn.Module]]:
        return lambda fused, x: {name: Way(name, fused, seen)}

    def clock(run: Any, repeats: int, wait: Any) -> float:
        run()
        return 1e-3 * repeats * MS[seen[-1][0]]

    monkeypatch.setattr(choosing, "WAYS", MappingProxyType({name: maker(name) for name in MS}))
    monkeypatch.setattr(clocks, "_clock", clock)
    return seen


def site(name: str = "conv") -> Site:
    torch.manual_seed(0)
    return Site(name, FusedConv(nn.Conv2d(3, 3, 3, padding=1), relu=True)).eval()


def trial(*ways: str, margin: float = 0.03) -> Trial:
    return Trial(3, margin, ways or tuple(MS))


@torch.no_grad()
def test_the_fastest_right_way_is_taken(ran: list[Any]) -> None:
    place = site()
    row = decide(place, X, trial=trial())
    assert (row.chosen, place.chosen) == ("good", "good")
    assert isinstance(place.way, Way)
    assert place.way.name == "good"
    assert dict(row.ms) == pytest.approx({"dense": 4, "good": 2, "close": 3.95})
    assert "off by 1.0e-03" in row.left_out["wrong"]
    assert "no such luck" in row.left_out["broken"]
    assert row.output == (2, 3, 8, 8)
    assert row.fused == "relu"


@pytest.mark.parametrize(("margin", "chosen"), [(0.0, "close"), (0.03, "dense")])
@torch.no_grad()
def test_the_dense_way_stays_unless_another_is_faster_by_a_margin(
    ran: list[Any], margin: float, chosen: str
) -> None:
    assert decide(site(), X, trial=trial("dense", "close", margin=margin)).chosen == chosen


@torch.no_grad()
def test_what_is_hopeless_is_timed_no_further(
    ran: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MS, "close", 40.0)
    row = decide(site(), X, trial=trial("dense", "good", "close"))
    assert row.chosen == "good"
    assert row.ms["close"] == pytest.approx(40)
    counts: Mapping[str, int] = {n: sum(r[0] == n for r in ran) for n in ("good", "close")}
    assert counts["close"] == 4  # once to see that it is right, and three times to see how slow
    assert counts["good"] > 8


@torch.no_grad()
def test_where_nothing_is_right_the_dense_way_is_taken(ran: list[Any]) -> None:
    row = decide(site(), X, trial=trial("wrong"))
    assert row.chosen == "dense"
    assert not row.ms  # one way alone needs no clock
    assert list(row.left_out) == ["wrong"]
    monkey = site()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "WAYS", {"dense": lambda fused, x: {}})
        assert decide(monkey, X, trial=trial("dense")).chosen == "reference"
    assert monkey.way is monkey.reference


@torch.no_grad()
def test_every_site_is_timed_on_what_it_gets_first(ran: list[Any]) -> None:
    first, second, never = site("first"), site("second"), site("never")

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return second(second(first(x)[..., :4])[..., :2])

    sites = (first, second, never)
    rows = choose(Net(), sites, Inputs(X), trial("dense", "good"), quiet=True)
    assert [(r.name, r.chosen) for r in rows] == [
        ("first", "good"), ("second", "good"), ("never", ""),
    ]  # fmt: skip
    assert [row.output for row in rows] == [(2, 3, 8, 8), (2, 3, 8, 4), ()]
    timed = {shape for name, shape in ran if name == "dense"}
    assert timed == {(2, 3, 8, 8), (2, 3, 8, 4)}
    assert not any(s._forward_pre_hooks for s in sites)


def test_a_row_says_what_the_layer_is() -> None:
    conv = nn.Conv2d(4, 6, 3)
    layer = columned(conv, np.arange(36).reshape(4, 9) % 3 == 0)
    row = choosing.row_of(Site("a", FusedConv(layer, adds=True)))
    assert (row.kind, row.kept, row.fused) == ("columns 4->6 3x3", 12 / 36, "add")
    assert choosing.row_of(site()).kept == 1


def test_medians_decide_and_not_single_samples() -> None:
    assert fastest({"dense": [1, 1, 9], "b": [2, 2, 0.1]}, 0.0) == "dense"
    assert fastest({"a": [1, 1, 9], "b": [2, 2, 0.1]}, 0.0) == "a"
    assert fastest({"dense": [1, 1, 1], "b": [0.5]}, 0.9) == "b"
