"""What is portable is made of ordinary operators, exports, and computes the same."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
import torch

from tests.deploy.nets import NETS, ManyWays, images, shaken
from tonsor.cost.engines.exported import _hushed
from tonsor.deploy import deploy, portable
from tonsor.deploy.deployed import FromGraph
from tonsor.graph.inputs import Inputs

pytestmark = pytest.mark.usefixtures("deployed_wins")
SOME = pytest.mark.parametrize("name", ["stripes", "columns", "mobile", "padded", "written to"])


@SOME
@torch.no_grad()
def test_a_portable_model_is_exported_for_any_batch(name: str) -> None:
    model = shaken(NETS[name]())
    fast, _ = deploy(model, images(2), rounds=1)
    other = portable(fast)
    batch = torch.export.Dim("batch")
    program = torch.export.export(other, images(2), dynamic_shapes=({0: batch},))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert targets
    assert all(t.startswith("aten.") for t in targets)
    if name != "padded":
        assert not any("batch_norm" in t for t in targets if name == "stripes")
    for size in (1, 2, 5):
        wanted = model(*images(size))
        scale = float(wanted.abs().max())
        for got in (other(*images(size)), program.module()(*images(size))):
            torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", ["stripes", "mobile"])
@torch.no_grad()
def test_a_portable_model_runs_as_an_onnx_file(name: str) -> None:
    runtime: Any = pytest.importorskip("onnxruntime")
    model = shaken(NETS[name]())
    other = portable(deploy(model, images(2), rounds=1)[0])
    with warnings.catch_warnings(), _hushed():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            other, images(2), dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    assert program is not None
    file: Any = io.BytesIO()
    program.save(file)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = runtime.InferenceSession(file.getvalue(), options)
    for size in (1, 5):
        (found,) = session.run(None, {session.get_inputs()[0].name: images(size)[0].numpy()})
        wanted = model(*images(size))
        scale = float(wanted.abs().max())
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4 * scale)


@torch.no_grad()
def test_a_portable_model_is_called_as_the_model_was() -> None:
    model = shaken(ManyWays())
    (x,) = images(2)
    fast, _ = deploy(model, Inputs(x, x + 1, double=True), rounds=1)
    assert isinstance(fast, FromGraph)
    got, wanted = portable(fast)(x, x + 2, double=True), model(x, x + 2, double=True)
    assert list(got) == list(wanted)
    torch.testing.assert_close(got["some"], wanted["some"], rtol=1e-4, atol=1e-5)


def test_the_deployed_model_keeps_its_ways() -> None:
    fast, report = deploy(shaken(NETS["mobile"]()), images(2), rounds=1)
    portable(fast)
    from tonsor.deploy.capture import sites_of

    assert [s.chosen for s in sites_of(fast)] == [row.chosen for row in report.rows]
    assert all(s.way is not s.reference for s in sites_of(fast))
