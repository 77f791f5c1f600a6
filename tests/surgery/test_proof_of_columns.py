"""A proof that fails because of a layer of columns says which one."""

from __future__ import annotations

import copy

import pytest
import torch

import tonsor
from tonsor.errors import ProofError
from tonsor.surgery.column_conv import ColumnConv
from tonsor.surgery.fibre_layers import with_convs


@pytest.mark.parametrize("name", ["layer1.1.conv2", "layer2.1.conv1", "layer3.0.conv1"])
def test_a_wrong_weight_is_named_with_its_layer(name: str) -> None:
    torch.manual_seed(0)
    net, x = tonsor.zoo.build("resnet20", width=0.5).eval(), torch.randn(2, 3, 32, 32)
    slim, report = tonsor.prune_columns(net, x, budget="macs=50%")
    assert isinstance(slim.get_submodule(name), ColumnConv)
    wrong = copy.deepcopy(slim)
    with torch.no_grad():
        wrong.get_parameter(f"{name}.weight").mul_(1.5)
    with pytest.raises(ProofError, match=rf"First seen in '{name}', after aten\.conv2d"):
        report.plan.prove(net, wrong)


@pytest.mark.parametrize("run", ["dense", "columns"])
def test_the_convolutions_that_layers_stand_for_compute_the_same(run: str) -> None:
    torch.manual_seed(0)
    net, x = tonsor.zoo.build("resnet20", width=0.5).eval(), torch.randn(2, 3, 32, 32)
    slim, _ = tonsor.prune_columns(net, x, budget="macs=50%")
    layers = [m for m in slim.modules() if isinstance(m, ColumnConv)]
    for layer in layers:
        layer.run = "columns" if run == "columns" else "dense"
    seen: list[torch.Tensor] = []
    slim.layer2[0].conv1.register_forward_hook(lambda m, args, out: seen.append(out))  # type: ignore[index]
    plain = with_convs(slim)
    assert layers
    assert not any(isinstance(m, ColumnConv) for m in plain.modules())
    torch.testing.assert_close(plain.double()(x.double()), slim.double()(x.double()))
    assert len(seen) == 2  # hooks go along
