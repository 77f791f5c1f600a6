"""Modules whose shapes are written out, shared, cut and joined in awkward ways."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, floats, image, tokens
from .between import on_module, row


class LiteralView(nn.Module):
    """The number of hidden channels stands in the code as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(13, 192), nn.Linear(64, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        b = x.shape[0]
        x = F.gelu(self.up(x)).view(b, 3, 64)
        return self.head(F.gelu(self.down(x)).mean(1))


class AttributeView(nn.Module):
    """The view reads its sizes from attributes, set when the module was made."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 12
        self.embed = nn.Embedding(53, 32)
        self.query, self.key, self.value = (nn.Linear(32, 48) for _ in range(3))
        self.out, self.head = nn.Linear(48, 32), nn.Linear(32, 7)

    def split(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        return x.view(b, n, self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.softmax(q @ k.transpose(2, 3) / self.head_dim**0.5, -1)
        mixed = (scores @ v).transpose(1, 2).contiguous()
        mixed = mixed.view(*mixed.shape[:2], self.num_heads * self.head_dim)
        return self.head((x + self.out(mixed)).mean(1))


class SliceAssign(nn.Module):
    """Branches write into their own slice of a buffer that starts as zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(13, 24), nn.Linear(13, 32)
        self.middle, self.head = nn.Linear(60, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        room = x.new_zeros(x.shape[0], 60)
        room[:, :24] = F.gelu(self.left(x))
        room[:, 24:56] = self.right(x).tanh()
        return self.head(F.gelu(self.middle(room)))


class RawConcat(nn.Module):
    """Hidden channels are joined with the raw input, as dense skip connections do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(27, 32, 3, padding=1)
        self.head = nn.Linear(35, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((x, F.gelu(self.first(x))), 1)
        y = torch.cat((F.gelu(self.second(y)), x), 1)
        return self.head(y.mean((2, 3)))


class FrozenConcat(nn.Module):
    """One of the joined branches is frozen and runs without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Conv2d(3, 16, 3).requires_grad_(False)
        self.free = nn.Conv2d(3, 24, 3)
        self.merge, self.head = nn.Conv2d(40, 32, 3), nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            fixed = torch.relu(self.frozen(x))
        x = F.gelu(self.merge(torch.cat((fixed, F.gelu(self.free(x))), 1)))
        return self.head(x.mean((2, 3)))


class UnequalPicks(nn.Module):
    """Three pieces of one layer's output go three ways, and one of them nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 64)
        self.big, self.small = nn.Linear(30, 24), nn.Linear(14, 24)
        self.head = nn.Linear(24, 7)

    def forward(self, x: Tensor) -> Tensor:
        big, _, small = F.gelu(self.first(x)).split([30, 20, 14], -1)
        return self.head(torch.tanh(self.big(big) + self.small(small)))


class ChannelsLast(nn.Module):
    """Weights and activations are laid out with the channels innermost."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3, 2), nn.ReLU()
        )
        self.head = nn.Linear(32 * 9, 7)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.contiguous(memory_format=torch.channels_last))
        assert x.is_contiguous(memory_format=torch.channels_last)
        return self.head(x.contiguous().flatten(1))


class PadShortcut(nn.Module):
    """A wider layer is added to a narrower one that is padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 36, 3, padding=1)
        self.head = nn.Linear(36, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.narrow(x))
        x = F.gelu(self.wide(x)) + F.pad(x, (0, 0, 0, 0, 0, 20))
        return self.head(x.mean((2, 3)))


class SharedLoop(nn.Module):
    """One layer appears three times in a list, next to one that appears once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(13, 48)
        shared, own = nn.Linear(48, 48), nn.Linear(48, 48)
        self.layers = nn.ModuleList([shared, own, shared, shared])
        self.head = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.head(x)


