"""What a model case is, and the few helpers that every case is written with."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Built = tuple[nn.Module, tuple, dict]
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
Cut = Literal["free", "partly", "pinned"]


@dataclass(frozen=True)
class Case:
    """One model with the inputs it runs on.

    `build` returns a fresh `(model, args, kwargs)`, the same one each time, and
    `model(*args, **kwargs)` runs. `cut` is a guess, not a measurement: "free" when
    most hidden widths can shrink, "partly" when some can, "pinned" when none can.
    """

    name: str
    build: Callable[[], Built]
    family: str
    note: str = ""
    cut: Cut = "free"


def case(
    name: str,
    model: Callable[[], nn.Module],
    inputs: Callable[[], Any],
    kwargs: Callable[[], dict] = dict,
    *,
    family: str,
    cut: Cut = "free",
    note: str = "",
    seed: int = 0,
) -> Case:
    """A case whose weights and inputs all come from `seed`.

    `inputs` makes the positional arguments: a tuple of them, or one on its own.
    """

    def build() -> Built:
        torch.manual_seed(seed)
        built = randomise(model().eval(), seed)
        given = inputs()
        args, named = given if isinstance(given, tuple) else (given,), kwargs()
        _settle_batch_norms(built, args, named, seed)
        return built, args, named

    return Case(name, build, family, note, cut)


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make every parameter and running statistic of `model` matter, in place.

    Constant parameters (norm scales, zero biases, layer scales) become random, centred
    weights too small to be seen in the output are scaled up to unit gain, and running
    means and variances leave zero and one. Everything else keeps its own initialisation.
    """
    generator = torch.Generator().manual_seed(seed + 1)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(like.shape, generator=generator).mul_(high - low).add_(low).to(like)

    for parameter in model.parameters():
        if not parameter.is_floating_point() or parameter.numel() == 0:
            continue
        spread = parameter.std(correction=0).item()
        middle = parameter.mean().item()
        if spread < 1e-4 and middle > 0.01:
            parameter.copy_(middle * uniform(parameter, 0.5, 1.5))
        elif spread < 1e-4:
            parameter.copy_(middle + uniform(parameter, -0.5, 0.5))
        elif parameter.ndim >= 2 and abs(middle) < spread:
            gain = spread * parameter[0].numel() ** 0.5
            if 0 < gain < 0.9:
                parameter.div_(gain)
    for module in model.modules():
        if isinstance(module, NORMS) and module.weight is not None:
            weight = module.weight
            if weight.abs().mean() < 0.2:
                weight.copy_(uniform(weight, 0.5, 1.5))
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if mean is not None:
            mean.copy_(uniform(mean, -0.3, 0.3))
        if variance is not None:
            variance.copy_(uniform(variance, 0.5, 1.5))
    return model


@torch.no_grad()
def _settle_batch_norms(model: nn.Module, args: tuple, kwargs: dict, seed: int) -> None:
    """Give batch norms statistics near those of the inputs, so that deep nets don't fade out."""
    generator = torch.Generator().manual_seed(seed + 2)

    def settle(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        variance, mean = torch.var_mean(inputs[0], axes, correction=0)
        noise = torch.rand(2, len(mean), generator=generator)
        norm.running_mean.copy_(mean + variance.sqrt() * (noise[0] - 0.5))
        norm.running_var.copy_(variance * (0.7 + 0.6 * noise[1]) + 0.1 * variance.mean() + 0.01)

    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
    ]
    if norms:
        hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
        model(*args, **kwargs)
        for hook in hooks:
            hook.remove()
        model.train().eval()  # some models cache what they made of their weights until they train


def output_tensors(output: Any) -> list[Tensor]:
    """Every tensor or number in a model's output, in a fixed order, whatever holds it."""
    return list(_walk(output))


def _walk(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (bool, int, float, complex)):
        yield torch.tensor(value)
    elif isinstance(value, np.ndarray):
        yield torch.from_numpy(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _walk(inner)
    elif isinstance(value, (tuple, list)):
        for inner in value:
            yield from _walk(inner)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _walk(getattr(value, field.name))
    elif value is not None and not isinstance(value, str) and hasattr(value, "__dict__"):
        # A plain object that carries state, such as a transformers cache.
        for inner in vars(value).values():
            yield from _walk(inner)


def floats(*shape: int) -> Tensor:
    """A batch of two standard normal inputs of this shape."""
    return torch.randn(2, *shape)


def image(size: int = 20, channels: int = 3) -> Tensor:
    """A batch of two square images."""
    return torch.randn(2, channels, size, size)


def tokens(length: int = 7, vocab: int = 53) -> Tensor:
    """A batch of two token sequences, free of the lowest ids (padding, start, end)."""
    return torch.randint(4, vocab, (2, length))
