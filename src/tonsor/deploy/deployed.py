"""What `tonsor.deploy` gives back: modules that are called as the model was, and only infer."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from tonsor.deploy.calls import Layout
from tonsor.deploy.capture import sites_of
from tonsor.deploy.layers import channels_last
from tonsor.errors import DeployError


class Deployed(nn.Module):
    """A model for inference; see `FromGraph` and `AsItIs`."""

    body: nn.Module

    def train(self, mode: bool = True) -> Deployed:
        """Refuse to train: batch norms are gone, and layers run by operators without gradients."""
        if mode:
            message = (
                "a deployed model can't train: its batch norms are folded away, and its layers run "
                "by operators without gradients. Train the model it was made of, and deploy that"
            )
            raise DeployError(message)
        return super().train(False)


class FromGraph(Deployed):
    """The operators of a model as a graph, in which each convolution has the way it runs."""

    body: fx.GraphModule

    def __init__(self, body: fx.GraphModule, layout: Layout, laid: tuple[bool, ...]) -> None:
        super().__init__()
        self.body, self.layout = body, layout
        # Outputs that the model gave without gaps, in the usual order, come out like that.
        self.laid = laid
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the arguments are those of the model."""
        flat = self.layout.flat(args, kwargs)
        with _no_gradients():
            found = self.body(*flat)
        out = [
            x.contiguous() if usual and isinstance(x, Tensor) else x
            for x, usual in zip(found, self.laid, strict=True)
        ]
        return pytree.tree_unflatten(out, self.layout.made)


class AsItIs(Deployed):
    """The modules of a model as they are, in which convolutions may have the way they run."""

    def __init__(self, body: nn.Module, laid: tuple[bool, ...], *, last: bool) -> None:
        super().__init__()
        self.body, self.laid, self.last = body, laid, last
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the arguments are those of the model."""
        if self.last:
            args, kwargs = pytree.tree_map_only(Tensor, channels_last, (args, kwargs))
        with _no_gradients():
            found = self.body(*args, **kwargs)
        if not self.last and not sites_of(self.body):
            return found
        leaves, spec = pytree.tree_flatten(found)
        out = [
            x.contiguous() if usual and isinstance(x, Tensor) else x
            for x, usual in zip(leaves, self.laid, strict=False)
        ]
        return pytree.tree_unflatten(out, spec)


def laid_as(outputs: Any) -> tuple[bool, ...]:
    """Say which of the outputs lie in memory in the usual order."""
    leaves = pytree.tree_leaves(outputs)
    return tuple(isinstance(x, Tensor) and x.is_contiguous() for x in leaves)


def portable(fast: nn.Module) -> nn.Module:
    """Return a deployed model of ordinary operators: it exports, and runs where no kernel is.

    What was folded and fused stays so. It is called as the model was.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    >>> from tonsor.deploy import deploy
    >>> fast, report = deploy(model, torch.randn(1, 3, 8, 8), rounds=1, quiet=True)
    >>> portable(fast)(torch.randn(1, 3, 8, 8)).shape
    torch.Size([1, 8, 6, 6])
    """
    if not isinstance(fast, Deployed):
        message = f"portable takes what tonsor.deploy gives back, not {type(fast).__name__}"
        raise DeployError(message)
    own = copy.deepcopy(fast)
    for site in sites_of(own):
        site.way, site.chosen = site.reference, ""
    if not isinstance(own, FromGraph):
        return own.body
    body: Any = own.body
    body.graph.set_codegen(own.layout.codegen())
    body.recompile()
    return body


def _no_gradients() -> Any:
    # In a graph that is being made, it would be a block of its own.
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return nullcontext()
    return torch.no_grad()
