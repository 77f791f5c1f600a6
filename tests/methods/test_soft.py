from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.nets import batches, drive, residual, sgd
from tests.refusals import said
from tonsor.anatomy import inspect
from tonsor.errors import BudgetError, SelectionError
from tonsor.methods.gradual import Gradual
from tonsor.methods.soft import Soft
from tonsor.select.make import plan


def soft(net: nn.Module, anatomy: Any, **options: Any) -> Soft:
    given = {"budget": "macs=50%", "schedule": "soft:4", "combine": "producer", **options}
    return Soft(net, anatomy, **given)


class Late(nn.Module):
    """One filter is large and of no use, the other is small and all that is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.1]]))
            self.last.weight.copy_(torch.tensor([[0.0, 1.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


def learn(net: nn.Module, method: Soft | Gradual, steps: int) -> list[Tensor]:
    """Learn twice the second input; return the weights of the filters after each step.

    The large filter learns next to nothing, and decays.
    """
    first, last = net.parameters()
    optimizer = torch.optim.SGD(
        [{"params": [first], "weight_decay": 1.0}, {"params": [last]}], 0.02
    )
    chance = torch.Generator().manual_seed(0)
    seen = []
    for step in range(steps):
        x = torch.randn(64, 2, generator=chance)
        (net(x) - 2 * x[:, 1:]).square().mean().backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        seen.append(net.get_parameter("first.weight").detach().clone())
    return seen


def test_a_filter_comes_back_that_would_have_been_lost_for_good() -> None:
    options: dict[str, Any] = {"by": "l2", "combine": "producer", "budget": "pieces=50%"}
    net = Late()
    method = Soft(net, inspect(net, torch.zeros(2, 2)), schedule="soft:5", **options)
    seen = learn(net, method, 149)
    assert not seen[4][1].any()  # the small one was set to zero
    assert seen[4][0].any()
    assert seen[5][1].any()  # and went on learning
    assert method.finish().keep == {"first.weight[0]": (1,)}
    assert {r.gone for r in method.history} == {1}
    hard = Late()
    gradual = Gradual(
        hard, inspect(hard, torch.zeros(2, 2)), schedule="iterative:1/5,smoothing=0", **options
    )
    lost = learn(hard, gradual, 149)
    assert not any(w[1].any() for w in lost[4:])
    assert gradual.finish().keep == {"first.weight[0]": (0,)}
    slim = method.finish().apply(net)
    assert slim(torch.tensor([[0.0, 1.0]])) > 0.5


def test_only_what_makes_a_piece_is_set_to_zero() -> None:
    net, anatomy = residual()
    optimizer = sgd(net)
    method = soft(net, anatomy)
    drive(net, method, batches(3), optimizer=optimizer)
    chosen: dict[str, Any] = {}

    def watch(step: int) -> None:
        chosen.update(plan(anatomy, "macs=50%", combine="producer").keep)

    untouched, twin = residual()
    drive(untouched, soft(untouched, twin), batches(3))
    drive(net, method, batches(1, seed=8), optimizer=optimizer, first=3, watch=watch)
    lost = {n: sorted(set(range(anatomy.by_name[n].size)) - set(k)) for n, k in chosen.items()}
    stream, inside = lost["stem.weight[0]"], lost["first.weight[0]"]
    assert stream
    assert inside
    assert not net.stem.weight[stream].any()
    assert not net.second.weight[stream].any()
    assert not net.first.weight[inside].any()
    kept = list(chosen["first.weight[0]"])
    assert net.first.weight[kept][:, list(chosen["stem.weight[0]"])].all()
    for passed_on in (net.norm1.weight, net.norm1.bias, net.second.weight.transpose(0, 1)):
        assert (
            passed_on[inside].flatten(1).any() if passed_on.dim() > 1 else passed_on[inside].all()
        )
    for read in (net.first.weight[kept][:, stream], net.linear.weight):
        assert read.all()


def test_what_is_low_at_the_end_is_cut() -> None:
    net, anatomy = residual()
    method = soft(net, anatomy, schedule="soft:3", by="geometric_median")
    drive(net, method, batches(10))
    once = plan(anatomy, "macs=50%", by="geometric_median", combine="producer")
    decided = method.finish()
    assert decided.keep == once.keep
    assert decided.made_by["schedule"] == "soft:3"
    assert decided.made_by["rounds"] == len(method.history) == 3
    decided.apply(net.eval())


def test_what_can_not_be_done_is_refused() -> None:
    net, anatomy = residual()
    words = said(SelectionError, lambda: soft(net, anatomy, schedule="iterative:3/3"))
    assert "done by Gradual" in words
    assert "can't be met" in said(BudgetError, lambda: soft(net, anatomy, budget="macs=1%"))


@pytest.mark.parametrize("by", ["l2", "taylor_weight"])
@pytest.mark.parametrize("stop", [0, 5, 8])
def test_it_goes_on_as_if_it_had_not_been_stopped(by: str, stop: int) -> None:
    data = batches(11)
    options: dict[str, Any] = {"by": by, "schedule": "soft:4,smoothing=0.8", "skew": 3.0}
    net, anatomy = residual()
    whole = soft(net, anatomy, **options)
    drive(net, whole, data)
    ended, anatomy2 = residual()
    first = soft(ended, anatomy2, **options)
    optimizer = drive(ended, first, data[:stop])
    again, anatomy3 = residual(seed=4)
    again.load_state_dict(ended.state_dict())
    second, moving = soft(again, anatomy3, **options), sgd(again)
    moving.load_state_dict(optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    drive(again, second, data[stop:], optimizer=moving, first=stop)
    assert second.finish() == whole.finish()
    assert second.history == whole.history
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