class SharedTwoPlaces(nn.Module):
    """One layer is used on two tensors that are later joined."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(13, 32), nn.Linear(13, 32)
        self.shared, self.head = nn.Linear(32, 24), nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x).relu(), self.right(x).tanh()
        return self.head(torch.cat((self.shared(left), self.shared(right).relu()), -1))


class CausalDilated(nn.Module):
    """Pad on both sides, then slice the future away; once more with a strided slice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(6, 24, 3, padding=2)
        self.second = nn.Conv1d(24, 32, 3, padding=4, dilation=2)
        self.head = nn.Conv1d(32, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x)[:, :, :-2])
        x = F.gelu(self.second(x)[..., : x.shape[-1]])
        return self.head(x[..., ::2])


class FusedProducts(nn.Module):
    """addmm and baddbmm in place of layers, and a transposed contraction."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(13, 48) * 0.3)
        self.shift = nn.Parameter(torch.randn(48))
        self.banks = nn.Parameter(torch.randn(2, 24, 20) * 0.2)
        self.bank_shift = nn.Parameter(torch.randn(2, 1, 20))
        self.last = nn.Parameter(torch.randn(7, 40) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(torch.addmm(self.shift, x, self.first))
        parts = x.view(-1, 2, 24).transpose(0, 1)
        parts = torch.baddbmm(self.bank_shift, parts, self.banks, alpha=0.7)
        x = F.gelu(parts.transpose(0, 1).flatten(1))
        return torch.tensordot(x, self.last, dims=([1], [1]))  # pyright: ignore[reportArgumentType]


class NormAfterFlatten(nn.Module):
    """Batch norm over flattened features: each channel owns nine of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 4, 2), nn.BatchNorm1d(16 * 9)
        self.middle, self.head = nn.Linear(16 * 9, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.conv(x).flatten(1)))
        return self.head(F.gelu(self.middle(x)))


class NormOverImage(nn.Module):
    """Layer norm over channels, rows and columns together; its weight has all three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 24, 3), nn.LayerNorm([24, 6, 6])
        self.second, self.head = nn.Conv2d(24, 28, 3), nn.Linear(28, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.conv(x)))
        return self.head(F.gelu(self.second(x)).mean((2, 3)))


class LiveBatchNorm(nn.Module):
    """Batch norm without running statistics, which looks at the batch even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24, track_running_stats=False)
        self.second, self.head = nn.Conv2d(24, 28, 3, 2), nn.Linear(28, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.first(x)))
        return self.head(F.gelu(self.second(x)).mean((2, 3)))


class PinnedEverywhere(nn.Module):
    """Every width is the input's or the output's: there is nothing to prune."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(13, 13), nn.Linear(13, 13)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.a(x))
        return x * torch.sigmoid(self.b(x))


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


def _case(name: str, model: Any, inputs: Any = row, cut: Cut = "free", note: str = "") -> Case:
    return on_module(name, model, inputs, family="shapes", cut=cut, note=note)


def _small() -> Tensor:
    return image(8)


CASES = [
    _case("literal_view", LiteralView, cut="partly", note="view(b, 3, 64)"),
    _case("attribute_view", AttributeView, tokens, note="view(b, n, num_heads, head_dim)"),
    _case("slice_assign", SliceAssign, note="zeros, filled in place; four stay zero"),
    _case("concat_raw_input", RawConcat, _small),
    _case("concat_frozen_branch", FrozenConcat, _small),
    _case("unequal_picks", UnequalPicks, note="20 of 64 channels go nowhere"),
    _case("channels_last", ChannelsLast, lambda: image(9)),
    _case("pad_shortcut", PadShortcut, _small, "partly"),
    _case("shared_in_list", SharedLoop),
    _case("shared_two_places", SharedTwoPlaces),
    _case("causal_dilated", CausalDilated, lambda: floats(6, 9)),
    _case("fused_products", FusedProducts, note="addmm, baddbmm, tensordot"),
    _case("norm_after_flatten", NormAfterFlatten, _small),
    _case("norm_over_image", NormOverImage, _small, "partly"),
    _case("batch_norm_live", LiveBatchNorm, _small),
    _case("pinned_everywhere", PinnedEverywhere, cut="pinned"),
    _case("no_parameters", NoParameters, cut="pinned"),
]
