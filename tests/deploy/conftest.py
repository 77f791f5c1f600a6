"""What tests of deployed models share: a clock that says what it is told to."""

from __future__ import annotations

import pytest

from tonsor.deploy import whole


@pytest.fixture
def deployed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the deployed model take half the time of the others, without a look at the clock."""
    monkeypatch.setattr(
        whole, "_timed", lambda runs, given, rounds: {
            name: [0.5 if name == whole.DEPLOYED else 1.0] * rounds for name in runs
        },
    )  # fmt: skip
