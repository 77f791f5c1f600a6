"""What hides from autograd, and so from pruners that read autograd's notes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tonsor.api import inspect

from .cutting import cut, reasons, verdicts


class Frozen(nn.Module):
    """Nothing here needs a gradient, and half of it runs without."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 12, 3)
        self.last = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.second(self.first(x).relu()).relu()
        return self.last(x.mean((2, 3)))


def test_a_model_without_gradients_is_seen_whole() -> None:
    model = Frozen().requires_grad_(False)
    with torch.inference_mode():
        made = cut(model, torch.randn(2, 3, 8, 8), ratios={"first": 0.5, "second": 0.5})
    assert made.slim.second.weight.shape == (6, 8, 3, 3)
    assert made.slim.last.weight.shape == (4, 6)
    assert not any(p.requires_grad or p.is_inference() for p in made.slim.parameters())


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.last = nn.Linear(8, 16), nn.Linear(12, 4)
        self.left, self.right = nn.Linear(16, 12), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x).relu()
        return self.last(self.left(x) + self.right(x.detach()).tanh())


def test_a_detached_branch_reads_the_same_channels() -> None:
    model = Detached()
    made = cut(model, torch.randn(2, 8), ratios={"trunk": 0.5})
    kept = made.kept("trunk.weight[0]")
    assert torch.equal(made.slim.right.weight, model.right.weight[:, kept])
    assert torch.equal(made.slim.left.weight, model.left.weight[:, kept])


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.block = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        made: Any = checkpoint(self.block, x, use_reentrant=False)
        return self.last(x + made)


def test_a_checkpointed_block_is_cut_and_still_checkpoints() -> None:
    slim = cut(Checkpointed(), torch.randn(2, 8), ratios={"first": 0.5, "block.0": 0.5}).slim
    assert slim.block[0].weight.shape == (12, 8)
    assert slim.block[2].weight.shape == (8, 12)
    slim(torch.randn(2, 8)).sum().backward()
    assert slim.block[0].weight.grad.shape == (12, 8)


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 4) / 4

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return grads[0]


class OwnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight, grads[0].T @ x


class OwnFunctions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = Rounded.apply(self.first(x))
        return self.last(OwnLinear.apply(x, self.middle.weight).relu())


def test_functions_with_their_own_backward_are_looked_into() -> None:
    made = cut(OwnFunctions(), torch.randn(2, 8), ratios={"first": 0.5, "middle": 0.5})
    assert made.slim.middle.weight.shape == (6, 8)
    made.slim(torch.randn(2, 8)).sum().backward()
    assert made.slim.first.weight.grad.shape == (8, 8)


class ThroughNumpy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = torch.from_numpy(x.detach().numpy() * 2)
        return self.last(self.second(x).relu())


def test_what_leaves_torch_is_pinned_where_it_leaves_and_no_further() -> None:
    anatomy = inspect(ThroughNumpy(), torch.randn(2, 8))
    assert verdicts(anatomy, "second.weight[0]") == ["free"]
    assert verdicts(anatomy, "first.weight[0]") != ["free"]
    assert "x.detach().numpy()" in reasons(anatomy, "first.weight[0]")[0]
