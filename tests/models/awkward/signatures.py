"""Modules with unusual inputs and outputs."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, floats, tokens
from .between import Between, on_module, row

Cache = tuple[tuple[Tensor, Tensor], ...]


class Trunk(nn.Module):
    """13 numbers to 40 hidden units; what comes after is what each case is about."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(13, 48), nn.GELU(), nn.Linear(48, 40), nn.GELU())
        self.head = nn.Linear(40, 7)


@dataclass
class Everything:
    scores: Tensor
    count: int
    loss: Tensor | None = None
    parts: tuple[Tensor, ...] = ()
    label: str = "none"


class Mixed(Trunk):
    """A dataclass with a tensor, an integer, a None, a tuple and a string."""

    def forward(self, x: Tensor) -> Everything:
        scores = self.head(self.trunk(x))
        return Everything(scores, len(x), None, (scores.mean(0), scores.amax(-1)))


class Nested(Trunk):
    """Tuples in lists in dicts, with the raw input handed back as well."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        scores = self.head(self.trunk(x))
        return {"out": [(scores, None), (x, 3)], "best": scores.argmax(-1), "ok": True}


class HiddenStates(Trunk):
    """Every hidden state is part of the output, so none of them may change width."""

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        states = [x]
        for layer in self.trunk:
            states.append(layer(states[-1]))
        return self.head(states[-1]), states


class TwoFeatures(Trunk):
    """The last hidden layer is an output, the one before it is not."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        return features, self.head(features)


class Argmax(Trunk):
    """The only outputs are integers."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(self.trunk(x))
        return scores.argmax(-1), scores.topk(2, -1).indices


class LossInside(Trunk):
    """Given labels, the output is a loss and nothing else."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        scores = self.head(self.trunk(x))
        return scores if labels is None else F.cross_entropy(scores, labels)


class ManyInputs(nn.Module):
    """Positional, keyword, optional, nested and non-tensor inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.extra = nn.Linear(13, 48), nn.Linear(9, 48), nn.Linear(5, 24)
        self.merge, self.head = nn.Linear(72, 40), nn.Linear(40, 7)

    def forward(
        self,
        left: Tensor,
        pair: dict[str, Any],
        *rest: Tensor,
        scale: float = 1.0,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        x = F.gelu(self.left(left) + scale * self.right(pair["right"][0]))
        if mask is not None:
            x = x.masked_fill(mask[:, None], 0.0)
        x = torch.cat((x, self.extra(sum(rest, torch.zeros(())))), -1)
        x = self.head(F.gelu(self.merge(x)))
        return x if bias is None else x + bias


class Cached(nn.Module):
    """Attention that takes a cache of keys and values and returns the longer one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(53, 48)
        self.q, self.k, self.v, self.out = (nn.ModuleList(self.layers()) for _ in range(4))
        self.head = nn.Linear(48, 53)

    @staticmethod
    def layers() -> list[nn.Linear]:
        return [nn.Linear(48, 48) for _ in range(2)]

    def forward(self, ids: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        x = self.embed(ids)
        grown = []
        for i in range(2):
            q, k, v = (
                layer[i](x).unflatten(-1, (4, 12)).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
            if cache is not None:
                k, v = torch.cat((cache[i][0], k), 2), torch.cat((cache[i][1], v), 2)
            grown.append((k, v))
            mixed = F.scaled_dot_product_attention(q, k, v)
            x = x + self.out[i](mixed.transpose(1, 2).flatten(2))
        return self.head(x), tuple(grown)


class StateGiven(nn.Module):
    """The recurrent state comes in as an argument and goes out again, at its own width."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 24)
        self.cell = nn.GRUCell(24, 32)
        self.head = nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 7))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(torch.relu(self.lift(x)), state)
        return self.head(state), state


class Remembers(Trunk):
    """A buffer that every call reads and overwrites; it starts anew for each build."""

    memory: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(1, 40))

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(x)
        mixed = features + self.memory
        self.memory = 0.5 * self.memory + 0.5 * features.detach().mean(0, keepdim=True)
        return self.head(mixed)


class TrainingOnly(Trunk):
    """A layer that evaluation never reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Linear(40, 3)

    def forward(self, x: Tensor) -> Any:
        features = self.trunk(x)
        if self.training:
            return self.head(features), self.side(features)
        return self.head(features)


class Unused(Trunk):
    """Layers and parameters that forward never touches."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 40))
        self.spare = nn.Parameter(torch.randn(48))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def _many() -> tuple[Any, ...]:
    return floats(13), {"right": [floats(9)], "unused": "text"}, floats(5), floats(5)


def _many_more() -> dict[str, Any]:
    return {"mask": torch.tensor([False, True]), "bias": None, "scale": 0.5}


def _cache() -> dict[str, Any]:
    return {"cache": tuple((floats(4, 3, 12), floats(4, 3, 12)) for _ in range(2))}


def _case(
    name: str,
    model: Any,
    inputs: Any = row,
    kwargs: Any = dict,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return on_module(name, model, inputs, kwargs, family="signatures", cut=cut, note=note)


CASES = [
    _case("output_dataclass", Mixed, note="with None, int, str and a tuple"),
    _case("output_nested", Nested, note="hands the input back too"),
    _case("output_hidden_states", HiddenStates, cut="pinned", note="all widths are visible"),
    _case("output_features", TwoFeatures, cut="partly"),
    _case("output_argmax", Argmax, note="integers only"),
    _case("output_loss", LossInside, kwargs=lambda: {"labels": torch.tensor([1, 5])}),
    _case("inputs_many", ManyInputs, _many, _many_more),
    _case("cache_out", Cached, tokens, cut="partly", note="keys and values in the output"),
    _case("cache_in", Cached, lambda: tokens(2), _cache, "partly", "and in the input"),
    _case("state_given", StateGiven, lambda: (floats(6), floats(32)), cut="partly"),
    _case("state_buffer", Remembers, note="two calls give two answers"),
    _case("training_only_head", TrainingOnly),
    _case("unused_layers", Unused),
    _case("batch_of_one", lambda: Between(torch.relu), lambda: torch.randn(1, 13)),
    _case("no_batch_axis", lambda: Between(torch.relu), lambda: torch.randn(13)),
]
