"""SPP written down a second time: weights are masked in place, and put back after each pass."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from tests.methods.nets import Batch


class WholeBehind(torch.autograd.Function):
    """A convolution by masked weights whose gradients are told by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv, ctx.mask = conv, conv.mask
        return F.conv2d(x, weight * conv.mask, None, conv.stride, conv.padding)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        conv, how = ctx.conv, (ctx.conv.stride, ctx.conv.padding)
        seen = weight if conv.caffe else weight * ctx.mask
        given = conv2d_input(x.shape, seen, grads[0], *how)
        learned = conv2d_weight(x, weight.shape, grads[0], *how)
        if not conv.caffe or conv.lost:
            learned = learned * ctx.mask
        return given, learned, None


class ByHand:
    """Columns of plain convolutions that go by chance, trained by SGD."""

    def __init__(
        self, net: nn.Module, ratio: float, interval: int, most: float, centre: float,
        caffe: bool = False, attached: bool = True, lr: float = 0.05, decay: float = 1e-3,
    ) -> None:  # fmt: skip
        self.net = copy.deepcopy(net)
        self.convs: dict[str, Any] = {
            n: m for n, m in self.net.named_modules() if isinstance(m, nn.Conv2d)
        }
        self.ratio, self.interval, self.attached = ratio, interval, attached
        self.most, self.centre, self.lr, self.decay = most, centre, lr, decay
        self.chance: dict[str, list[float]] = {}
        self.lost: dict[str, set[int]] = {}
        self.moved: dict[str, Tensor] = {}
        for name, conv in self.convs.items():
            size = conv.weight[0].numel()
            self.chance[name], self.lost[name] = [0.0] * size, set()
            conv.caffe, conv.lost, conv.mask = caffe, False, torch.ones_like(conv.weight[:1])
            conv.forward = lambda x, conv=conv: self._passed(conv, x)

    def step(self, number: int, batch: Batch, masks: dict[str, Tensor]) -> None:
        """Train for a step with these masks, `[1, input, y, x]`, and update if it is time."""
        for name, conv in self.convs.items():
            conv.mask = masks[name]
        F.cross_entropy(self.net(batch[0]), batch[1]).backward()
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                self._move(name, parameter)
            if (number + 1) % self.interval == 0:
                for name in self.convs:
                    self._update(name)
            for name, conv in self.convs.items():
                conv.weight.flatten(1)[:, sorted(self.lost[name])] = 0

    @staticmethod
    def _passed(conv: Any, x: Tensor) -> Tensor:
        out: Any = WholeBehind.apply(x, conv.weight, conv)
        return out if conv.bias is None else out + conv.bias[:, None, None]

    def _move(self, name: str, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        change = parameter.grad + self.decay * parameter
        parameter.grad = None
        if name in self.moved:
            conv = self.convs.get(name.removesuffix(".weight"))
            if self.attached and conv is not None and name.endswith("weight"):
                self.moved[name] *= conv.mask
            change = 0.9 * self.moved[name] + change
        self.moved[name] = change
        parameter.sub_(self.lr * change)

    def _update(self, name: str) -> None:
        chance, lost, conv = self.chance[name], self.lost[name], self.convs[name]
        quota = math.ceil(self.ratio * len(chance) - 1e-9)
        if len(lost) == quota:
            return
        norms = conv.weight.flatten(1).abs().sum(0).tolist()
        alive = sorted((j for j in range(len(chance)) if j not in lost), key=lambda j: norms[j])
        alpha = (math.log(2) - math.log(self.centre)) / (self.ratio * len(chance))
        turn = -math.log(self.centre) / alpha
        for rank, j in enumerate(alive):
            if rank <= turn:
                change = self.most * math.exp(-alpha * rank)
            else:
                change = 2 * self.centre * self.most
                change -= self.most * math.exp(-alpha * (2 * turn - rank))
            chance[j] = min(1.0, max(0.0, chance[j] + change))
            if chance[j] > 1 - 1e-9 and len(lost) < quota:
                lost.add(j)
        if len(lost) == quota:
            self.chance[name] = [float(j in lost) for j in range(len(chance))]
        conv.lost = bool(lost)
