"""Layers of fibres become ordinary operators where a graph is made of them, with same numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.surgery import column_cases, stripe_cases
from tonsor.cost.engines.exported import _hushed
from tonsor.surgery.column_conv import columned
from tonsor.surgery.fibre_conv import FibreConv
from tonsor.surgery.stripe_conv import striped

CASES: Any = {"stripes": stripe_cases, "columns": column_cases}
MADE: Any = {"stripes": striped, "columns": columned}
WAYS = pytest.mark.parametrize(
    ("kind", "run"), [(kind, run) for kind in MADE for run in ("dense", kind)]
)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
CLOSE: Any = {"rtol": 1e-5, "atol": 1e-6}


@contextmanager
def warned() -> Iterator[None]:
    """Let the exporter warn of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Net(nn.Module):
    """Convolutions of many kinds behind each other, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")
        self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.side = nn.Conv2d(12, 12, (1, 2), padding="same")
        self.wide = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.down(self.stem(x).relu())).relu()
        x = x + self.wide(self.side(x).relu())
        return self.last(x.mean((2, 3)))


def nets(kind: str, run: str) -> tuple[nn.Module, nn.Module]:
    """Make the network with fibres, and what it is to compute."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = Net().eval()
    wanted: Any = Net().eval()
    wanted.load_state_dict(net.state_dict())
    for name, conv in list(net.named_children()):
        if isinstance(conv, nn.Conv2d):
            rows = conv.out_channels if kind == "stripes" else conv.in_channels
            mask = rng.random((rows, int(np.prod(conv.kernel_size)))) < 0.4
            setattr(net, name, MADE[kind](conv, mask, run))
            setattr(wanted, name, CASES[kind].masked(conv, mask))
    held = [m.kind for m in net.modules() if isinstance(m, FibreConv)]
    assert held == [kind] * 4
    return net, wanted


def images(batch: int) -> Tensor:
    return torch.randn(batch, 3, 11, 12, generator=torch.Generator().manual_seed(batch))


def ordinary(program: torch.export.ExportedProgram) -> bool:
    """Whether a graph holds operators of aten alone."""
    calls = [n for n in program.graph.nodes if n.op == "call_function"]
    return bool(calls) and all(str(n.target).startswith("aten.") for n in calls)


@WAYS
def test_a_network_is_exported_for_any_batch(kind: str, run: str) -> None:
    net, wanted = nets(kind, run)
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (images(2),), dynamic_shapes=({0: batch},))
    assert ordinary(program)
    many = [n for n in program.graph.nodes if "conv2d" in str(n.target)]
    assert (len(many) == 4) == (run == "dense")
    for size in (1, 2, 5):
        torch.testing.assert_close(program.module()(images(size)), wanted(images(size)), **CLOSE)


@WAYS
def test_images_may_have_any_size_in_an_exported_layer(kind: str, run: str) -> None:
    mask = np.random.default_rng(0).random((8 if kind == "stripes" else 3, 9)) < 0.4
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1).eval()
    sizes = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    layer = MADE[kind](conv, mask, run)
    program = torch.export.export(layer, (images(2),), dynamic_shapes=(sizes,))
    for height in (8, 11, 14):
        x = torch.randn(3, 3, height, 17)
        torch.testing.assert_close(program.module()(x), CASES[kind].masked(conv, mask)(x), **CLOSE)


@WAYS
@settings(max_examples=8)
@given(data=st.data())
def test_any_layer_is_exported(kind: str, run: str, data: st.DataObject) -> None:
    mine = CASES[kind]
    case = data.draw(mine.cases())
    with warned():
        program = torch.export.export(mine.layer_of(case, run), (case.x(),))
        wanted = mine.masked(case.conv(), case.mask)(case.x())
    assert ordinary(program)
    torch.testing.assert_close(program.module()(case.x()), wanted, rtol=1e-12, atol=1e-12)


@WAYS
def test_a_network_runs_as_an_onnx_file_for_any_batch(kind: str, run: str) -> None:
    runtime: Any = pytest.importorskip("onnxruntime")
    net, wanted = nets(kind, run)
    with warned(), _hushed():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            net, (images(2),), dynamo=True, verbose=False, dynamic_shapes=shapes
        )
    assert program is not None
    assert {node.domain for node in program.model.graph} == {""}
    assert not program.model.functions
    kinds = [node.op_type for node in program.model.graph]
    assert (kinds.count("Conv") == 4) == (run == "dense")
    file: Any = io.BytesIO()
    program.save(file)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = runtime.InferenceSession(file.getvalue(), options)
    (name,) = [i.name for i in session.get_inputs()]
    for size in (1, 2, 5):
        (found,) = session.run(None, {name: images(size).numpy()})
        torch.testing.assert_close(torch.from_numpy(found), wanted(images(size)), **CLOSE)


@WAYS
def test_a_network_is_compiled_without_a_break(kind: str, run: str) -> None:
    net, wanted = nets(kind, run)
    torch._dynamo.reset()
    with warned():
        compiled: Any = torch.compile(net, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(images(2)), wanted(images(2)), **CLOSE)
        down: Any = net.get_submodule("down")
        with torch.no_grad():
            down.weight.mul_(2)
            wanted.get_submodule("down").weight.mul_(2)  # pyright: ignore
            torch.testing.assert_close(compiled(images(2)), wanted(images(2)), **CLOSE)
    given, other = images(2).requires_grad_(), images(2).requires_grad_()
    with warned():
        compiled(given).square().sum().backward()
    wanted(other).square().sum().backward()
    torch.testing.assert_close(given.grad, other.grad, rtol=1e-4, atol=1e-4)
    assert down.weight.grad is not None
    assert down.weight.grad.abs().sum() > 0
