"""Make torchvision importable beside a CPU build of torch, for this environment alone."""

import sys

import pytest
import torch

_KEPT: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Import torchvision; declare the operators that its own library would, where that fails."""
    try:
        import torchvision  # pyright: ignore[reportMissingImports]
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]


@pytest.fixture(scope="session", autouse=True)
def torchvision_there() -> None:
    """Skip all of this where torchvision is not installed."""
    try:
        import_torchvision()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not here; `make zoo` runs these in their own environment")
