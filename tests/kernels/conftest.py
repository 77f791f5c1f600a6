"""What tests of how kernels come to a machine share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.standin import Home, new_home


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Home]:
    with new_home(monkeypatch, tmp_path) as found:
        yield found
