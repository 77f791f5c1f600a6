"""One operation each, most of them across the channels, where pruners lose track of which is which.

An operation that treats all channels alike lets them shrink with "free"; one that ranks,
sums or compares them has a meaning that removing a channel changes, so "partly".
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .between import NEXT, WIDE, on_images, on_rows


def gather_first(h: Tensor) -> Tensor:
    """Each row picks eight of its own channels, by rank."""
    return h.gather(-1, h.argsort(-1)[:, :8])


def scatter_back(h: Tensor) -> Tensor:
    """The five largest channels go back to their places among zeros."""
    top = h.topk(5, -1)
    return torch.zeros_like(h).scatter(-1, top.indices, top.values)


def spread_add(h: Tensor) -> Tensor:
    """Channels are summed into twelve buckets."""
    place = (torch.arange(h.shape[-1]) % 12).expand_as(h)
    return h.new_zeros(h.shape[0], 12).scatter_add(-1, place, h)


def fourier(h: Tensor) -> Tensor:
    """Keep the low frequencies along the channels."""
    spectrum = torch.fft.rfft(h)
    keep = torch.arange(spectrum.shape[-1]) < 12
    return torch.fft.irfft(spectrum * keep, n=h.shape[-1])


def maxout(h: Tensor) -> Tensor:
    """The largest of each three neighbours."""
    return h.unflatten(-1, (-1, 3)).amax(-1)


def blur_channels(h: Tensor) -> Tensor:
    """A moving average that runs along the channel axis."""
    return F.avg_pool1d(h[:, None], 3, 1, 1)[:, 0]


def self_attention(x: Tensor) -> Tensor:
    """Channels attend to each other: the softmax is over channels, the product over pixels."""
    flat = x.flatten(2)
    return ((flat @ flat.mT / 64).softmax(-1) @ flat).view_as(x)


def patches(x: Tensor) -> Tensor:
    """Cut into 2x2 patches, scale each, and put them back."""
    columns = F.unfold(x, 2, stride=2)
    return F.fold(columns * columns.sigmoid(), x.shape[-2:], 2, stride=2)


def correlate(x: Tensor) -> Tensor:
    """Products of the image with shifted copies of itself; every shift is one channel."""
    shifts = [torch.roll(x, (i, j), (2, 3)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return torch.stack([(x * shifted).mean(1) for shifted in shifts], 1)


def coordinates(x: Tensor) -> Tensor:
    """Join two channels that say where each pixel is."""
    ticks = torch.linspace(-1, 1, x.shape[-1])
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"))
    return torch.cat((x, grid.expand(x.shape[0], -1, -1, -1)), 1)


def in_place(x: Tensor) -> Tensor:
    """Every step overwrites the one before."""
    y = x.clone()
    y.mul_(1.5).add_(0.1).relu_()
    y[:, :, 0] = 0.0
    y[:, :, -1] *= 2
    return y


def clever_broadcast(h: Tensor) -> Tensor:
    """An outer product of two halves that is summed back along either side."""
    left, right = h.chunk(2, -1)
    grid = left[:, :, None] * right[:, None, :]
    return torch.cat((grid.sum(1), grid.sum(2)), -1)


def into_batch(x: Tensor) -> Tensor:
    """Channels become samples for a while: pooling can't tell the difference."""
    b, c, h, w = x.shape
    return F.max_pool2d(x.reshape(b * c, 1, h, w), 3, 1, 1).reshape(b, c, h, w)


def whitened(h: Tensor) -> Tensor:
    """Solve against the covariance of the channels."""
    covariance = h.mT @ h + torch.eye(h.shape[-1])
    return torch.linalg.solve(covariance, h.mT).mT


HALF = WIDE // 2

