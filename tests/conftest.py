"""What every test shares: one thread, no network, repeatable examples, and the real data."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would download something fails at once
torch.set_num_threads(1)  # the workers already share the cores

# Laws are checked on the same examples every time, so that a red test is red for everybody.
# TONSOR_HYPOTHESIS=slow looks for new ones. No deadlines: a busy machine is not a bug.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("slow", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("TONSOR_HYPOTHESIS") or "ci")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with `cifar10/` and `weights/`, named by TONSOR_DATA."""
    named = os.environ.get("TONSOR_DATA")
    if not named:
        pytest.skip("needs real data: set TONSOR_DATA to a folder with cifar10/ and weights/")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"TONSOR_DATA names '{folder}', which is not a folder; correct or unset it")
    return folder
