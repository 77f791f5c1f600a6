"""The front door: run a model once, on a copy, and hand back the graph of what it did."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tonsor.errors import TraceError, UnsupportedModelError
from tonsor.graph import shapes
from tonsor.graph.clone import clone, named_tensors
from tonsor.graph.export import read_export
from tonsor.graph.fake import Faker
from tonsor.graph.inputs import Inputs, as_inputs, tensors_in
from tonsor.graph.record import Execute, Known, Recorder
from tonsor.types import Graph

Mode = Literal["auto", "fake", "real", "export"]


def trace(
    model: nn.Module,
    inputs: Any,
    *,
    known: Known | None = None,
    mode: Mode = "auto",
    training: bool = False,
) -> Graph:
    """Run `model` once on `inputs` and record every operator.

    The run happens on a copy in eval mode without gradients (in training mode with
    `training`); the model is not touched.
    `mode="auto"` computes shapes only where the model allows it ("fake") and values
    otherwise ("real"); `mode="export"` asks `torch.export` instead, which sees the same
    operators. `known` says for which operators a rule exists.
    """
    model = unwrap(model)
    inputs = as_inputs(inputs)
    check_supported(model)
    if mode == "export":
        return _export(model, inputs)
    if mode != "real":
        try:
            return _record(model, inputs, known, fake=True, training=training)
        except Exception as error:
            if mode == "fake" or _on_meta(model):
                raise _explain(error, model, inputs) from error
    try:
        return _record(model, inputs, known, fake=False, training=training)
    except Exception as error:
        raise _explain(error, model, inputs) from error


def _export(model: nn.Module, inputs: Inputs) -> Graph:
    with _quiet_rng(), quiet():
        copy = clone(model, _shared).eval()
        try:
            program = torch.export.export(copy, inputs.args, inputs.kwargs)
        except Exception as error:
            raise _explain(error, model, inputs) from error
        return read_export(program, copy)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside DataParallel, DistributedDataParallel or torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def check_supported(model: nn.Module) -> None:
    """Refuse what can't be cut: scripted and quantised models, and non-modules."""
    if not isinstance(model, nn.Module):
        message = f"expected a torch.nn.Module, got {type(model).__name__}"
        raise UnsupportedModelError(message)
    if isinstance(model, torch.jit.ScriptModule):
        message = (
            "a scripted model has its sizes compiled in and can't be cut. "
            "Prune the Python model, then script the result."
        )
        raise UnsupportedModelError(message)
    for name, module in model.named_modules():
        if "quantized" in type(module).__module__:
            message = (
                f"'{name}' is quantised ({type(module).__name__}); its packed weights can't be "
                "cut. Prune the float model first, then quantise the result."
            )
            raise UnsupportedModelError(message)
    for name, tensor in named_tensors(model):
        if is_lazy(tensor):
            message = (
                f"'{name}' has no size yet (a lazy module). "
                "Run the model once on real data, then trace it."
            )
            raise UnsupportedModelError(message)


@contextmanager
def prepared(
    model: nn.Module, inputs: Inputs, *, fake: bool
) -> Iterator[tuple[nn.Module, Inputs, Execute | None]]:
    """Yield a copy of the model, in eval mode, inputs for it, and how to run operators on them.

    Copy and inputs are fake or share values: parameters are shared, buffers are copied (a
    forward pass may write into them), and the random state is put back.
    """
    with _quiet_rng(), quiet():
        if not fake:
            yield clone(model, _shared).eval(), inputs.map(_detached), None
            return
        faker = Faker()
        copy = clone(model, faker.named).eval()
        faked = inputs.map(faker.like)
        with faker.mode:
            yield copy, faked, shapes.executor(faker)


def _shared(name: str, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, and torch's log of what can't be done on fake tensors."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


@contextmanager
def _quiet_rng() -> Iterator[None]:
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        yield


def _record(
    model: nn.Module, inputs: Inputs, known: Known | None, *, fake: bool, training: bool
) -> Graph:
    with prepared(model, inputs, fake=fake) as (copy, given, execute):
        copy.train(training)
        recorder = Recorder(copy, known, execute=execute)
        return record_run(recorder, copy, given, "fake" if fake else "real")


def record_run(
    recorder: Recorder,
    copy: nn.Module,
    inputs: Inputs,
    ran: Literal["real", "fake"],
    result: list[Any] | None = None,
) -> Graph:
    """Run a prepared copy under the recorder and close the record into a graph.

    What the model returned is appended to `result`, where that is wanted.
    """
    tensors = {}
    parameters = {id(p) for p in copy.parameters()}
    for name, tensor in named_tensors(copy):
        origin = "parameter" if id(tensor) in parameters else "buffer"
        tensors[name] = recorder.value(tensor, origin, name)
    given = [(path, recorder.value(t, "input", path)) for path, t in inputs.tensors()]
    with recorder.recording():
        out = inputs.call(copy)
    if result is not None:
        result.append(out)
    outputs = [(path, recorder.value(t)) for path, t in tensors_in(out, "output")]
    read = {value for op in recorder.ops for value in op.inputs}
    read |= {value for _, value in outputs}
    return Graph(
        ops=tuple(recorder.ops),
        values=tuple(recorder.values),
        tensors=tensors,
        inputs=tuple(given),
        outputs=tuple(outputs),
        unreached=tuple(
            n for n, v in tensors.items()
            if v not in read and recorder.values[v].origin == "parameter"
        ),
        module_types={n: type(m).__qualname__ for n, m in copy.named_modules()},
        ran=ran,
        calls=tuple(c for c in recorder.calls if c is not None),
    )  # fmt: skip


def _on_meta(model: nn.Module) -> bool:
    return any(t.is_meta for _, t in named_tensors(model))


def _explain(error: Exception, model: nn.Module, inputs: Inputs) -> TraceError:
    message = (
        f"{type(model).__name__} could not be run on {inputs!r}: "
        f"{type(error).__name__}: {error}\n"
        "Check that model(*inputs) runs by itself. Several positional inputs are given as a "
        "tuple, keyword inputs as a dict, both as tonsor.Inputs(x, mask=mask)."
    )
    if "does not require grad" in str(error):
        message += "\nIts forward asks for gradients, and nothing can be followed through those."
    if _on_meta(model):
        message += "\nThe model is on the meta device, where only shapes can be traced."
    return TraceError(message)
