from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tonsor.families.blocks.ends import ends_of
from tonsor.families.blocks.find import find_blocks


class Block(nn.Module):
    """A branch beside a shortcut, which ends as it is told."""

    def __init__(self, *last: nn.Module, scale: bool = False) -> None:
        super().__init__()
        self.norm, self.first = nn.LayerNorm(8), nn.Linear(8, 8)
        self.last = nn.Sequential(*last)
        self.scale = nn.Parameter(torch.ones(8)) if scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(F.gelu(self.first(self.norm(x))))
        return x + (y if self.scale is None else y * self.scale)


class Turned(Block):
    """The same, with what the branch makes shown in other forms."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(F.gelu(self.first(self.norm(x)))).transpose(1, 2)
        return x + F.dropout(y.reshape(len(x), 8, -1).permute(0, 2, 1).contiguous(), 0.1, False)


def net(kind: str) -> nn.Module:
    shared = nn.Linear(8, 8)
    builds: dict[str, Any] = {
        "linear": lambda: Block(nn.Linear(8, 8)),
        "without bias": lambda: Block(nn.Linear(8, 8, bias=False)),
        "dropout": lambda: Block(nn.Linear(8, 8), nn.Dropout(0.1)),
        "turned": lambda: Turned(nn.Linear(8, 8)),
        "scaled": lambda: Block(nn.Linear(8, 8), scale=True),
        "bent": lambda: Block(nn.Linear(8, 8), nn.Sigmoid()),
        "shared": lambda: Block(shared),
    }
    return nn.Sequential(nn.Linear(8, 8), builds[kind](), builds[kind](), nn.Linear(8, 3))


ENDS: dict[str, tuple[str, ...]] = {
    "linear": ("last.0.weight", "last.0.bias"), "without bias": ("last.0.weight",),
    "dropout": ("last.0.weight", "last.0.bias"), "turned": ("last.0.weight", "last.0.bias"),
    "scaled": (), "bent": (), "shared": (),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDS)
def test_ends_are_what_makes_a_branch_zero(kind: str) -> None:
    torch.manual_seed(0)
    model = settled(net(kind).double())
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    anatomy = tonsor.inspect(model, x)
    blocks = [b for b in find_blocks(anatomy).removable if b.name in ("1", "2")]
    assert len(blocks) == 2
    for block in blocks:
        ends = ends_of(anatomy, block)
        assert ends == tuple(f"{block.name}.{n}" for n in ENDS[kind])
        if ends:
            silent = copy.deepcopy(model)
            with torch.no_grad():
                for name in ends:
                    silent.get_parameter(name).zero_()
            without = [m for n, m in model.named_children() if n != block.name]
            assert torch.equal(silent(x), nn.Sequential(*without)(x))


@pytest.mark.parametrize(("name", "shortcut"), [("resnet20", "A"), ("resnet20", "B")])
def test_ends_of_residual_blocks_are_the_scale_and_shift_of_the_last_norm(
    name: str, shortcut: Any
) -> None:
    model = settled(tonsor.zoo.build(name, width=0.25, shortcut=shortcut).double())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    anatomy = tonsor.inspect(model, x)
    blocks = find_blocks(anatomy).removable
    assert len(blocks) == 7
    for block in blocks:
        ends = ends_of(anatomy, block)
        assert ends == (f"{block.name}.bn2.weight", f"{block.name}.bn2.bias")
        silent, whole = copy.deepcopy(model), model(x)
        with torch.no_grad():
            for end in ends:
                silent.get_parameter(end).zero_()
        plan = tonsor.plan_blocks(anatomy, remove=[block.name], by="random")
        torch.testing.assert_close(plan.apply(model)(x), silent(x), rtol=1e-12, atol=1e-12)
        assert not torch.allclose(silent(x), whole)


def test_a_block_that_may_not_go_has_no_ends() -> None:
    model = tonsor.zoo.build("resnet20", width=0.25)
    anatomy = tonsor.inspect(model, torch.randn(2, 3, 8, 8))
    stays = [b for b in find_blocks(anatomy) if not b.removable]
    assert stays
    assert all(ends_of(anatomy, b) == () for b in stays)
