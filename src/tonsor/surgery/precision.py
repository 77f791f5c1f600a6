"""In which precision a proof runs, and how a model is brought there.

In float64 every request for a lower precision, which a model's own code may make, is raised
as well; the few kernels that exist in lower precision only are computed in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.graph import shapes
from tonsor.graph.fake import Faker
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Execute
from tonsor.surgery.slice import replace_parameter

TOLERANCE = 1e-9
Run = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

_RAISED = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}


@dataclass(frozen=True, slots=True)
class Precision:
    """How operators run, how tensors are raised, and how close two results must be."""

    name: str
    tolerance: float
    run: Run
    raised: bool

    def plain(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator in this precision."""
        return self.run(func, args, kwargs)

    def on_shapes(self, faker: Faker) -> Execute:
        """Return what runs the same operators on fakes."""

        def execute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self.raised:
                args, kwargs = _raised_requests(func, args, kwargs)
            return shapes.run(faker, func, args, kwargs)

        return execute

    def tensor(self, tensor: Tensor) -> Tensor:
        """Bring a tensor to this precision."""
        return tensor.to(self.dtype(tensor.dtype))

    def dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return what a dtype becomes in this precision."""
        return _RAISED.get(dtype, dtype) if self.raised else dtype

    def inputs(self, inputs: Inputs) -> Inputs:
        """Copy inputs in this precision."""
        return inputs.map(self.copy)

    def copy(self, tensor: Tensor) -> Tensor:
        """Copy a tensor in this precision; what has to be raised is not copied twice."""
        raised = self.tensor(tensor.detach())
        return raised if raised.dtype != tensor.dtype else raised.clone()

    def parameter(self, name: str, tensor: Tensor) -> Tensor:
        """Copy a parameter or buffer in this precision; made for `clone`."""
        return replace_parameter(tensor, self.copy(tensor))

    def settle_(self, copy: nn.Module) -> nn.Module:
        """Bring to this precision what `clone` leaves as it is: the mode, plain attributes."""
        copy.eval()
        for module in copy.modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    vars(module)[name] = self.tensor(value)
        return copy


def _promoted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator, with every request for a lower precision raised to float64."""
    if str(func.overloadpacket) == "aten._grouped_mm":
        return _grouped_mm(*args, **kwargs)
    args, kwargs = _raised_requests(func, args, kwargs)
    return func(*args, **kwargs)


def _raised_requests(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = [a.name for a in func._schema.arguments]
    if "dtype" in names:
        place = names.index("dtype")
        if place < len(args) and args[place] in _RAISED:
            args = (*args[:place], _RAISED[args[place]], *args[place + 1 :])
        elif kwargs.get("dtype") in _RAISED:
            kwargs = {**kwargs, "dtype": _RAISED[kwargs["dtype"]]}
    return args, kwargs


def _grouped_mm(
    rows: Tensor, weights: Tensor, offs: Tensor, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    out = rows.new_zeros(rows.shape[0], weights.shape[2])
    start = 0
    for expert, stop in enumerate(offs.tolist()):
        out[start:stop] = rows[start:stop] @ weights[expert]
        start = stop
    return out if bias is None else out + bias


def _as_is(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


DOUBLE = Precision("float64", TOLERANCE, _promoted, raised=True)
NATIVE = Precision("the model's own precision", 1e-4, _as_is, raised=False)
