"""The cases themselves hold: unique names, same build each time, finite outputs."""

from collections import Counter

import pytest
import torch

from . import ALL
from .case import Case, output_tensors


def test_names_are_unique() -> None:
    counts = Counter(case.name for case in ALL)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_case_is_sound(case: Case) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    again, more_args, more_kwargs = case.build()
    assert not any(module.training for module in model.modules())

    state, same_state = model.state_dict(), again.state_dict()
    assert state.keys() == same_state.keys()
    for key, value in state.items():
        torch.testing.assert_close(same_state[key], value, rtol=0, atol=0, equal_nan=True)
    inputs, same_inputs = output_tensors([args, kwargs]), output_tensors([more_args, more_kwargs])
    torch.testing.assert_close(same_inputs, inputs, rtol=0, atol=0)

    outputs = output_tensors(model(*args, **kwargs))
    with torch.no_grad():
        same_outputs = output_tensors(again(*more_args, **more_kwargs))
    assert any(output.numel() for output in outputs)
    for output in outputs:
        assert output.isfinite().all()
    torch.testing.assert_close(same_outputs, outputs, rtol=1e-4, atol=1e-4)
