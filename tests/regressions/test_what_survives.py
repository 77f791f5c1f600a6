"""What a cut must leave as it is: everything about a model but its sizes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .cutting import cut

HALF = {"0": 0.5, "2": 0.5}
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU"))


def mlp() -> nn.Sequential:
    """Free groups 0.weight[0] of 16 and 2.weight[0] of 12."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)
    )


def convs() -> nn.Sequential:
    """Free groups 0.weight[0] of 16 and 2.weight[0] of 12."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 12, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    )  # fmt: skip


def rows() -> Tensor:
    return torch.randn(2, 8)


def test_frozen_parameters_stay_frozen_and_are_cut_all_the_same() -> None:
    model = mlp()
    model[0].requires_grad_(False)
    model[2].get_parameter("weight").requires_grad_(False)

    slim = cut(model, rows(), ratios=HALF).slim

    assert [n for n, p in slim.named_parameters() if not p.requires_grad] == [
        "0.weight", "0.bias", "2.weight",
    ]  # fmt: skip
    assert slim[0].weight.shape == (8, 8)
    assert slim[2].weight.shape == (6, 8)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.middle = nn.Embedding(20, 16), nn.Linear(16, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.middle

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.again(self.middle(self.embed(ids)).relu()).relu())


def test_ties_stay_ties() -> None:
    slim = cut(Tied(), torch.randint(20, (2, 5)), ratios={"embed": 0.5}).slim
    assert slim.head.weight is slim.embed.weight
    assert slim.again is slim.middle
    assert slim.embed.weight.shape == (20, 8)  # the head's outputs are the words, and stay


def test_memory_format_survives() -> None:
    model = convs().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    slim = cut(model, torch.randn(2, 3, 8, 8), ratios=HALF).slim
    assert slim[2].weight.shape == (6, 8, 3, 3)
    assert slim[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not slim[2].weight.is_contiguous()


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half, torch.float64])
def test_dtype_and_device_survive(dtype: torch.dtype, device: str) -> None:
    model = convs().to(device, dtype)
    slim = cut(model, torch.randn(2, 3, 8, 8, device=device, dtype=dtype), ratios=HALF).slim
    assert {p.dtype for p in slim.parameters()} == {dtype}
    assert {t.device.type for t in slim.state_dict().values()} == {device}
    assert slim[1].num_batches_tracked.dtype == torch.int64
    assert slim[1].running_mean.shape == (8,)


class Mixed(nn.Module):
    """Half a model in half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 12).bfloat16()
        self.last = nn.Linear(12, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu().bfloat16()).relu().double())


def test_parameters_of_several_dtypes_stay_what_they_are() -> None:
    slim = cut(Mixed(), rows(), ratios={"first": 0.5, "second": 0.5}).slim
    found = [layer.weight.dtype for layer in (slim.first, slim.second, slim.last)]
    assert found == [torch.float32, torch.bfloat16, torch.float64]
    assert slim.second.weight.shape == (6, 8)


def test_hooks_survive_and_count_as_part_of_the_forward_pass() -> None:
    model, calls = mlp(), []
    model[0].register_forward_hook(lambda module, args, out: out.sigmoid() - 0.5)
    model[2].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    model[4].register_full_backward_hook(lambda *given: calls.append(given[0]))

    slim = cut(model, rows(), ratios=HALF).slim

    x = rows()
    by_hand = slim[0].weight @ x.T + slim[0].bias[:, None]
    by_hand = slim[2].weight @ ((by_hand.sigmoid() - 0.5).relu() * 2) + slim[2].bias[:, None]
    by_hand = slim[4].weight @ by_hand.relu() + slim[4].bias[:, None]
    torch.testing.assert_close(slim(x), by_hand.T)
    calls.clear()
    slim(x).sum().backward()
    assert calls == [slim[4]]


class Noted(nn.Parameter):
    """A parameter with something written on it."""

    note: str


def test_subclasses_of_parameter_survive_with_their_attributes() -> None:
    model = mlp()
    weight = Noted(model[0].get_parameter("weight").detach().clone())
    weight.note = "no decay"
    model[0].weight = weight
    model[2].get_parameter("weight").lr_scale = 0.1  # pyright: ignore[reportAttributeAccessIssue]

    slim = cut(model, rows(), ratios=HALF).slim

    assert type(slim[0].weight) is Noted
    assert slim[0].weight.note == "no decay"
    assert slim[2].weight.lr_scale == 0.1


def test_training_flags_survive() -> None:
    model = convs().train()
    model[1].eval()  # a batch norm that is frozen while the rest trains
    slim = cut(model, torch.randn(2, 3, 8, 8), ratios=HALF).slim
    assert [m.training for m in slim.modules()] == [m.training for m in model.modules()]
    assert slim.training
    assert not slim[1].training


class Seeded(nn.Module):
    """An integer that happens to be as large as a width, but is not one."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.seed, self.names = 16, 16, {"out": 16}
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x.view(-1, self.width)) + self.seed


def test_integers_that_are_no_sizes_are_left_alone() -> None:
    slim = cut(Seeded(), rows(), ratios={"first": 0.5}).slim
    assert (slim.width, slim.seed, slim.names) == (8, 16, {"out": 16})
    assert (slim.first.out_features, slim.last.in_features) == (8, 8)


def test_gradients_are_carried() -> None:
    model = mlp()
    model(rows()).sum().backward()
    made = cut(model, rows(), ratios=HALF)
    kept, below = made.kept("2.weight[0]"), made.kept("0.weight[0]")
    wanted = model[2].get_parameter("weight").grad
    assert wanted is not None
    assert torch.equal(made.slim[2].weight.grad, wanted[kept][:, below])
    assert made.slim[2].weight.grad.shape == (6, 8)


@pytest.mark.parametrize(
    ("make", "moment"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "momentum_buffer"),
        (lambda p: torch.optim.AdamW(p, lr=0.1), "exp_avg_sq"),
    ],
    ids=["sgd", "adamw"],
)
def test_an_optimizer_is_carried_and_goes_on(make: Any, moment: str) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    model(rows()).square().sum().backward()
    optimizer.step()
    made = cut(model, rows(), ratios=HALF)
    before = optimizer.state[model[2].weight][moment].clone()

    made.plan.apply_to(optimizer, model, made.slim)

    kept, below = made.kept("2.weight[0]"), made.kept("0.weight[0]")
    assert torch.equal(optimizer.state[made.slim[2].weight][moment], before[kept][:, below])
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [
        id(p) for p in made.slim.parameters()
    ]
    loss = made.slim(rows()).square().sum()
    optimizer.zero_grad()
    loss.backward()
    was = copy.deepcopy(made.slim.state_dict())
    optimizer.step()
    assert all(not torch.equal(was[n], p) for n, p in made.slim.named_parameters())
