"""Where channels of several layers meet, each index must be followed back to its own layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.api import inspect

from .cutting import cut, reasons, through, verdicts


class ConcatRawInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat((x, self.first(x).relu()), -1))


def test_columns_of_the_raw_input_stay_beside_hidden_ones_that_go() -> None:
    model = ConcatRawInput()
    made = cut(model, torch.randn(2, 8), ratios={"first": 0.5})
    kept = made.kept("first.weight[0]")
    columns = torch.cat((torch.arange(8), 8 + kept))
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns])
    assert made.slim.last.weight.shape == (4, 16)


class ConcatFrozenBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.free = nn.Linear(8, 16).requires_grad_(False), nn.Linear(8, 12)
        self.last = nn.Linear(28, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.frozen(x).relu()
        return self.last(torch.cat((hidden, self.free(x).relu()), -1))


def test_a_frozen_branch_is_seen_and_cut_like_any_other() -> None:
    model = ConcatFrozenBranch()
    made = cut(model, torch.randn(2, 8), ratios={"frozen": 0.25, "free": 0.5})
    columns = torch.cat((made.kept("frozen.weight[0]"), 16 + made.kept("free.weight[0]")))
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns])
    assert made.slim.last.weight.shape == (4, 4 + 6)
    assert not made.slim.frozen.weight.requires_grad


class FlattenAfterConcat(nn.Module):
    """Two pictures of 3x3 pixels side by side, channels first or last, as one row."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(12 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.left(x), self.right(x)), 1)
        return self.last((x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_channel_takes_all_its_pixels_along(channels_last: bool) -> None:
    model = FlattenAfterConcat(channels_last=channels_last)
    made = cut(model, torch.randn(2, 3, 3, 3), ratios={"left": 0.5, "right": 0.5})
    kept = torch.cat((made.kept("left.weight[0]"), 8 + made.kept("right.weight[0]")))
    place = torch.arange(12 * 9).view(3, 3, 12) if channels_last else torch.arange(12 * 9)
    columns = place[:, :, kept] if channels_last else place.view(12, 9)[kept]
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns.flatten()])
    assert made.slim.last.in_features == 6 * 9


