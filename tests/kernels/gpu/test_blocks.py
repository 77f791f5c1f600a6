"""A packed weight holds every weight that stays once, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.gpu.cases import Case, cases
from tonsor.errors import SurgeryError
from tonsor.fibres import FibreMask
from tonsor.kernels.gpu.blocks import Packed, pack
from tonsor.kernels.gpu.clusters import in_order, laid_together, unions
from tonsor.kernels.gpu.window import Window


def unpacked(packed: Packed, groups: int) -> tuple[Tensor, Tensor]:
    """The dense weight that a packed one stands for, and how often each weight is held."""
    per_group = packed.inputs // groups
    shape = (packed.outputs, per_group, *packed.kernel)
    weight, times = torch.zeros(shape), torch.zeros(shape)
    for block, filters in enumerate(packed.filters.tolist()):
        for chunk in range(int(packed.starts[block]), int(packed.starts[block + 1])):
            for place in range(packed.step):
                tap = chunk * packed.step + place
                entry = packed.table[chunk if packed.runs else tap].tolist()
                ahead = place if packed.runs else 0
                for lane, n in enumerate(filters):
                    held = packed.weight[tap, lane]
                    if n < 0 or ahead >= entry[3]:
                        assert held == 0
                        continue
                    channel = entry[0] + ahead - n // (packed.outputs // groups) * per_group
                    weight[n, channel, entry[1], entry[2]] += held
                    times[n, channel, entry[1], entry[2]] += 1
    return weight, times


@settings(max_examples=40)
@given(case=cases())
def test_it_holds_every_weight_that_stays_once(case: Case) -> None:
    case = replace(case, window=Window(), kernel=tuple(min(k, 3) for k in case.kernel))
    packed = case.packed()
    weight, times = unpacked(packed, case.groups)
    assert torch.equal(weight, case.masked)
    assert times.max() <= 1
    assert sorted(n for n in packed.filters.flatten().tolist() if n >= 0) == [*range(case.outputs)]
    work = len(packed.weight) * packed.block
    assert packed.executed == pytest.approx(work / case.weight.numel())


@given(case=cases())
def test_offsets_go_by_padding_and_dilation(case: Case) -> None:
    (top, _), (left, _) = case.window.padding
    still = replace(case, window=Window()).packed().table
    moved = case.packed().table
    down, right = case.window.dilation
    assert torch.equal(moved[:, 1], still[:, 1] * down - top)
    assert torch.equal(moved[:, 2], still[:, 2] * right - left)
    assert torch.equal(moved[:, [0, 3]], still[:, [0, 3]])


@given(case=cases())
def test_hints_are_true(case: Case) -> None:
    packed = case.packed()
    whole = packed.step if packed.runs else 1
    assert packed.full == all(live == whole for live in packed.table[:, 3].tolist())
    if packed.aligned:
        assert packed.runs
        assert all(channel % 16 == 0 for channel in packed.table[:, 0].tolist())
    if packed.ordered:
        held = packed.filters.flatten().tolist()
        assert held == [*range(case.outputs)] + [-1] * (len(held) - case.outputs)


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5])
def test_filters_that_share_their_skeleton_waste_nothing(block: int, keep: float) -> None:
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.random((8, 9)) < keep, block, axis=0)
    mask = mask[rng.permutation(len(mask))]
    packed = pack(torch.ones(len(mask), 64, 3, 3), mask, "stripes", block=block)
    assert packed.executed == pytest.approx(mask.mean())


def test_columns_waste_only_the_end_of_a_list() -> None:
    mask = np.random.default_rng(0).random((128, 9)) < 0.3
    packed = pack(torch.ones(256, 128, 3, 3), mask, "columns")
    assert mask.mean() <= packed.executed <= mask.mean() + packed.step / mask.size
    assert packed.block == 128


def test_a_dense_weight_is_all_there_is() -> None:
    packed = pack(torch.ones(128, 64, 3, 3))
    assert packed.executed == 1
    assert packed.full
    assert packed.aligned
    assert packed.ordered


def test_nothing_that_is_gone_is_multiplied_even_if_it_is_no_number() -> None:
    weight = torch.ones(16, 16, 3, 3)
    mask = np.zeros((16, 9), dtype=bool)
    mask[np.arange(16), np.arange(16) % 9] = True
    gone = torch.from_numpy(~mask).view(16, 1, 3, 3).expand_as(weight)
    packed = pack(weight.masked_fill(gone, torch.nan), mask, "stripes")
    assert packed.weight.isfinite().all()


# ---------------------------------------------------------------- which filters lie together

masks = st.tuples(
    st.integers(1, 40), st.integers(1, 9), st.floats(0, 1), st.integers(0, 999)
).map(lambda a: np.random.default_rng(a[3]).random(a[:2]) < a[2])  # fmt: skip
blocks_of = st.sampled_from([1, 2, 4, 16])


@given(mask=masks, block=blocks_of)
def test_every_filter_lies_in_one_block(mask: FibreMask, block: int) -> None:
    found = laid_together(mask, block)
    assert found.shape == (-(-len(mask) // block), block)
    assert sorted(n for n in found.flatten().tolist() if n >= 0) == [*range(len(mask))]
    for row, filters in zip(unions(mask, found), found.tolist(), strict=True):
        assert row.tolist() == [
            any(mask[n, p] for n in filters if n >= 0) for p in range(mask.shape[1])
        ]


@given(mask=masks, block=blocks_of)
def test_filters_without_stripes_lie_last(mask: FibreMask, block: int) -> None:
    some = [bool(mask[n].any()) for n in laid_together(mask, block).flatten() if n >= 0]
    full = sum(1 for row in laid_together(mask, block) if (row >= 0).all() and mask[row].any())
    assert full >= sum(some) // block
    assert sum(u.any() for u in unions(mask, laid_together(mask, block))) == -(-sum(some) // block)


def test_laying_together_does_less_than_the_order_that_there_is() -> None:
    mask = np.random.default_rng(0).random((256, 9)) < 0.3
    assert unions(mask, laid_together(mask, 16)).mean() < 0.66
    assert unions(mask, in_order(256, 16)).mean() > 0.95


# ---------------------------------------------------------------- what is refused

WHOLE = torch.ones(8, 4, 3, 3)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weight": torch.ones(8, 4, 3)}, r"\[filter, input, row, column\].*Conv2d"),
    ({"groups": 3}, "of 3 groups is packed"),
    ({"block": 24}, r"blocks of \(16, 32, 64, 128\).*block=24"),
    ({"step": 8}, "step=8.*or 0"),
    ({"kind": "stripes"}, "stripes need a mask.*give mask="),
    ({"mask": np.ones((8, 9), dtype=bool)}, "has no mask; give kind="),
    ({"mask": np.ones((8, 9), dtype=bool), "kind": "columns"}, r"4 inputs has the shape \(4, 9\)"),
    ({"mask": np.ones((4, 9), dtype=bool), "kind": "stripes"}, r"8 filters has the shape \(8, 9\)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_belong_together_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SurgeryError, match=message):
        pack(**{"weight": WHOLE, **given})


def test_a_kernel_that_is_too_large_is_refused() -> None:
    with pytest.raises(SurgeryError, match="is larger than an input of 2x5 with padding"):
        Window(dilation=(2, 1), padding=((1, 1), (0, 0))).sizes((3, 3), (2, 5))
