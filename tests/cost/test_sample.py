"""Costs are those of one sample, whatever batch the example had."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.cost.nets import accounted, solved
from tests.models import hand_written
from tests.models.case import Case
from tonsor.axes.solve import has_rule, solve
from tonsor.cost.account import Account, account
from tonsor.cost.sample import sample_sizes
from tonsor.graph.inputs import Inputs
from tonsor.graph.trace import trace


class Positions(nn.Module):
    """A table of positions is worked out once, not once for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(2, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.ones(x.shape[1], 2)
        return self.fc(x + self.table(places))


class Sorted(nn.Module):
    """The batch disappears in an axis of sorted tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.fc = nn.Linear(6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        order = self.score(tokens).flatten().sort().indices
        return self.fc(tokens[order])


class Solved(nn.Module):
    """An operator that nobody has a rule for puts the batch last."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.linalg.solve(self.fc.weight, x.T).T)


class Pairs(nn.Module):
    """Every sample is compared with every other."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.fc(x) @ self.fc(other).T


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        (Positions, (4, 6), 4 * 2 * 6 + 4 * 6 * 5),
        (Sorted, (4, 6), 4 * 6 + 4 * 6 * 5),
        (Solved, (6,), 6 * 5),
    ],
)
def test_work_is_counted_for_one_sample(
    build: Callable[[], nn.Module], shape: tuple[int, ...], macs: int, batch: int
) -> None:
    assert accounted(build(), torch.zeros(batch, *shape)).macs() == macs


def test_other_inputs_share_the_batch() -> None:
    for batch in (1, 4):
        x = torch.zeros(batch, 6)
        assert accounted(Pairs(), x, x.clone()).macs() == 2 * 6 * 5 + 5


def test_an_input_without_a_batch_is_one_sample() -> None:
    assert accounted(nn.Conv2d(4, 5, 3), torch.zeros(4, 8, 8)).macs() == 4 * 5 * 9 * 36
    assert accounted(nn.Linear(4, 5), torch.zeros(4)).macs() == 20


def test_no_plan_changes_the_batch() -> None:
    solution = solved(nn.Linear(4, 5), torch.zeros(3, 4))
    (batch,) = sample_sizes(solution)
    result = account(solution)
    assert result.macs({batch: 2, "weight[0]": 3}) == 4 * 3


@pytest.mark.parametrize("case", hand_written.CASES, ids=lambda case: case.name)
def test_batches_do_not_matter(case: Case) -> None:
    model, args, kwargs = case.build()
    inputs = Inputs(*args, **kwargs)
    (first, *_) = (tensor for _, tensor in inputs.tensors())

    def told(change: Callable[[Tensor], Tensor]) -> Account:
        batch = len(first)
        given = inputs.map(lambda t: change(t) if t.ndim and len(t) == batch else t)
        return account(solve(trace(model, given, known=has_rule)))

    one, three = told(lambda t: t[:1]), told(lambda t: torch.cat([t, t[:1]]))
    assert one.by_module() == three.by_module()
    assert one.total("counter_rethinking") == three.total("counter_rethinking")
    assert one.params() == sum(p.numel() for p in model.parameters())
