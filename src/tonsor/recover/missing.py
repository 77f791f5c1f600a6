"""What weights no longer read, on average: gathered while the original model runs.

A layer is linear in what it reads, so the mean of what its removed inputs add is what it makes of
their mean. That mean is kept for every position of a picture, and the layer's own operator is run
on it once; so borders, strides and dilations are right whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule
from tonsor.criteria.stream import samples_of, shown, taken_apart, untouched, where_is
from tonsor.errors import DataError, RecoverError
from tonsor.graph.clone import named_tensors
from tonsor.graph.record import Recorder, bind
from tonsor.recover.readers import CONVOLUTIONS, SUMS, Reader


@dataclass(slots=True)
class _Total:
    """The sum of so many inputs of one shape that an operator was given with the same options."""

    run: Any
    options: dict[str, Any]
    shape: tuple[int, ...]
    sum: Tensor
    count: int


class Missing:
    """Adds up what each weight will not read any more."""

    def __init__(self, model: nn.Module, readers: Iterable[Reader]) -> None:
        tensors = dict(named_tensors(model))
        self._weights = {r: tensors[r.weight].detach() for r in readers}
        self._readers = {
            (id(tensors[r.weight]), id(tensors.get(r.bias))): r for r in self._weights
        }  # one without a bias is known by the id of None
        self._totals: dict[Reader, dict[Any, _Total]] = {r: {} for r in self._weights}

    def execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator, and take in what the weights of interest are given."""
        if str(func.overloadpacket) in SUMS:
            bound = bind(func, args, kwargs)
            reader = self._readers.get((id(bound["weight"]), id(bound.get("bias"))))
            if reader is not None:
                options = {k: v for k, v in bound.items() if k not in ("input", "weight", "bias")}
                self._add(reader, func, bound["input"], options)
        return func(*args, **kwargs)

    def _add(self, reader: Reader, func: Any, x: Tensor, options: dict[str, Any]) -> None:
        if str(func.overloadpacket) not in CONVOLUTIONS:
            x = x.reshape(-1, x.shape[-1])
        elif x.dim() < self._weights[reader].dim():
            x = x.unsqueeze(0)
        gone = torch.as_tensor(reader.gone, device=x.device)
        part = x.index_select(1, gone).sum(0, dtype=torch.float64)
        key = func, repr(options), x.shape[1:]
        total = self._totals[reader].get(key)
        if total is None:
            shape = tuple(x.shape[1:])
            self._totals[reader][key] = _Total(func, options, shape, part, len(x))
        else:
            total.sum += part
            total.count += len(x)

    def means(self) -> dict[Reader, Tensor]:
        """Return for each weight that was met the mean of its output that is missing."""
        found = {}
        for reader, totals in self._totals.items():
            weight = self._weights[reader].double()
            sums, places = torch.zeros((), dtype=torch.float64, device=weight.device), 0
            for total in totals.values():
                picture = total.sum.new_zeros(total.shape)
                picture[list(reader.gone)] = total.sum
                out = total.run(input=picture[None], weight=weight, bias=None, **total.options)
                flat = out[0].flatten(1) if out.dim() > 2 else out[0][:, None]
                sums, places = sums + flat.sum(1), places + total.count * flat.shape[1]
            if not places:
                continue
            found[reader] = sums / places
            if not bool(torch.isfinite(found[reader]).all()):
                message = (
                    f"what goes into '{reader.weight}' on this data has no finite mean (NaN or "
                    "infinity among it), so nothing can stand for it. Repair the data or the model."
                )
                raise RecoverError(message)
        return found


@torch.no_grad()
def missing(
    model: nn.Module,
    readers: Iterable[Reader],
    batches: Iterable[Any],
    *,
    at_most: int | None,
    quiet: bool,
) -> tuple[dict[Reader, Tensor], int]:
    """Run the original on data; return the mean that each weight misses, and how many samples."""
    gathered = Missing(model, readers)
    device, seen = where_is(model), 0
    recorder = Recorder(model, has_rule, execute=gathered.execute, lines=False, keep=False)
    with untouched(model, gradients=False):
        for batch in shown(batches, at_most, "measuring what was removed", quiet):
            inputs, _ = taken_apart(batch, device)
            with recorder.recording():
                inputs.call(model)
            seen += samples_of(inputs)
    if not seen:
        message = "batches is empty, so there is nothing to measure; give at least one minibatch"
        raise DataError(message)
    return gathered.means(), seen
