"""Where the kernel is tested: on a GPU if there is one, in Triton's interpreter otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tonsor.kernels.gpu import launch


@pytest.fixture(scope="session")
def place() -> Iterator[torch.device]:
    """The device on which the kernel runs here.

    Only our kernel is interpreted: the variable is unset again before anything else of Triton is
    compiled in this process.
    """
    pytest.importorskip("triton", reason="Triton can't be imported here")
    if torch.cuda.is_available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "_TILES", launch._TILES[:1])  # each is compiled for each case
            launch._tuned.cache_clear()
            yield torch.device("cuda")
        launch._tuned.cache_clear()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        launch._compiled.cache_clear()
        assert launch.interpreted()
    yield torch.device("cpu")
    launch._compiled.cache_clear()
