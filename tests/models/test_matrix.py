"""Every model there is, cut to half: what is promised of one must hold for all of them."""

import zlib

import pytest

from . import ALL
from .case import Case
from .checks import check

# Exporting costs as much as all the rest. Which third does it here is the same everywhere.
EXPORTED = [case.name for case in ALL if zlib.crc32(case.name.encode()) % 3 == 0]


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_half_of_it_is_still_right(case: Case) -> None:
    _check(case, export=case.name in EXPORTED)


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_half_of_it_can_be_exported(case: Case) -> None:
    _check(case, export=True)


def _check(case: Case, *, export: bool) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    outcome = check(case, export=export)
    assert not outcome.problems, "\n".join(["", *outcome.problems])
