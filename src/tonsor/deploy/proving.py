"""See that a deployed model computes what the model does, and say where if it doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.deploy.agree import agree, apart, outputs_agree, worst
from tonsor.deploy.capture import batch_of, fresh, sites_of, with_batch
from tonsor.deploy.deployed import Deployed, FromGraph
from tonsor.errors import DeployError
from tonsor.graph.inputs import Inputs


def prove(own: nn.Module, fast: Deployed, given: Inputs) -> None:
    """Compare outputs on the inputs given, on random ones, and on another batch if it is free."""
    for inputs in _examples(fast, given):
        wanted = fresh(inputs).call(own)
        got = fresh(inputs).call(fast)
        if not outputs_agree(got, wanted):
            where = _first_apart(fast, inputs)
            message = (
                f"the deployed model differs from the model by {worst(got, wanted):.1e} of the "
                f"largest output, on inputs {inputs!r}; {where}. It is withheld; "
                "ways=['dense'] deploys without the faster ways"
            )
            raise DeployError(message)


def _examples(fast: Deployed, given: Inputs) -> Iterator[Inputs]:
    yield given
    random = given.map(_random)
    yield random
    if isinstance(fast, FromGraph) and fast.layout.dynamic:
        low, high = fast.layout.free.get("batch", (1, None))
        for size in {1, 2, batch_of(given) + 1}:
            if size >= low and (high is None or size <= high):
                yield with_batch(random, size)


def _random(tensor: Tensor) -> Tensor:
    """Return other numbers of the same size; what counts or chooses stays as it is."""
    if not tensor.is_floating_point() or not tensor.numel():
        return tensor
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
    spread = tensor.detach().float().std().nan_to_num() if tensor.numel() > 1 else 0.0
    return (drawn * (spread or 1.0) + tensor.detach().float().mean()).to(tensor.dtype)


def _first_apart(fast: nn.Module, inputs: Inputs) -> str:
    """Name the first layer whose way differs from what it is to compute."""
    found: list[str] = []

    def look(site: Any, given: tuple[Any, ...], out: Tensor) -> None:
        wanted = site.reference(*given)
        if not agree(out, wanted):
            by = apart(out, wanted)
            found.append(f"the first layer to differ is '{site.name}' ({site.chosen}), by {by:.1e}")

    with ExitStack() as hooks:
        for site in sites_of(fast):
            hooks.callback(site.register_forward_hook(look).remove)
        fresh(inputs).call(fast)
    return found[0] if found else "each layer alone is right"
