"""Parameters that are raised as they are read: no different from a model that is raised whole."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tonsor.graph.inputs import Inputs, tensors_in
from tonsor.surgery import late
from tonsor.surgery.late import Late
from tonsor.surgery.precision import DOUBLE
from tonsor.surgery.side import Side
from tonsor.types import Cut

from ..models import ALL
from ..models.case import Case

WHOLE = ("transformer_translator", "unregistered_layers")  # these write into weights, or say so


@pytest.fixture(autouse=True)
def _all_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only large parameters."""
    monkeypatch.setattr(late, "LEAST", 1)


def half(model: nn.Module) -> Cut:
    """Keep every other index of every dimension: the reference alone must not make sense."""
    keep = {
        name: tuple(tuple(range(0, n, 2)) if n > 1 else None for n in p.shape)
        for name, p in model.named_parameters(remove_duplicate=False)
    }
    return Cut(keep, {})


def both(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[Side, list[Tensor], list[Tensor]]:
    """Run with late parameters and without."""
    sides = [Side(model, DOUBLE, half(model), late=choice) for choice in (True, False)]
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.random.fork_rng(), torch.no_grad():
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            outs = [side.run(Inputs(*args, **kwargs)) for side in sides]
        finally:
            torch.set_default_dtype(default)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), f"the proof changed '{name}' of the original"
    first, second = ([t for _, t in tensors_in(out)] for out in outs)
    return sides[0], first, second


def check_same(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("case", ALL[::3], ids=lambda case: case.name)
def test_nothing_else_is_computed(case: Case) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    try:
        with torch.no_grad():
            Inputs(*args, **kwargs).call(model)
            side, first, second = both(model, *args, **kwargs)
    except (RuntimeError, IndexError):
        pytest.skip("it does not run with every other weight gone, or not in float64")
    check_same(first, second)
    assert side.late or case.name in WHOLE


# ---------------------------------------------------------------- what could tell the difference


class Layer(nn.Module):
    """One weight and something done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.other = nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Writes(Layer):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.mul_(2.0)
        return x @ self.weight


class WritesIntoAView(Layer):
    def forward(self, x: Tensor) -> Tensor:
        self.weight.view(-1)[:8].zero_()
        return x @ self.weight


class WritesIntoWhatIsTheSame(Layer):
    def forward(self, x: Tensor) -> Tensor:
        made = F.dropout(self.weight, training=False)  # which is the weight itself
        made += 1
        return x @ made + x @ self.weight


class CatchesEverything(Layer):
    def forward(self, x: Tensor) -> Tensor:
        try:
            self.weight.zero_()
        except RuntimeError:
            return x
        return x @ self.weight + x @ self.other


class ReadsMemory(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.weight.data_ptr() else x


@pytest.mark.parametrize(
    "kind",
    [Writes, WritesIntoAView, WritesIntoWhatIsTheSame, CatchesEverything, ReadsMemory],
)
def test_a_model_that_minds_is_raised_whole(kind: type[Layer]) -> None:
    model, x = kind(), torch.randn(3, 6)
    side, first, second = both(model, x)
    assert not side.late
    check_same(first, second)


def test_runs_start_from_the_same_weights_even_if_one_writes_into_them() -> None:
    side = Side(Writes(), DOUBLE)
    x = Inputs(torch.randn(3, 6))
    assert torch.equal(side.run(x), side.run(x))


class HoldsOn(Layer):
    """What the first weight became is still in use when the next ones are read."""

    def forward(self, x: Tensor) -> Tensor:
        made = F.dropout(self.weight, training=False)
        y = F.linear(x, self.other)
        return y + x @ made + x @ self.other.t()


class Looks(Layer):
    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.weight, nn.Parameter)
        assert self.weight.dtype == x.dtype == torch.float64
        assert self.weight.is_contiguous()
        return torch.cat([self.weight, self.other]).sum(0) + F.linear(x, self.weight, self.other[0])


class Loops(nn.Module):
    """A weight that is read at each step of a sequence, and one that is tied."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.cell = nn.GRUCell(8, 8)
        self.out = nn.Linear(8, 12, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        state = torch.zeros(ids.shape[0], 8)
        for x in self.table(ids).unbind(1):
            state = self.cell(x, state)
        return self.out(state)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (HoldsOn(), torch.randn(3, 6)),
        (Looks(), torch.randn(3, 6)),
        (Loops(), torch.randint(0, 12, (2, 5))),
        (nn.LSTM(4, 6, 2, batch_first=True), torch.randn(2, 5, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_model_that_only_reads_needs_no_copy(model: nn.Module, x: Tensor) -> None:
    side, first, second = both(model, x)
    assert side.late
    check_same(first, second)


def test_what_is_read_again_and_again_is_raised_twice_at_most() -> None:
    side, *_ = both(Loops(), torch.randint(0, 12, (2, 5)))
    assert side.whole is not None
    kept = {n for n, p in side.whole.named_parameters() if isinstance(p, Late) and p.value is None}
    assert kept == {"table.weight"}  # tied, but its rows were looked up


# ---------------------------------------------------------------- memory


class Deep(nn.Module):
    """Twelve layers, which look at what is alive while they run."""

    peak = 0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(12))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
            if x.dtype == torch.float64 and "Fake" not in type(x).__name__:
                Deep.peak = max(Deep.peak, sum(alive()))
        return x


def alive() -> Iterator[int]:
    """Bytes of every storage that holds float64."""
    seen = set()
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter) and thing.dtype == torch.float64:
            storage = thing.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                yield storage.nbytes()


@pytest.mark.parametrize("rows", [2, 256])
def test_a_proof_holds_less_than_half_of_a_model_and_few_results(rows: int) -> None:
    model, Deep.peak = Deep(), 0
    weights = sum(4 * p.numel() for p in model.parameters())
    result = rows * 64 * 8
    before = sum(alive())
    tonsor.prune(model, torch.randn(rows, 64), budget="macs=50%")
    assert 0 < Deep.peak - before < weights / 2 + 5 * result
