"""What the tests of refusals share: a small model, and what an error must say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tonsor.errors import TonsorError


class Net(nn.Module):
    """Two hidden layers, of 16 and of 12."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


def said(error: type[TonsorError], act: Callable[[], Any]) -> str:
    """The message of an error that must come."""
    assert issubclass(error, TonsorError)
    with pytest.raises(error) as caught:
        act()
    return str(caught.value)