CASES = [
    # Rank and compare channels.
    on_rows("channel_sort", lambda h: h.sort(-1).values, cut="partly"),
    on_rows("channel_topk", lambda h: h.topk(9, -1).values, 9, cut="partly"),
    on_rows("channel_gather", gather_first, 8, cut="partly"),
    on_rows("channel_scatter", scatter_back, cut="partly"),
    on_rows("channel_scatter_add", spread_add, 12, cut="partly"),
    on_rows("channel_max", lambda h: h.amax(-1, keepdim=True), 1, cut="partly"),
    on_rows("channel_maxout", maxout, 16, note="groups of three channels"),
    on_rows("channel_median", lambda h: h - h.median(-1, keepdim=True).values, cut="partly"),
    on_rows("channel_argmax_gate", lambda h: h * (h.argmax(-1, True) > 20), cut="partly"),
    # Sum and scale along channels.
    on_rows("channel_cumsum", lambda h: h.cumsum(-1), cut="partly"),
    on_rows("channel_softmax", lambda h: h.softmax(-1), cut="partly"),
    on_images("channel_softmax_2d", lambda x: x.softmax(1), cut="partly"),
    on_rows("channel_logsumexp", lambda h: h - h.logsumexp(-1, keepdim=True), cut="partly"),
    on_rows("channel_normalize", lambda h: F.normalize(h, dim=-1), note="a unit vector"),
    on_images("channel_normalize_2d", lambda x: F.normalize(x, p=1.0, dim=1)),
    on_rows("channel_standardise", lambda h: (h - h.mean(-1, True)) / h.std(-1, keepdim=True)),
    on_rows("channel_layer_norm", lambda h: F.layer_norm(h, (WIDE,)), cut="partly"),
    on_rows("channel_prod", lambda h: h.tanh().prod(-1, keepdim=True) + h, cut="partly"),
    on_rows("channel_difference", lambda h: h.diff(dim=-1), WIDE - 1, cut="partly"),
    on_rows("channel_blur", blur_channels, cut="partly", note="pooling along the channels"),
    on_rows("channel_fourier", fourier, cut="partly", note="torch.fft along the channels"),
    on_images("channel_attention", self_attention),
    # Move channels around.
    on_rows("channel_roll", lambda h: h.roll(5, -1)),
    on_rows("channel_flip", lambda h: h.flip(-1)),
    on_images("channel_flip_add", lambda x: x + x.flip(1), note="channels tied in mirrored pairs"),
    on_rows("channel_repeat_interleave", lambda h: h.repeat_interleave(2, -1), 2 * WIDE),
    on_rows("channel_tile", lambda h: h.repeat(1, 3), 3 * WIDE),
    on_images("channel_stride", lambda x: x[:, ::2] * x[:, 1::2], 12, note="even times odd"),
    on_images("channel_list", lambda x: x[:, [3, 1, 1, 20, 8]], 5, note="one is picked twice"),
    on_rows("channel_narrow", lambda h: h.narrow(-1, 10, 30), 30, note="18 units go nowhere"),
    on_rows("channel_unbind", lambda h: torch.stack(h.unbind(-1)[::-1], -1)),
    on_rows("channel_mirror_relu", lambda h: torch.cat((h.relu(), (-h).relu()), -1), 2 * WIDE),
    on_rows("channel_outer_sums", clever_broadcast),
    on_rows(
        "unequal_chunk", lambda h: h.chunk(5, -1)[0] * h.chunk(5, -1)[2], 10, note="last has 8"
    ),
    on_rows("unequal_split", lambda h: torch.cat(h.split([30, 5, 13], -1)[::2], -1), 43),
    on_rows("tensor_split", lambda h: torch.cat(h.tensor_split((7, 40), -1)[1:], -1), 41),
    on_rows("as_strided", lambda h: h.contiguous().as_strided((2, 16), (WIDE, 3)), 16, "partly"),
    # Elementwise, with more than one tensor or more than one type.
    on_rows("where", lambda h: torch.where(h > 0, h, 0.1 * h.square())),
    on_rows("masked_fill", lambda h: h.masked_fill(h < -0.2, 0.3)),
    on_rows("masked_assign", lambda h: h.clone().index_put((h > 0.5,), torch.tensor(0.5))),
    on_rows("addcmul", lambda h: torch.addcmul(h, h.tanh(), h.sigmoid(), value=0.5)),
    on_rows("addcdiv_lerp", lambda h: h.addcdiv(h, h.exp() + 1).lerp(h.cos(), 0.3)),
    on_rows("activations", lambda h: F.silu(F.hardtanh(F.softsign(F.mish(F.celu(F.selu(h))))))),
    on_rows("step_functions", lambda h: h.round().sign() + h.floor().clamp(-1, 2) + (h > 0)),
    on_rows("dropout", lambda h: F.dropout(F.alpha_dropout(h, 0.5, False), 0.5, False)),
    on_rows("rounded_to_int", lambda h: (h * 10).to(torch.int32).float() / 10),
    on_rows("double_inside", lambda h: h.double().exp().log1p().float()),
    on_images("in_place", in_place),
    # Products.
    on_rows("outer_product", lambda h: torch.einsum("bi,bj->bij", h[:, :6], h[:, 6:14]).flatten(1)),
    on_rows("kron_einsum", lambda h: torch.einsum("bi,bj->bij", h, h[:, :3]).flatten(1), 3 * WIDE),
    on_rows("pair_distance", lambda h: torch.cdist(h, h), 2, note="rows against rows"),
    on_rows("cosine_similarity", lambda h: h * F.cosine_similarity(h[:, None], h[None], -1)[:, 1:]),
    on_rows("solve_covariance", whitened, note="torch.linalg.solve over the channels"),
    # Where channels are not the axis they seem to be.
    on_rows("batch_mixing", lambda h: h - h.mean(0) + h.flip(0), note="samples see each other"),
    on_rows("batch_square", lambda h: (h.T @ h / 8).sum(0).expand_as(h)),
    on_images("channels_into_batch", into_batch),
    on_images("unfold_fold", patches),
    on_images("cost_volume", correlate, 9, note="channels are summed away, shifts come in"),
    on_images("coordinates", coordinates, 26, note="constant channels join the hidden ones"),
    on_images("pixel_columns", lambda x: F.unfold(x, 2).unflatten(-1, (5, 5)), 96),
    on_rows("halves_swapped", lambda h: torch.cat((h[:, HALF:], h[:, :HALF]), -1)),
    on_rows("padded_channels", lambda h: F.pad(h, (3, 5)), WIDE + 8, note="zeros on both sides"),
    on_rows("reshaped_grid", lambda h: h.view(-1, 4, 12).transpose(1, 2).reshape(-1, WIDE)),
    on_rows("added_to_slice", lambda h: h.slice_scatter(h[:, :NEXT] * 2, -1, 16, WIDE)),
]
