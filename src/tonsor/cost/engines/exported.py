"""The engines that models are exported to, by way of an ONNX file."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.cost.engines.native import flat_tensors
from tonsor.cost.engines.registry import Model, Run, engine
from tonsor.errors import EngineError
from tonsor.graph.inputs import Inputs


def lacking(*packages: str) -> Callable[[], str]:
    """Return what says which of these packages are not installed, and how to get them."""

    def missing() -> str:
        absent = [p for p in packages if find_spec(p) is None]
        if not absent:
            return ""
        return f"{' and '.join(absent)} must be installed: pip install 'tonsor[engines]'"

    return missing


def _from_arrays(out: Any) -> list[Tensor]:
    return [torch.from_numpy(np.array(a)) for a in out]


@engine(
    "onnxruntime",
    missing=lacking("onnx", "onnxscript", "onnxruntime"),
    flat=_from_arrays,
    devices=("cpu",),
)
def onnx_runtime(model: Model, inputs: Inputs, threads: int) -> Run:
    """Run the model in ONNX Runtime, on the CPU."""
    ort: Any = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    with _onnx_file(model, inputs) as (path, arrays):
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = dict(zip([i.name for i in session.get_inputs()], arrays, strict=True))
    return lambda: session.run(None, feed)


@engine(
    "openvino",
    missing=lacking("onnx", "onnxscript", "openvino"),
    flat=_from_arrays,
    devices=("cpu",),
)
def openvino(model: Model, inputs: Inputs, threads: int) -> Run:
    """Run the model in OpenVINO, on the CPU and in full precision."""
    ov: Any = import_module("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
    }  # fmt: skip
    with _onnx_file(model, inputs) as (path, arrays):
        core = ov.Core()
        request = core.compile_model(core.read_model(str(path)), "CPU", settings)
    request = request.create_infer_request()
    feed = dict(enumerate(arrays))
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True).values()


class _Flat(nn.Module):
    """The model with nothing but tensors in and out, as these engines have it."""

    def __init__(self, model: Model, inputs: Inputs) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        places = {id(t): i for i, t in enumerate(_each(self.inputs))}
        given = self.inputs.map(lambda t: tensors[places[id(t)]])
        return tuple(flat_tensors(given.call(self.model)))  # pyright: ignore[reportArgumentType]


def _each(inputs: Inputs) -> list[Tensor]:
    return list({id(t): t for _, t in inputs.tensors()}.values())


@contextmanager
def _onnx_file(model: Model, inputs: Inputs) -> Iterator[tuple[Path, Sequence[Any]]]:
    """Export a model, and yield the file with what it is to be fed."""
    given = _each(inputs)
    with tempfile.TemporaryDirectory(prefix="tonsor-") as folder:
        path = Path(folder) / "model.onnx"
        with _hushed():
            program = torch.onnx.export(
                _Flat(model, inputs).eval(), tuple(given), dynamo=True, verbose=False
            )
        assert program is not None
        if len(program.model.graph.inputs) != len(given):
            message = (
                f"the model reads {len(program.model.graph.inputs)} of the {len(given)} tensors "
                "it is given; leave out those it doesn't read"
            )
            raise EngineError(message)
        program.save(str(path))
        yield path, [t.detach().contiguous().numpy() for t in given]


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep to itself what the exporter says about operators that nobody asked for."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
