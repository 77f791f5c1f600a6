"""tonsor's own ImageNet ResNets are torchvision's: the same names, and the same scores."""

from __future__ import annotations

import pytest
import torch

from tonsor import zoo

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_weights_of_torchvision_compute_the_same_here(name: str) -> None:
    import torchvision

    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)(num_classes=20).eval()
    ours = zoo.build(name, classes=20).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))
