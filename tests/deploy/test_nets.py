"""Networks of many kinds compute the same after they are deployed, whatever way they run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.deploy.nets import NETS, ManyWays, images, shaken
from tonsor.deploy import deploy
from tonsor.deploy.capture import sites_of
from tonsor.deploy.deployed import FromGraph
from tonsor.deploy.fuse import fused_parts
from tonsor.graph.inputs import Inputs

pytestmark = pytest.mark.usefixtures("deployed_wins")
WAYS = (["dense"], ["prepacked"], ["torch", "dense"], ["kernel", "dense"])


def close(got: Any, wanted: Any) -> None:
    scale = float(wanted.abs().max())
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("ways", WAYS, ids="+".join)
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_deployed_network_computes_the_same_for_any_batch(name: str, ways: list[str]) -> None:
    model = shaken(NETS[name]())
    fast, report = deploy(model, images(2), rounds=1, ways=ways)
    assert isinstance(fast, FromGraph), report.notes
    assert report.returned == "deployed"
    assert not report.notes
    for batch in (1, 2, 5):
        close(fast(*images(batch)), model(*images(batch)))
    assert not [row for row in report.rows if row.left_out], str(report)


@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_any_batch_may_be_the_example(batch: int) -> None:
    model = shaken(NETS["pre-activation"]())
    fast, report = deploy(model, images(batch), rounds=1)
    assert report.any_batch
    for other in (1, 2, 5):
        close(fast(*images(other)), model(*images(other)))


FUSED = {
    "resnet20": ["bn+relu", *["bn+relu", "bn+add+relu"] * 9],
    "pre-activation": ["", "bn+relu", "add"],
    "mobile": ["bn", "bn", "relu", "", "bn"],
    "concatenating": ["", "", "", ""],
    "shared": ["bn+relu", "bn+add", ""],
    "padded": ["relu", "", "", "bn+relu"],
    "other ranks": ["bn+relu", "bn+relu"],
    "written to": ["", ""],
    "other sums": ["", "", "", "", "", ""],
}


@pytest.mark.parametrize("name", FUSED)
def test_what_follows_a_convolution_is_fused_where_that_is_right(name: str) -> None:
    fast, _ = deploy(shaken(NETS[name]()), images(2), rounds=1, ways=["dense"])
    assert [fused_parts(site) for site in sites_of(fast)] == FUSED[name]


@torch.no_grad()
def test_inputs_and_outputs_keep_their_structure() -> None:
    model = shaken(ManyWays())
    (x,), (y,), scale = images(2), images(2), torch.rand(2, 1, 1, 1)
    given = Inputs(x, other=y * 2, double=True, scale=scale)
    fast, report = deploy(model, given, rounds=1, ways=["dense"])
    assert isinstance(fast, FromGraph), report.notes
    for batch in (1, 5):
        (x,), scale = images(batch), torch.rand(batch, 1, 1, 1)
        wanted = model(x, other=x + 1, double=True, scale=scale)
        for got in (
            fast(x, other=x + 1, double=True, scale=scale),
            fast(x, x + 1, scale=scale, double=True),
            fast(x=x, scale=scale, double=True, other=x + 1),
        ):
            assert list(got) == ["all", "some"]
            assert isinstance(got["some"], tuple)
            close(got["all"], wanted["all"])
            close(got["some"][0], wanted["some"][0])
            close(got["some"][1], wanted["some"][1])


@pytest.mark.parametrize("name", ["resnet20", "stripes", "columns", "mobile", "padded"])
@torch.no_grad()
def test_networks_of_bfloat16_are_as_right_as_those_that_were_given(name: str) -> None:
    model = shaken(NETS[name]())
    low = copy.deepcopy(model).to(torch.bfloat16)
    x = images(2)[0].to(torch.bfloat16)
    fast, report = deploy(low, x, rounds=1)
    assert isinstance(fast, FromGraph), report.notes
    truth = copy.deepcopy(low).double()(x.double())
    scale = truth.abs().max()
    before, after = ((net(x).double() - truth).abs().max() / scale for net in (low, fast))
    assert fast(x).dtype == torch.bfloat16
    assert after < max(2 * before, 0.02)


@torch.no_grad()
def test_outputs_lie_in_memory_as_those_of_the_model() -> None:
    model = shaken(NETS["padded"]())
    fast, _ = deploy(model, images(2), rounds=1, ways=["dense"])
    assert fast(*images(3)).is_contiguous()
    assert fast(*images(3)).stride() == model(*images(3)).stride()


def test_a_buffer_that_is_written_to_goes_on_being_written_to() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.register_buffer("runs", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs.add_(1)  # type: ignore[operator]
            return self.conv(x)

    fast, _ = deploy(Counting(), images(2), rounds=1)
    assert isinstance(fast, FromGraph)
    counted = dict(fast.named_buffers())["body.runs"]
    before = float(counted)
    fast(*images(2))
    assert float(counted) == before + 1
