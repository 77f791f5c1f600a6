"""With TONSOR_HYPOTHESIS=slow the laws look for new examples, which takes its time."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("TONSOR_HYPOTHESIS") != "slow":
        return
    for item in items:
        here = Path(__file__).parent in item.path.parents
        if here and isinstance(item, pytest.Function) and hypothesis.is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.slow)
