"""What is promised of every model holds for those of torchvision and timm too."""

from __future__ import annotations

import pytest

from tests.models.case import Case
from tests.models.checks import check

from .cases import zoo

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize("case", zoo(), ids=lambda case: case.name)
def test_half_of_it_is_still_right(case: Case) -> None:
    outcome = check(case, export=True)
    assert not outcome.problems, "\n".join(["", *outcome.problems])
