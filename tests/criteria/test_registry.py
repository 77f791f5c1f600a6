"""The table of criteria, and what holds for everyone in it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import looked_at, pictures, small
from tonsor.criteria.registry import CRITERIA, DATA, criterion, find_criterion
from tonsor.criteria.score import Scores, score
from tonsor.errors import ScoreError, SelectionError


def scored(by: str, model: nn.Module | None = None, seed: int = 0, **options: object) -> Scores:
    batches = pictures(2) if CRITERIA[by].reads_data else None
    return score(looked_at(model or small()), by, batches=batches, seed=seed, **options)  # type: ignore[arg-type]


# ---------------------------------------------------------------- names and options


@pytest.mark.parametrize("name", CRITERIA)
def test_says_what_it_is(name: str) -> None:
    found = find_criterion(name)
    assert str(found) == name
    assert found.summary.endswith(".")
    assert len(found.summary) <= 100
    for option, parameter in found.choices.items():
        assert parameter.default is not inspect.Parameter.empty, option
        again = find_criterion(f"{name}:{option}={parameter.default}")
        assert again.options == {option: parameter.default}
        assert find_criterion(str(again)) == again


def test_options_are_read_by_their_types() -> None:
    assert find_criterion("lp:p=2").options == {"p": 2.0}
    assert find_criterion("taylor_gate:per_sample=TRUE").options == {"per_sample": True}
    assert find_criterion("taylor_map: absolute = batch").options == {"absolute": "batch"}


@pytest.mark.parametrize(
    ("by", "says"),
    [("taylor", "did you mean"), ("l3", "did you mean"), ("zzzzz", "known: .*l1"),
     ("l1:p=2", "it has none"),
     ("lp:q=2", "it has p=3.0"), ("lp:p", "no option"), ("lp:p=two", "of type float"),
     ("taylor_gate:per_sample=1", "of type bool"), ("taylor_map:absolute=x", "one of position"),
     ("", "no criterion"), (3, "given by name"), (None, "given by name")],
)  # fmt: skip
def test_what_is_not_understood(by: object, says: str) -> None:
    with pytest.raises(SelectionError, match=says):
        find_criterion(by)


def test_data_is_asked_for() -> None:
    for name, found in CRITERIA.items():
        if found.needs in DATA:
            with pytest.raises(SelectionError, match="looks at data"):
                score(looked_at(small()), name)


# ---------------------------------------------------------------- laws for each of them


@pytest.mark.parametrize("by", CRITERIA)
def test_one_finite_number_for_each_piece(by: str) -> None:
    model = small()
    anatomy, scores = looked_at(model), scored(by, model)
    for name, row in scores.values.items():
        assert row.dtype == np.float64
        assert row.shape == (anatomy.by_name[name].size,)
        assert np.isfinite(row).all()
    assert scores.values.keys() | scores.unscored.keys() == {g.name for g in anatomy.prunable}
    assert all(scores.unscored.values())


@pytest.mark.parametrize("by", CRITERIA)
def test_the_same_seed_the_same_scores(by: str) -> None:
    first, again = scored(by, seed=5), scored(by, seed=5)
    for name in first.values:
        assert first[name].tolist() == again[name].tolist()


def shuffled(model: nn.Module, group: tonsor.types.Group, order: Tensor) -> nn.Module:
    """The same function with the channels of a group in another order."""
    other = small()
    other.load_state_dict(model.state_dict())
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    with torch.no_grad():
        for member in group.members:
            tensor = tensors[member.tensor]
            inner = tensor.shape[member.dim] // group.size
            apart = tensor.unflatten(member.dim, (group.size, inner))
            tensor.copy_(apart.index_select(member.dim, order).flatten(member.dim, member.dim + 1))
    return other


@pytest.mark.parametrize("by", [n for n in CRITERIA if n != "random"])
@pytest.mark.parametrize("number", [0, 1])
def test_shuffled_channels_have_shuffled_scores(by: str, number: int) -> None:
    if CRITERIA[by].needs == "curvature":
        pytest.skip("each weight has signs of its own, so they would have to be shuffled too")
    model = small()
    group = looked_at(model).prunable[number]
    order = torch.randperm(group.size, generator=torch.Generator().manual_seed(3))
    other = shuffled(model, group, order)
    x = pictures(1)[0][0]
    torch.testing.assert_close(other(x), model(x))
    before, after = scored(by, model), scored(by, other)
    for name, row in before.values.items():
        wanted = row[order.numpy()] if name == group.name else row
        np.testing.assert_allclose(after[name], wanted, rtol=1e-5, atol=1e-9)


# ---------------------------------------------------------------- criteria of users


@pytest.fixture
def registered():
    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


@pytest.mark.usefixtures("registered")
def test_a_criterion_of_ones_own() -> None:
    @criterion("peak")
    def peak(weight: Tensor, *, power: int = 1) -> Tensor:
        """The largest weight of a piece."""
        return weight.abs().flatten(1).amax(1) ** power

    model = small()
    found = score(looked_at(model), "peak:power=2", combine="producer")
    wanted = model.conv1.weight.abs().flatten(1).amax(1) ** 2
    np.testing.assert_allclose(found["conv1.weight[0]"], wanted.detach().numpy())
    with pytest.raises(ValueError, match="exists already"):
        criterion("peak")(peak)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "wrong",
    [lambda w: w.sum(), lambda w: w, lambda w: 3, lambda w: None],
    ids=["one", "all", "int", "nothing"],
)
def test_a_criterion_that_does_not_give_one_number_a_piece(wrong: object) -> None:
    criterion("wrong")(wrong)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match="one number for each of"):
        score(looked_at(small()), "wrong")


@pytest.mark.usefixtures("registered")
def test_gradients_are_of_maps_as_they_are_made() -> None:
    with pytest.raises(ValueError, match="where='read'"):
        criterion("wrong", needs="map_gradients", where="read")(lambda m, g: m)
    assert "wrong" not in CRITERIA
