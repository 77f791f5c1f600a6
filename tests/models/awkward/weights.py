"""Parameters that are not simply the weight and bias of a layer."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from ..case import Case, Cut, floats, image, tokens
from .between import Between, ImageBetween, on_module, row


class RawParameters(nn.Module):
    """Weights used by F.linear, by `@` and by F.conv1d, without any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(48, 13) * 0.3)
        self.shift = nn.Parameter(torch.randn(48))
        self.second = nn.Parameter(torch.randn(48, 32) * 0.15)
        self.filters = nn.Parameter(torch.randn(24, 1, 3))
        self.last = nn.Parameter(torch.randn(24, 7) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(F.linear(x, self.first, self.shift))
        x = F.gelu(x @ self.second)
        return F.conv1d(x[:, None], self.filters).amax(-1) @ self.last


class ListAndDict(nn.Module):
    """Weights in a ParameterList and biases in a ParameterDict."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [13, 48, 32, 7]
        shapes = list(pairwise(sizes))
        self.weights = nn.ParameterList(torch.randn(o, i) * i**-0.5 for i, o in shapes)
        self.biases = nn.ParameterDict({f"at{o}": nn.Parameter(torch.randn(o)) for _, o in shapes})

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(F.linear(x, weight, self.biases[f"at{len(weight)}"]))
        return x


class StandardisedConv(nn.Conv2d):
    """Each filter is brought to mean zero and variance one before use."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.flatten(1).std(1)[:, None, None, None] + 1e-5)
        return self._conv_forward(x, weight * 0.1, self.bias)


class MaskedConv(nn.Conv2d):
    """The weight is multiplied by a constant mask: no looking ahead."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3)
        mask = torch.ones_like(self.weight)
        mask[:, :, 2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class QuantisedLinear(nn.Linear):
    """Weights are rounded to 4 bits by row, with the gradient passed straight through."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().amax(1, keepdim=True) / 7
        rounded = (self.weight / scale).round() * scale
        return F.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class LowRank(nn.Module):
    """A weight kept as U @ V, multiplied out before use."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(outputs, rank) * rank**-0.5)
        self.v = nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.u @ self.v)


class Adapted(nn.Module):
    """A frozen linear layer with a small trained update, never merged."""

    def __init__(self, inputs: int, outputs: int, rank: int = 5) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.a, self.b = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2.0 * self.b(self.a(x))


class FourierOperator(nn.Module):
    """Complex weights mix the channels of the lowest frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Conv1d(2, 24, 1)
        self.weight = nn.Parameter(torch.randn(24, 28, 6, dtype=torch.cfloat) * 0.2)
        self.skip = nn.Conv1d(24, 28, 1)
        self.head = nn.Conv1d(28, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        spectrum = torch.fft.rfft(x)[..., :6]
        mixed = torch.einsum("bix,iox->box", spectrum, self.weight)
        mixed = torch.fft.irfft(mixed, n=x.shape[-1])
        return self.head(F.gelu(mixed + self.skip(x)))


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 48), nn.Linear(48, 32)
        self.back = nn.Parameter(torch.randn(48))

    def forward(self, x: Tensor) -> Tensor:
        code = F.gelu(self.second(F.gelu(self.first(x))))
        return F.gelu(code @ self.second.weight + self.back) @ self.first.weight


class TiedEmbedding(nn.Module):
    """The output is a product with the embedding itself, not with a layer that shares it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(53, 48)
        self.norm, self.mlp = nn.RMSNorm(48), nn.Linear(48, 48)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return (x + self.mlp(self.norm(x))) @ self.embed.weight.T


class Bags(nn.Module):
    """Ragged bags of ids, cut by offsets, some of them weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.EmbeddingBag(53, 32, mode="mean")
        self.sum = nn.EmbeddingBag(53, 24, mode="sum")
        self.head = nn.Sequential(nn.Linear(56, 40), nn.ReLU(), nn.Linear(40, 7))

    def forward(self, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        both = self.mean(ids, offsets), self.sum(ids, offsets, weights)
        return self.head(torch.cat(both, -1))


class PositionNet(nn.Module):
    """Learned positions, a learned start token and a fixed table of sines."""

    sines: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(53, 48)
        self.position = nn.Parameter(torch.randn(1, 20, 48))
        self.start = nn.Parameter(torch.randn(48))
        angles = torch.arange(20)[:, None] * torch.logspace(0, -2, 48)
        self.register_buffer("sines", angles.sin(), persistent=False)
        self.mlp = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 48))
        self.head = nn.Linear(48, 7)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = torch.cat((self.start.expand(len(x), 1, -1), x), 1)
        x = x + self.position[:, : x.shape[1]] + self.sines[: x.shape[1]]
        return self.head((x + self.mlp(x)).mean(1))


class ScaleAndShift(nn.Module):
    """Parameters and buffers as wide as the channels, in every shape people give them."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 24, 1, 1))
        self.shift = nn.Parameter(torch.zeros(24, 1, 1))
        self.power = nn.Parameter(torch.ones(24))
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", (torch.arange(24) % 5 != 0).float())
        self.plain = torch.linspace(0.5, 1.5, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale + self.shift
        x = x.abs().clamp(min=0.01) ** self.power.view(1, -1, 1, 1)
        return self.gain * x * self.mask[:, None, None] * self.plain[:, None, None]


class Picked(nn.Module):
    """Channels chosen, in some order, by a buffer of indices."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.randperm(24)[:18])

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.index)


