"""Modules that hide part of what they do from autograd, or from a tracer."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..case import Case, Cut, image
from .between import Between, ImageBetween, on_module


class FrozenBackbone(nn.Module):
    """The backbone runs without gradients; only the head could be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 36, 3), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Linear(36, 28), nn.ReLU(), nn.Linear(28, 7))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.backbone(x).mean((2, 3))
        return self.head(x)


class DetachedBranch(nn.Module):
    """The second branch reads the trunk without sending gradients back to it."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(13, 48)
        self.left, self.right = nn.Linear(48, 32), nn.Linear(48, 32)
        self.head = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.trunk(x))
        return self.head(self.left(x) + self.right(x.detach()).tanh())


class Checkpointed(nn.Module):
    """Activations are thrown away and made again for the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 48)) for _ in range(2)
        )
        self.head = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            made = checkpoint(block, x, use_reentrant=False)
            assert isinstance(made, Tensor)
            x = x + made
        return self.head(x)


class StraightThrough(torch.autograd.Function):
    """Rounds forward and passes gradients as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 4) / 4

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return grads[0]


class OwnLinear(torch.autograd.Function):
    """A linear layer that saves its input and weight itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T + bias

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight, grads[0].T @ x, grads[0].sum(0)


class CustomLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(13, 48), nn.Linear(48, 32), nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        x = OwnLinear.apply(x, self.middle.weight, self.middle.bias)
        return self.last(F.gelu(x))


class Numpy(nn.Module):
    """The middle of the computation happens in numpy, where no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 32), nn.Linear(32, 48)
        self.third, self.last = nn.Linear(48, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(F.gelu(self.first(x)))
        array = x.detach().cpu().numpy()
        x = torch.from_numpy(array * (abs(array) > 0.1))
        return self.last(F.gelu(self.third(x)))


class DataDependent(nn.Module):
    """Which branch runs depends on the values that come in."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        self.plus, self.minus = nn.Linear(48, 32), nn.Linear(48, 32)
        self.head = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.first(x))
        h = self.plus(h) if x.sum() > 0 else self.minus(h)
        return self.head(F.gelu(h))


class UntilSmall(nn.Module):
    """One layer is repeated until its output is small enough."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.step, self.head = nn.Linear(13, 48), nn.Linear(48, 48), nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) * 4
        for _ in range(6):
            if x.abs().max().item() < 1.0:
                break
            x = torch.tanh(self.step(x)) * 0.7
        return self.head(x)


class Scripted(nn.Module):
    """The middle is compiled by TorchScript, from source or from a recorded run."""

    def __init__(self, traced: bool) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        middle = nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 48)).eval()
        sample = torch.randn(3, 48)
        made: Any = torch.jit.trace(middle, sample) if traced else torch.jit.script(middle)
        self.middle = made
        self.head = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(torch.relu(self.first(x))))


class Hidden(nn.Module):
    """Layers in a plain list, which the module does not know it has."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        self.secret = [nn.Linear(48, 48), nn.Linear(48, 32)]
        self.third, self.last = nn.Linear(32, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        for layer in self.secret:
            x = F.gelu(layer(x))
        return self.last(F.gelu(self.third(x)))


class Ensemble(nn.Module):
    """Four small nets with stacked weights, run at once by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        self.up, self.down = (nn.Parameter(torch.randn(4, *s) * 0.15) for s in ((48, 32), (32, 48)))
        self.head = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))

        def member(up: Tensor, down: Tensor) -> Tensor:
            return F.gelu(x @ up) @ down

        return self.head(torch.vmap(member)(self.up, self.down).mean(0))


class InputGradient(nn.Module):
    """A force field: the output is the gradient of a scalar net with respect to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(
            nn.Linear(13, 48), nn.SiLU(), nn.Linear(48, 32), nn.SiLU(), nn.Linear(32, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            place = x.detach().requires_grad_()
            energy = self.energy(place).sum()
            (force,) = torch.autograd.grad(energy, place, create_graph=True)
        return energy, -force


def frozen_parts() -> nn.Module:
    """One frozen layer, one frozen weight with a free bias, and free layers."""
    model = Between(torch.relu)
    model.second.requires_grad_(False)
    model.third.weight.requires_grad_(False)
    return model


def all_frozen() -> nn.Module:
    return ImageBetween(torch.relu).requires_grad_(False)


def hooked() -> nn.Module:
    """Hooks change what goes into one layer and what comes out of two others."""
    model = Between(torch.relu)
    model.first.register_forward_hook(lambda module, args, output: output * 1.5 + 0.1)
    model.second.register_forward_pre_hook(lambda module, args: (args[0].tanh(),))
    model.third.register_forward_hook(lambda module, args, output: output + args[0][:, :40])
    return model


def _case(
    name: str, model: type[nn.Module] | Any, inputs: Any = None, cut: Cut = "free", note: str = ""
) -> Case:
    inputs = inputs or (lambda: torch.randn(2, 13))
    return on_module(name, model, inputs, family="autograd", cut=cut, note=note)


CASES = [
    _case("frozen_parts", frozen_parts, note="requires_grad is False on some"),
    _case("all_frozen", all_frozen, lambda: image(10), note="requires_grad is False on all"),
    _case("frozen_backbone", FrozenBackbone, lambda: image(10), note="under torch.no_grad"),
    _case("detached_branch", DetachedBranch),
    _case("checkpointed", Checkpointed),
    _case("custom_function", lambda: Between(StraightThrough.apply), note="elementwise"),
    _case("custom_function_linear", CustomLinear, cut="partly", note="holds a matrix product"),
    _case("numpy_inside", Numpy, cut="partly"),
    _case("data_dependent_branch", DataDependent, note="one branch is never seen"),
    _case("data_dependent_loop", UntilSmall),
    _case("jit_script", lambda: Scripted(False), cut="partly"),
    _case("jit_trace", lambda: Scripted(True), cut="partly"),
    _case("unregistered_layers", Hidden, cut="partly", note="layers in a plain list"),
    _case("vmap_ensemble", Ensemble, cut="partly", note="stacked weights under torch.vmap"),
    _case("input_gradient", InputGradient, note="autograd inside forward"),
    _case("hooked", hooked, note="hooks change inputs and outputs; one adds a skip"),
]