class StackAndFlatten(nn.Module):
    """Channels of two layers in turns: left 0, right 0, left 1, right 1, ..."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.stack((self.left(x), self.right(x)), -1).flatten(1))


def test_stacked_layers_lose_the_same_channels() -> None:
    model = StackAndFlatten()
    made = cut(model, torch.randn(2, 8), ratios={"left": 0.5})
    kept = made.kept("left.weight[0]")
    columns = torch.stack((2 * kept, 2 * kept + 1), -1).flatten()
    assert torch.equal(made.slim.right.weight, model.right.weight[kept])
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns])
    assert verdicts(made.anatomy, "last.weight[1]") == ["free", "data"]  # two were stacked


class Split(nn.Module):
    """One layer whose outputs go to three readers of different widths."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes
        self.first = nn.Linear(8, sum(sizes))
        self.readers = nn.ModuleList(nn.Linear(size, 5) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.first(x).relu().split(self.sizes, -1)
        read = [reader(part) for reader, part in zip(self.readers, parts, strict=True)]
        return torch.stack(read).sum(0)


@pytest.mark.parametrize("ratios", [(0.3, 1.0, 0.5), (0.5, 0.5, 0.5), (1.0, 0.5, 0.25)])
def test_unequal_parts_of_a_split_are_cut_apart(ratios: tuple[float, ...]) -> None:
    model = Split([20, 6, 8])
    names = [f"readers.{i}.weight[1]" for i in range(3)]
    made = cut(model, torch.randn(2, 8), ratios=dict(zip(names, ratios, strict=True)))
    sizes = [round(n * ratio) for n, ratio in zip((20, 6, 8), ratios, strict=True)]
    assert made.slim.sizes == sizes
    assert [reader.in_features for reader in made.slim.readers] == sizes
    rows = torch.cat([s + made.kept(n) for s, n in zip((0, 20, 26), names, strict=True)])
    assert torch.equal(made.slim.first.weight, model.first.weight[rows])
    assert model.sizes == [20, 6, 8]


class Chunk(nn.Module):
    """20 channels in three chunks: 7, 7 and 6."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 20)
        self.readers = nn.ModuleList(nn.Linear(size, 5) for size in (7, 7, 6))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.first(x).relu().chunk(3, -1)
        return self.readers[0](a) + self.readers[1](b) + self.readers[2](c)


def test_chunks_that_are_unequal_by_division_are_left_alone_with_a_reason() -> None:
    anatomy = inspect(Chunk(), torch.randn(2, 8))
    for i in range(3):
        (why,) = reasons(anatomy, f"readers.{i}.weight[1]")
        assert "chunk" in why


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, -1)
        return self.last(value * gate.sigmoid())


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.9])
def test_a_gate_goes_with_its_value(ratio: float) -> None:
    model = Gate()
    made = cut(model, torch.randn(2, 8), ratios={"last.weight[1]": ratio})
    kept = made.kept("last.weight[1]")
    assert len(kept) == round(16 * ratio)
    assert torch.equal(made.slim.first.weight, model.first.weight[torch.cat((kept, 16 + kept))])


class Gram(nn.Module):
    """Every sample meets every other; every channel, if transposed, every other channel."""

    def __init__(self, *, channels: bool) -> None:
        super().__init__()
        self.channels = channels
        self.first, self.last = nn.Linear(8, 12), nn.Linear(144 if channels else 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last((h.T @ h if self.channels else h @ h.T).flatten())


def test_channels_that_are_summed_away_are_free() -> None:
    slim = cut(Gram(channels=False), torch.randn(6, 8), ratios={"first": 0.5}).slim
    assert slim.first.out_features == 6
    assert slim.last.in_features == 36


def test_channels_that_meet_each_other_go_from_both_sides() -> None:
    model = Gram(channels=True)
    made = cut(model, torch.randn(6, 8), ratios={"first": 0.5})
    kept = made.kept("first.weight[0]")
    columns = torch.arange(144).view(12, 12)[kept][:, kept].flatten()
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns])


class Diamond(nn.Module):
    """Two ways from one layer to another, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(12, 4)
        self.left, self.right = nn.Linear(16, 12), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last((self.left(h) * self.right(h).sigmoid() + self.left(h)).relu())


def test_all_ways_of_a_diamond_are_one_group() -> None:
    made = cut(Diamond(), torch.randn(2, 8), ratios={"first": 0.5, "left": 0.5})
    (middle,) = through(made.anatomy, "left.weight[0]")
    assert {str(m) for m in middle.members} == {
        "left.weight[0]", "left.bias[0]", "right.weight[0]", "right.bias[0]", "last.weight[1]",
    }  # fmt: skip
    assert made.slim.left.weight.shape == made.slim.right.weight.shape == (6, 8)
    assert made.slim.last.weight.shape == (4, 6)


class PaddedShortcut(nn.Module):
    """Option A of ResNet: eight zero channels on either side of sixteen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1)
        self.last = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.last(F.pad(h, (0, 0, 0, 0, 8, 8)) + self.second(h))


def test_a_padded_shortcut_loses_what_was_there_and_keeps_the_padding() -> None:
    model = PaddedShortcut()
    made = cut(model, torch.randn(2, 3, 4, 4), ratios={"first": 0.5})
    kept = made.kept("first.weight[0]")
    rows = torch.cat((torch.arange(8), 8 + kept, 24 + torch.arange(8)))
    assert torch.equal(made.slim.second.weight, model.second.weight[rows][:, kept])
    assert verdicts(made.anatomy, "second.weight[0]") == ["literal", "free", "literal"]
    assert all("padding" in why for why in reasons(made.anatomy, "second.weight[0]"))


class SliceAssignment(nn.Module):
    """A buffer is filled in place, its size computed or written as a number."""

    def __init__(self, *, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.left, self.right, self.last = nn.Linear(8, 16), nn.Linear(8, 12), nn.Linear(28, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.left(x), self.right(x).relu()
        joined = x.new_zeros(len(x), 28 if self.literal else left.shape[1] + right.shape[1])
        joined[:, : left.shape[1]] = left
        joined[:, left.shape[1] :] = right
        return self.last(joined)


def test_slices_assigned_in_place_are_followed() -> None:
    model = SliceAssignment(literal=False)
    made = cut(model, torch.randn(2, 8), ratios={"left": 0.5, "right": 0.5})
    columns = torch.cat((made.kept("left.weight[0]"), 16 + made.kept("right.weight[0]")))
    assert torch.equal(made.slim.last.weight, model.last.weight[:, columns])


def test_a_literal_size_pins_with_the_line_that_holds_it() -> None:
    anatomy = inspect(SliceAssignment(literal=True), torch.randn(2, 8))
    assert verdicts(anatomy, "left.weight[0]") == verdicts(anatomy, "right.weight[0]")
    assert verdicts(anatomy, "left.weight[0]") == ["literal"]
    assert "x.new_zeros(len(x), 28" in reasons(anatomy, "left.weight[0]")[0]


class Positions(nn.Module):
    """A class token and learned positions, given to every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 5)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, 6, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.token.expand(len(x), -1, -1), self.first(x)), 1)
        return self.last((x + self.positions).relu().mean(1))


def test_positions_and_tokens_follow_the_width_and_keep_their_length() -> None:
    model = Positions()
    made = cut(model, torch.randn(2, 5, 8), ratios={"first": 0.5})
    assert made.slim.token.shape == (1, 1, 8)
    assert made.slim.positions.shape == (1, 6, 8)
    kept = made.kept("first.weight[0]")
    assert torch.equal(made.slim.positions, model.positions[:, :, kept])