class Symmetric(nn.Module):
    """A parametrisation that ties the inputs and outputs of a square weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


class DoubleLSTM(nn.Module):
    """An LSTM whose output is narrower than its state, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 24)
        self.cell = nn.LSTM(24, 40, 2, batch_first=True, proj_size=16)
        self.head = nn.Linear(16, 7)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(torch.relu(self.lift(x.double())))[0])


def wrapped(wrap: Any) -> nn.Module:
    """An image net whose first two layers have been through `wrap`."""
    model = ImageBetween(torch.relu)
    model.first, model.second = wrap(model.first), wrap(model.second)
    return model


def spectral(wrap: Any) -> nn.Module:
    """Spectral norm, run once in training so that its power iteration has converged."""
    model = wrapped(lambda layer: wrap(layer, n_power_iterations=20))
    model(image(10))
    return model


def weight_norm_by_input() -> nn.Module:
    """Norms along the other axis, and one norm for a whole weight."""
    model = Between(torch.relu)
    parametrizations.weight_norm(model.second, dim=1)
    parametrizations.weight_norm(model.third, dim=None)  # pyright: ignore[reportArgumentType]
    return model


def orthogonal() -> nn.Module:
    model = Between(torch.relu)
    parametrizations.orthogonal(model.second)
    return model


def symmetric() -> nn.Module:
    model = Between(torch.relu, 48)
    model.op = nn.Sequential(nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
    parametrize.register_parametrization(model.op[1], "weight", Symmetric())
    return model


def masked_by_torch() -> nn.Module:
    """What torch's own pruning leaves behind: a mask, and the weight made in a hook."""
    model = ImageBetween(torch.relu)
    prune.ln_structured(model.second, "weight", amount=0.25, n=2, dim=0)
    prune.random_unstructured(model.first, "weight", amount=0.5)
    return model


def replaced(make: Any) -> nn.Module:
    """A fully connected net whose two middle layers were made by `make`."""
    model = Between(torch.relu)
    model.second, model.third = make(32, 48), make(48, 40)
    return model


def conv1d_layers() -> nn.Module:
    """The layer of GPT-2: a linear layer with its weight stored transposed."""
    from transformers.pytorch_utils import Conv1D

    return replaced(lambda inputs, outputs: Conv1D(outputs, inputs))


def standardised() -> nn.Module:
    model = ImageBetween(torch.relu)
    model.first, model.second = StandardisedConv(3, 16, 3), StandardisedConv(16, 24, 3)
    return model


def masked_conv() -> nn.Module:
    model = ImageBetween(torch.relu)
    model.first, model.second = MaskedConv(3, 16), MaskedConv(16, 24)
    return model


def _bags() -> tuple[Tensor, Tensor, Tensor]:
    return tokens(7).flatten(), torch.tensor([0, 3, 9]), torch.rand(14)


def _case(name: str, model: Any, inputs: Any = row, cut: Cut = "free", note: str = "") -> Case:
    return on_module(name, model, inputs, family="weights", cut=cut, note=note)


def _small() -> Tensor:
    return image(10)


CASES = [
    _case("raw_parameters", RawParameters, note="F.linear, @, F.conv1d"),
    _case("parameter_list_dict", ListAndDict),
    _case(
        "weight_norm_old", lambda: wrapped(torch.nn.utils.weight_norm), _small, note="no deepcopy"
    ),
    _case("weight_norm_new", lambda: wrapped(parametrizations.weight_norm), _small),
    _case("weight_norm_axes", weight_norm_by_input, cut="partly", note="dim=1 and dim=None"),
    _case(
        "spectral_norm_old",
        lambda: spectral(torch.nn.utils.spectral_norm),
        _small,
        "partly",
        "no deepcopy",
    ),
    _case("spectral_norm_new", lambda: spectral(parametrizations.spectral_norm), _small, "partly"),
    _case("orthogonal_weight", orthogonal, cut="partly"),
    _case("symmetric_weight", symmetric, cut="partly", note="inputs and outputs tied"),
    _case("masked_by_torch", masked_by_torch, _small, note="torch.nn.utils.prune, no deepcopy"),
    _case("weight_standardised", standardised, _small, "partly"),
    _case("masked_conv", masked_conv, _small),
    _case("quantised_weight", lambda: replaced(QuantisedLinear), cut="partly"),
    _case("low_rank", lambda: replaced(lambda i, o: LowRank(i, o, 10))),
    _case("low_rank_adapter", lambda: replaced(Adapted)),
    _case("hf_conv1d_layer", conv1d_layers, note="weight stored transposed"),
    _case("rms_norm", lambda: Between(nn.RMSNorm(48)), note="nn.RMSNorm", cut="partly"),
    _case("channel_parameters", lambda: ImageBetween(ScaleAndShift()), _small),
    _case("index_select_buffer", lambda: ImageBetween(Picked(), 18), _small),
    _case("fourier_operator", FourierOperator, lambda: floats(2, 17), note="complex weights"),
    _case("tied_transposed", TiedAutoencoder),
    _case("tied_embedding", TiedEmbedding, tokens, note="product with embed.weight.T"),
    _case("embedding_bag", Bags, _bags),
    _case("positions", PositionNet, tokens, note="learned and fixed position tables"),
    _case("lstm_projection_double", DoubleLSTM, lambda: floats(7, 6), "partly"),
]
