"""Which slices belong to a piece, and which weights make it."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import pieces
from tests.models import ALL
from tonsor.families.channels import Part, as_real, parts, times
from tonsor.types import Axis, Leaf, Member, concat, product

GROUP = Leaf("g", 3)


def axes() -> st.SearchStrategy[Axis]:
    """Axes through which a group of three pieces runs, once or often."""
    others = st.builds(Leaf, st.sampled_from("ab"), st.integers(1, 3))
    leaf = st.one_of(st.just(GROUP), others)

    def composite(inner: st.SearchStrategy[Axis]) -> st.SearchStrategy[Axis]:
        several = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(several.map(lambda a: product(*a)), several.map(lambda a: concat(*a)))

    tree = st.recursive(leaf, composite, max_leaves=4)
    return tree.filter(lambda a: times(a, "g") > 0 and a.size < 200)


@given(axis=axes(), dim=st.integers(0, 2), flip=st.booleans())
def test_a_part_shows_the_slices_of_each_piece(axis: Axis, dim: int, flip: bool) -> None:
    shape = [2, 3, 2]
    shape[dim] = axis.size
    tensor = torch.arange(torch.Size(shape).numel()).view(shape)
    if flip:  # as a transposed weight lies in memory
        tensor = tensor.transpose(0, 2).contiguous().transpose(0, 2)
    found = [Part(Member("w", dim, axis), True, "g", i).of(tensor) for i in range(times(axis, "g"))]
    wanted = list(pieces(tensor, dim, axis, "g"))
    assert len(found) == len(wanted)
    for view, each in zip(found, wanted, strict=True):
        assert len(view) == GROUP.size
        for one, want in zip(view, each, strict=True):
            assert one.flatten().sort().values.tolist() == want.sort().values.tolist()


@given(axis=axes())
def test_a_part_is_a_view(axis: Axis) -> None:
    tensor = torch.zeros(2, axis.size)
    part = Part(Member("w", 1, axis), True, "g", 0)
    part.of(tensor)[1] = 1.0
    (want, *_) = pieces(tensor, 1, axis, "g")
    assert all(bool((each == (i == 1)).all()) or i == 1 for i, each in enumerate(want))
    assert bool((want[1] == 1).all())


def test_a_place_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError, match="does not run through"):
        Part(Member("w", 0, GROUP), True, "g", 1).of(torch.zeros(3))


def test_complex_numbers_are_pairs() -> None:
    found = as_real(torch.tensor([1 + 2j, 3 - 1j]))
    assert found.tolist() == [[1, 2], [3, -1]]
    plain = torch.ones(2)
    assert as_real(plain) is plain


# ---------------------------------------------------------------- what makes a piece


def made(model: nn.Module, inputs: object, group: str) -> dict[tuple[str, int], bool]:
    anatomy = tonsor.inspect(model.eval(), inputs)
    return {(p.member.tensor, p.member.dim): p.made for p in parts(anatomy, anatomy.by_name[group])}


def of_case(name: str, group: str) -> dict[tuple[str, int], bool]:
    model, args, kwargs = next(c for c in ALL if c.name == name).build()
    return made(model, tonsor.Inputs(*args, **kwargs), group)


def test_filters_make_and_the_next_layer_reads() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(),
        nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8 * 16, 2),
    )  # fmt: skip
    found = made(net, torch.randn(1, 3, 8, 8), "0.weight[0]")
    assert found == {("0.weight", 0): True, ("2.weight", 0): False, ("4.weight", 1): False}
    found = made(net, torch.randn(1, 3, 8, 8), "4.weight[0]")
    assert found == {("4.weight", 0): True, ("6.weight", 1): False}


def test_groups_of_a_convolution() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1, groups=2), nn.Flatten())
    anatomy = tonsor.inspect(net, torch.randn(1, 4, 3, 3))
    found = [
        (p.member.tensor, p.member.dim, p.made) for g in anatomy.groups for p in parts(anatomy, g)
    ]
    assert ("0.weight", 0, True) in found
    assert ("2.weight", 0, True) in found
    assert ("2.weight", 1, False) in found
    assert not any(m for name, dim, m in found if (name, dim) == ("2.weight", 1))


def test_a_transposed_convolution_makes_its_second_dimension() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.ReLU(), nn.ConvTranspose2d(5, 2, 2))
    found = made(net, torch.randn(1, 3, 4, 4), "0.weight[1]")
    assert found == {("0.weight", 1): True, ("2.weight", 0): False}


class Plain(nn.Module):
    """Products with matrices that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w).relu() @ self.v.T


def test_a_product_with_a_matrix() -> None:
    assert made(Plain(), torch.randn(2, 4), "w[1]") == {("w", 1): True, ("v", 1): False}


class Square(nn.Module):
    """A stream that a square layer reads and adds to."""

    def __init__(self, *, matmul: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.square, self.matmul = nn.Linear(5, 5), matmul

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = x.relu()
        return self.last(x + (y @ self.square.weight if self.matmul else self.square(y)))


@pytest.mark.parametrize("matmul", [False, True])
def test_a_square_layer_in_a_stream_makes_by_one_dimension_only(matmul: bool) -> None:
    found = made(Square(matmul=matmul), torch.randn(2, 3), "first.weight[0]")
    out = 1 if matmul else 0
    assert found == {
        ("first.weight", 0): True, ("square.weight", out): True,
        ("square.weight", 1 - out): False, ("last.weight", 1): False,
    }  # fmt: skip


def test_an_embedding_that_is_the_output_layer_too_makes() -> None:
    found = of_case("tied_embedding", "embed.weight[1]")
    assert found == {
        ("embed.weight", 1): True, ("mlp.weight", 0): True, ("mlp.weight", 1): False,
    }  # fmt: skip


def test_weights_that_are_computed() -> None:
    net = nn.Sequential(
        torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2)
    )
    found = made(net, torch.randn(2, 3), "0.bias[0]")
    assert found == {
        ("0.parametrizations.weight.original0", 0): True,
        ("0.parametrizations.weight.original1", 0): True,
        ("2.weight", 1): False,
    }


def test_what_a_fused_projection_makes_is_read_behind_attention() -> None:
    found = of_case("vit_qkv_reshape", "blocks.0.attention.qkv.weight[0].1")
    assert found == {
        ("blocks.0.attention.qkv.weight", 0): True, ("blocks.0.attention.out.weight", 1): False,
    }  # fmt: skip


def test_a_cell_makes_its_state_and_reads_it() -> None:
    found = of_case("lstm", "cell.weight_hh_l0[1]")
    assert found[("cell.weight_ih_l0", 0)]
    assert found[("cell.weight_hh_l0", 0)]
    assert not found[("cell.weight_hh_l0", 1)]
