"""Ways to wire channels that whole families of networks are known by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, channel_dim, channels, mapping


@block(parts=(2, 3, 4), each=(2, 1, 3), how=("chunk", "split", "sizes", "list"))
class Res2(nn.Module):
    """Parts go on one after the other, each joined by what came out before, as in Res2Net."""

    def __init__(self, shape: Shape, parts: int, each: int, how: str) -> None:
        super().__init__()
        self.dim, self.parts, self.how, self.each = channel_dim(shape), parts, how, each
        part = list(shape)
        part[self.dim] = each
        self.before = mapping(shape, parts * each)
        self.maps = nn.ModuleList(mapping(part, each) for _ in range(parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.how == "chunk":
            first, *rest = x.chunk(self.parts, self.dim)
        elif self.how == "split":
            first, *rest = x.split(x.shape[self.dim] // self.parts, self.dim)
        elif self.how == "sizes":
            first, *rest = x.split([self.each] * self.parts, self.dim)
        else:
            places = range(0, self.parts * self.each, self.each)
            first, *rest = [x.narrow(self.dim, i, self.each) for i in places]
        out = [first]
        for part, layer in zip(rest, self.maps, strict=True):
            out.append(layer(part + out[-1]).relu())
        return torch.cat(out, self.dim)


@block(width=(6, 4, 5), how=("literal", "attribute", "shape"))
class Ghost(nn.Module):
    """Half of the channels is made cheaply from the others; what is too much is left out."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        self.dim, self.how, self.width, self._width = channel_dim(shape), how, width, width
        half = (width + 1) // 2
        inner = list(shape)
        inner[self.dim] = half
        self.first, self.second = mapping(shape, half), mapping(inner, half, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = torch.cat([x, self.second(x)], self.dim).movedim(self.dim, 0)
        if self.how == "literal":
            x = x[: self._width]
        elif self.how == "attribute":
            x = x[: self.width]
        else:
            x = x[: x.shape[0] - self.width % 2]
        return x.movedim(0, self.dim)


@block(how=("scale_shift", "shift", "adaptive"), own=FLAG)
class Film(nn.Module):
    """What a summary says becomes a gain and a shift of every channel."""

    def __init__(self, shape: Shape, how: str, own: bool) -> None:
        super().__init__()
        c, self.dim, self.how = channels(shape), channel_dim(shape), how
        self.say = nn.Linear(c, (1 if how == "shift" else 2) * c)
        self.own = nn.Parameter(torch.randn(c)) if own else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        summary = x.flatten(1, -2).mean(1)
        said = self.say(summary)[:, None] if x.dim() == 3 else self.say(summary)[:, None, None]
        if self.own is not None:
            x = x * self.own
        if self.how == "shift":
            x = x + said
        else:
            gain, shift = said.chunk(2, -1)
            if self.how == "adaptive":
                x = F.layer_norm(x, x.shape[-1:])
            x = x * (1 + gain) + shift
        return x.movedim(-1, self.dim)


@block(bodies=0, half=(2, 3, 1), how=("additive", "affine", "swap"))
class Coupling(nn.Module):
    """Each half is moved by what the other says, as in reversible networks and flows."""

    def __init__(self, shape: Shape, half: int, how: str) -> None:
        super().__init__()
        self.dim, self.how = channel_dim(shape), how
        inner = list(shape)
        inner[self.dim] = half
        self.before = mapping(shape, 2 * half)
        self.f, self.g = mapping(inner, half), mapping(inner, half * (2 if how == "affine" else 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.before(x).chunk(2, self.dim)
        a = a + self.f(b)
        if self.how == "affine":
            gain, shift = self.g(a).chunk(2, self.dim)
            b = b * gain.sigmoid() + shift
        else:
            b = b + self.g(a)
        return torch.cat([b, a] if self.how == "swap" else [a, b], self.dim)


@block(width=(3, 2, 4), steps=(1, 2))
class Gates(nn.Module):
    """Four gates from one map, over one or two steps, as in a recurrent cell by hand."""

    def __init__(self, shape: Shape, width: int, steps: int) -> None:
        super().__init__()
        self.dim, self.steps, self.width = channel_dim(shape), steps, width
        inner = list(shape)
        inner[self.dim] = channels(shape) + width
        self.map = mapping(inner, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape)
        size[self.dim] = self.width
        h = c = x.new_zeros(size)
        for _ in range(self.steps):
            i, f, o, g = self.map(torch.cat([x, h], self.dim)).chunk(4, self.dim)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return h


@block(bodies=1, how=("map", "slice", "add", "put", "index_add"), share=(2, 4))
class Partly(nn.Module):
    """A layer for the first channels only; the others are left as they are, or written over."""

    def __init__(self, shape: Shape, body: nn.Module, how: str, share: int) -> None:
        super().__init__()
        c, self.dim, self.how, self.body = channels(shape), channel_dim(shape), how, body
        self.some = max(1, c // share)
        part = list(shape)
        part[self.dim] = self.some
        self.map = mapping(part, self.some)
        self.places = nn.Buffer(torch.arange(self.some))

    def forward(self, x: Tensor) -> Tensor:
        y = x.movedim(self.dim, 1)
        z = self.map(y[:, : self.some].movedim(1, self.dim)).movedim(self.dim, 1)
        if self.how == "map":
            y = torch.cat([z, y[:, self.some :]], 1)
        elif self.how == "slice":
            y = y.clone()
            y[:, : self.some] = z
        elif self.how == "add":
            y = y.clone()
            y[:, -self.some :] += z
        elif self.how == "put":
            y = y.slice_scatter(z, 1, 0, self.some)
        else:
            y = y.index_add(1, self.places, z)
        return self.body(y.movedim(1, self.dim))


@block(experts=(2, 3), width=WIDTHS, how=("stack", "einsum", "weights", "loop", "top"))
class Experts(nn.Module):
    """Several maps of the same input, weighed by a gate."""

    def __init__(self, shape: Shape, experts: int, width: int, how: str) -> None:
        super().__init__()
        c = channels(shape)
        self.dim, self.how = channel_dim(shape), how
        self.gate = nn.Linear(c, experts)
        if how in ("weights", "einsum"):
            self.weight = nn.Parameter(torch.randn(experts, width, c))
        else:
            self.maps = nn.ModuleList(nn.Linear(c, width) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        gate = self.gate(x).softmax(-1)
        if self.how == "stack":
            y = (torch.stack([m(x) for m in self.maps], -1) * gate[..., None, :]).sum(-1)
        elif self.how == "einsum":
            y = torch.einsum("n...c,koc,n...k->n...o", x, self.weight, gate)
        elif self.how == "weights":
            y = torch.einsum("n...c,koc->n...ko", x, self.weight)
            y = (y * gate.unsqueeze(-1)).sum(-2)
        elif self.how == "loop":
            y = torch.zeros(())
            for i, layer in enumerate(self.maps):
                y = y + gate[..., i : i + 1] * layer(x)
        else:
            value, index = gate.topk(1, dim=-1)
            outs = torch.stack([m(x) for m in self.maps], -2)
            index = index.unsqueeze(-1).expand(*outs.shape[:-2], 1, outs.shape[-1])
            y = outs.gather(-2, index).squeeze(-2) * value
        return y.movedim(-1, self.dim)


@block(how=("transposed", "sum", "cat", "chunk", "lora", "view", "one_for_two", "normed",
            "tied_up"),
       width=(4, 2, 3))  # fmt: skip
class Weights(nn.Module):
    """The weight of a layer is computed from parameters, or used in more than one place."""

    def __init__(self, shape: Shape, how: str, width: int) -> None:
        super().__init__()
        c = channels(shape)
        self.dim, self.how = channel_dim(shape), how
        self.first = nn.Linear(c, width)
        self.second = nn.Linear(width, c)
        self.extra = nn.Parameter(torch.randn(width, c))
        self.low, self.high = nn.Parameter(torch.randn(2, c)), nn.Parameter(torch.randn(width, 2))
        if how == "one_for_two":
            self.second = nn.Linear(c, width)
            self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        w, b = self.first.weight, self.first.bias
        if self.how == "transposed":
            y = F.linear(F.relu(self.first(x)), w.t(), self.second.bias)
        elif self.how == "tied_up":
            y = F.relu(self.first(x)) @ w + x
        elif self.how == "sum":
            y = F.linear(x, w + self.extra, b)
        elif self.how == "cat":
            y = F.linear(x, torch.cat([w, self.extra]))
        elif self.how == "chunk":
            a, z = torch.cat([w, self.extra]).chunk(2)
            y = F.linear(x, a) * F.linear(x, z)
        elif self.how == "lora":
            y = F.linear(x, w + 0.5 * self.high @ self.low, b)
        elif self.how == "view":
            y = F.linear(x, w.reshape(-1).view(len(w), -1), b)
        elif self.how == "one_for_two":
            y = self.first(x) + self.second(x).tanh()
        else:
            y = F.linear(F.normalize(x, dim=-1), F.normalize(w, dim=-1))
        return y.movedim(-1, self.dim)


@block(prototypes=(3, 2, 5), how=("cosine", "distance", "squared", "softmax"))
class Prototypes(nn.Module):
    """How near every place is to each of a few learned points."""

    def __init__(self, shape: Shape, prototypes: int, how: str) -> None:
        super().__init__()
        self.dim, self.how = channel_dim(shape), how
        self.points = nn.Parameter(torch.randn(prototypes, channels(shape)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        if self.how == "cosine":
            y = F.cosine_similarity(x.unsqueeze(-2), self.points, dim=-1)
        elif self.how == "distance":
            y = torch.cdist(x.flatten(1, -2), self.points.expand(len(x), -1, -1))
            y = y.unflatten(1, x.shape[1:-1])
        elif self.how == "squared":
            y = (x.unsqueeze(-2) - self.points).square().sum(-1)
        else:
            y = (x @ self.points.t()).softmax(-1) @ self.points
        return y.movedim(-1, self.dim)


@block(how=("where", "fill", "clone", "lerp", "min", "einsum_gate", "dropout", "diagonal"))
class Choose(nn.Module):
    """Channels meet themselves again, in ways that are not plain arithmetic."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        c, self.dim, self.how = channels(shape), channel_dim(shape), how
        self.other = mapping(shape, c)
        self.gain = nn.Parameter(torch.randn(c))
        self.dropout = nn.Dropout2d() if len(shape) == 4 else nn.Dropout1d()

    def forward(self, x: Tensor) -> Tensor:
        if self.how in ("einsum_gate", "diagonal"):
            z = x.movedim(self.dim, -1)
            if self.how == "diagonal":
                z = z @ torch.diag(self.gain)
            else:
                z = torch.einsum("n...c,c,n...c->n...c", z, self.gain, z)
            return z.movedim(-1, self.dim)
        y = self.other(x)
        if self.how == "fill":
            return x.masked_fill(y > 0, 0.5)
        if self.how == "dropout":
            return self.dropout(x) + y
        lead = self.gain.view(-1, *[1] * (x.dim() - 1 - self.dim))
        if self.how == "where":
            return torch.where(x > 0, y, lead)
        if self.how == "lerp":
            return torch.lerp(x, y, lead.sigmoid())
        if self.how == "min":
            return torch.minimum(x, lead * y)
        x = x.clone()
        x += y
        return x.mul_(lead)
