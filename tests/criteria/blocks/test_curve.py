"""Imprinting and probes, against versions that keep every embedding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.blocks.nets import Layer, fresh, material, outputs, plain, resnet, seen, tokens
from tests.criteria.nets import Batch, pictures, settled
from tonsor import zoo
from tonsor.criteria.blocks import curve as curves
from tonsor.criteria.blocks.imprinting import Prototypes
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.pooled import channel_dim, pool_size, pooled
from tonsor.criteria.blocks.probes import Ridge
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.blocks.find import find_blocks

Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From vectors and their classes, and other vectors, to the classes of those."""


def by_prototype(x: np.ndarray, y: np.ndarray, other: np.ndarray) -> np.ndarray:
    means = {c: x[y == c].mean(0) for c in sorted(set(y))}
    rows = [[float(v @ (m / np.sqrt(m @ m))) for m in means.values()] for v in other]
    return np.array(list(means))[np.argmax(rows, axis=1)]


def by_least_squares(decay: float) -> Fit:
    def fit(x: np.ndarray, y: np.ndarray, other: np.ndarray) -> np.ndarray:
        classes = np.array(sorted(set(y)))
        wanted = (y[:, None] == classes).astype(float)
        middle, share = x.mean(0), wanted.mean(0)
        penalty = decay * ((x - middle) ** 2).sum() / x.shape[1]
        rows = np.concatenate([x - middle, np.sqrt(penalty) * np.eye(x.shape[1])])
        targets = np.concatenate([wanted - share, np.zeros((x.shape[1], len(classes)))])
        weight = np.linalg.lstsq(rows, targets, rcond=None)[0]
        return classes[((other - middle) @ weight + share).argmax(1)]

    return fit


def naive(
    net: Any,
    side: int,
    taught: list[Batch],
    judged: list[Batch],
    size: int,
    fit: Fit,
    *,
    stem: bool,
) -> tuple[dict[str, float], dict[str, float]]:
    _, blocks = seen(net, side)
    every = [outputs(net, blocks, x) for x, _ in [*taught, *judged]]

    def vectors(name: str, which: int, *, judging: bool) -> np.ndarray:
        mine = every[len(taught) :] if judging else every[: len(taught)]
        maps = torch.cat([each[name][which] for each in mine])
        if maps.dim() == 4:
            grid = max(1, round((size / maps.shape[1]) ** 0.5))
            maps = F.adaptive_avg_pool2d(maps, (min(grid, maps.shape[2]), min(grid, maps.shape[3])))
        return maps.flatten(1).numpy()

    def accuracy(name: str, which: int) -> float:
        y, wanted = (torch.cat([t for _, t in b]).numpy() for b in (taught, judged))
        found = fit(vectors(name, which, judging=False), y, vectors(name, which, judging=True))
        return float((found == wanted).mean())

    curve = {b.name: accuracy(b.name, 1) for b in blocks}
    before = accuracy(blocks[0].name, 0) if stem else 0.0
    values = {}
    for name, after in curve.items():
        values[name], before = after - before, after
    return values, curve


def some(count: int, side: int, classes: int = 4) -> list[Batch]:
    """Pictures of which something can be learned."""
    generator = torch.Generator().manual_seed(3)
    return [
        (x + 0.4 * torch.randn(classes, 3, side, side, generator=generator).double()[y], y)
        for x, y in pictures(count, 12, side, classes)
    ]


CASES: dict[str, tuple[str, Fit]] = {
    "imprint": ("imprint", by_prototype),
    "imprint, small": ("imprint:size=40", by_prototype),
    "imprint, from the stem": ("imprint:first=stem", by_prototype),
    "probe": ("probe:size=64", by_least_squares(1e-3)),
    "probe, decay": ("probe:size=40,decay=0.5,first=stem", by_least_squares(0.5)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["resnet", "plain"])
def test_as_if_all_embeddings_were_kept(case: str, kind: str) -> None:
    by, fit = CASES[case]
    net, side = (resnet(), 8) if kind == "resnet" else (plain(), 32)
    batches = some(6, side)
    taught, judged = batches[:4], batches[4:]
    usual = 512 if kind == "plain" or by.startswith("probe") else 2048
    size = int(by.partition("size=")[2].partition(",")[0] or usual)
    values, curve = naive(net, side, taught, judged, size, fit, stem="stem" in by)
    anatomy, blocks = seen(net, side)
    found = score_blocks(anatomy, blocks, by, batches=iter(taught), judge=iter(judged), quiet=True)
    # The last maps of the plain network hardly differ, so that rounding, which is not the same on
    # every processor, may decide an answer or two of 24.
    near = 2.01 / 24 if kind == "plain" else 1e-9
    assert found.curve == pytest.approx(curve, abs=near)
    if kind == "resnet":
        assert found.values == pytest.approx(values)
    else:
        assert found.curve is not None
        steps = list(found.curve.values())
        apart = [b - a for a, b in pairwise(steps)]
        assert list(found.values.values())[1:] == pytest.approx(apart)
    assert len(set(curve.values())) > 3
    right = torch.cat([net(x).argmax(1) == y for x, y in judged])
    assert found.network == pytest.approx(float(right.double().mean()))
    assert list(found.values) == [b.name for b in blocks]
    assert found.conditions["learned_from"] == 48
    assert found.conditions["judged"] == 24


def test_sizes_of_the_paper() -> None:
    assert [pool_size(c, 2048) for c in (16, 32, 64)] == [11, 8, 6]
    assert [pool_size(c, 512) for c in (64, 128, 256, 512)] == [3, 2, 1, 1]
    assert pool_size(4096, 512) == 1
    assert [pool_size(c, 2048, 1) for c in (768, 2048)] == [3, 1]


@pytest.mark.parametrize(
    ("shape", "channel", "wanted"),
    [((2, 16, 32, 32), 1, 16 * 121), ((2, 64, 8, 8), 1, 64 * 36), ((2, 64, 4, 4), 1, 64 * 16),
     ((2, 64, 8, 3), 1, 64 * 18), ((2, 8, 8, 64), 3, 64 * 36), ((2, 50, 128), 2, 128 * 16),
     ((2, 5, 128), 2, 128 * 5), ((2, 7), 1, 7), ((2, 4, 30, 30, 30), 1, 4 * 512)],
)  # fmt: skip
def test_vectors_are_about_as_long(shape: tuple[int, ...], channel: int, wanted: int) -> None:
    maps = torch.randn(shape)
    found = pooled(maps, channel, 2048)
    assert found.shape == (2, wanted)
    assert found.dtype == torch.float64
    if maps.numel() == found.numel():  # as they are
        assert found.equal(maps.movedim(channel, 1).flatten(1).double())


def test_tokens_are_pooled_along_the_sequence() -> None:
    net, anatomy, blocks = tokens()
    assert [channel_dim(anatomy, b) for b in blocks] == [2, 2, 2]
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(8, 7, 3, generator=generator).double(), torch.arange(8) % 4) for _ in range(2)
    ]
    found = score_blocks(anatomy, blocks, "imprint:size=18", batches=batches[:1],
                         judge=batches[1:], quiet=True)  # fmt: skip
    for name in found.values:
        one, other = (
            F.adaptive_avg_pool1d(outputs(net, blocks, x)[name][1].mT, 3).flatten(1).numpy()
            for x, _ in batches
        )
        y = batches[0][1].numpy()
        assert found.curve is not None
        assert found.curve[name] == pytest.approx((by_prototype(one, y, other) == y).mean())


# ---------------------------------------------------------------- which data


def test_every_fifth_minibatch_is_judged_on() -> None:
    net, batches = resnet(), some(8, 8)
    anatomy, blocks = seen(net)
    apart = score_blocks(anatomy, blocks, batches=[b for i, b in enumerate(batches) if i % 5 != 1],
                         judge=[batches[1], batches[6]], quiet=True)  # fmt: skip
    for given in (batches, iter(batches)):
        found = score_blocks(anatomy, blocks, batches=given, quiet=True)
        assert (found.values, found.network) == (apart.values, apart.network)
        assert found.conditions["judged_on"] == "every fifth minibatch"
    fewer = score_blocks(anatomy, blocks, batches=iter(batches), at_most=4, quiet=True)
    assert fewer.conditions["learned_from"] == 36
    assert fewer.conditions["judged"] == 12


def test_a_shuffled_loader_is_never_judged_on_what_it_taught() -> None:
    anatomy, blocks = seen(resnet())
    batches, times = some(6, 8), [0]

    class Loader:
        def __iter__(self) -> Any:
            times[0] += 1
            return iter(batches)

    score_blocks(anatomy, blocks, batches=Loader(), quiet=True)
    assert times == [1]


def test_too_much_to_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_SET_ASIDE", 1000)
    anatomy, blocks = seen(resnet())
    score_blocks(anatomy, blocks, batches=some(2, 8), quiet=True)  # a list holds them anyway
    with pytest.raises(ScoreError, match="give what to judge on as judge="):
        score_blocks(anatomy, blocks, batches=iter(some(2, 8)), quiet=True)


def test_a_class_that_is_not_taught_is_never_predicted() -> None:
    anatomy, blocks = seen(resnet())
    batches = some(2, 8)
    taught = [(x[y != 1], y[y != 1]) for x, y in batches]
    for by in ("imprint", "probe"):
        found = score_blocks(anatomy, blocks, by, batches=taught, judge=batches, quiet=True)
        assert found.conditions["untaught"] == [1]
        assert "nothing was learned of class 1" in str(found)
        assert found.curve is not None
        share = float(torch.cat([y == 1 for _, y in batches]).double().mean())
        assert max(found.curve.values()) <= 1 - share
        # A gap in the numbers says nothing: only what is asked for can be missing.
        again = score_blocks(anatomy, blocks, by, batches=taught, judge=taught, quiet=True)
        assert again.conditions["untaught"] == []


@pytest.mark.parametrize("learner", [Prototypes(), Ridge(1e-3)], ids=["prototypes", "ridge"])
def test_nothing_known_is_not_better_than_what_points_away(learner: Prototypes | Ridge) -> None:
    x = torch.tensor([[-1.0, -3], [-3, -1], [-1.1, -3], [-3, -1.2]]).double()
    learner.learn(x, torch.tensor([0, 2, 0, 2]))
    learner.settle()
    assert learner.predict(x).tolist() == [0, 2, 0, 2]
    assert 1 not in learner.predict(-x).tolist()


def test_dead_channels_and_no_penalty() -> None:
    net = fresh()
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if "layer1.0" in name or name.startswith(("conv1", "bn1")):
                tensor.zero_()
    anatomy, blocks = seen(net)
    for by in ("imprint", "probe:decay=0", "probe"):
        found = score_blocks(anatomy, blocks, by, batches=some(2, 8), quiet=True)
        assert np.isfinite(list(found.values.values())).all()


@pytest.mark.parametrize(
    ("target", "says"),
    [(None, "it is None"), (torch.zeros(12), "of shape"), (torch.zeros(3).long(), r"\(3,\)"),
     (torch.full((12,), -100), "from 0 up"), (torch.zeros(12, 4).long(), r"\(12, 4\)")],
)  # fmt: skip
def test_targets_are_classes(target: Tensor | None, says: str) -> None:
    anatomy, blocks = seen(resnet())
    batches = [(x, target) for x, _ in some(2, 8)]
    with pytest.raises(ScoreError, match=says):
        score_blocks(anatomy, blocks, batches=batches, quiet=True)


def test_what_data_is_refused() -> None:
    anatomy, blocks = seen(resnet())
    with pytest.raises(SelectionError, match="'imprint' looks at data"):
        score_blocks(anatomy, blocks)
    with pytest.raises(ScoreError, match="there is only one"):
        score_blocks(anatomy, blocks, batches=some(1, 8), quiet=True)
    with pytest.raises(ScoreError, match="no minibatch for learning"):
        score_blocks(anatomy, blocks, batches=[], quiet=True)
    with pytest.raises(ScoreError, match="no minibatch for judging"):
        score_blocks(anatomy, blocks, batches=some(1, 8), judge=[], quiet=True)
    with pytest.raises(ScoreError, match="iterable of minibatches, got a int"):
        score_blocks(anatomy, blocks, batches=3, quiet=True)  # type: ignore[arg-type]
    with pytest.raises(ScoreError, match="at_most"):
        score_blocks(anatomy, blocks, batches=some(2, 8), at_most=0, quiet=True)
    with pytest.raises(ScoreError, match="inputs of one size"):
        score_blocks(anatomy, blocks, batches=[some(1, 8)[0]], judge=some(1, 12), quiet=True)
    x, y = some(1, 8)[0]
    with pytest.raises(ScoreError, match="NaN"):
        score_blocks(anatomy, blocks, batches=[(x * torch.nan, y)] * 2, quiet=True)
    with pytest.raises(SelectionError, match="decay of 'probe' must be at least 0"):
        score_blocks(anatomy, blocks, "probe:decay=-1", batches=some(2, 8), quiet=True)


class Turns(nn.Module):
    """A layer that runs so many times, behind another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.once, self.twice = nn.Linear(3, 6), Layer(6), Layer(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor, turns: int = 2) -> Tensor:
        x = self.once(self.embed(x))
        for _ in range(turns):
            x = self.twice(x)
        return self.head(x.mean(1))


def test_a_layer_that_runs_twice_is_no_one_place() -> None:
    x = torch.randn(8, 7, 3, generator=torch.Generator().manual_seed(0)).double()
    anatomy = tonsor.inspect(settled(Turns().double()), x)
    blocks = find_blocks(anatomy)
    assert {"once", "twice"} <= {b.name for b in blocks}
    for by in ("imprint", "probe", "cosine"):
        found = score_blocks(
            anatomy, blocks, by, batches=[(x, torch.arange(8) % 4)] * 2, quiet=True
        )
        assert "once" in found.values
        assert found.unscored["twice"] == "it is called 2 times, so it is several layers"


def test_a_layer_that_runs_more_often_than_it_did() -> None:
    net, x = settled(Turns().double()), torch.randn(8, 7, 3).double()
    anatomy = tonsor.inspect(net, (x, 1))
    blocks = find_blocks(anatomy)
    for by in ("imprint", "cosine"):
        with pytest.raises(ScoreError, match="'twice' is called again on minibatch 0"):
            score_blocks(anatomy, blocks, by, batches=[((x, 2), torch.arange(8) % 4)] * 2)


def test_infinite_weights_are_named() -> None:
    net = fresh()
    net.get_parameter("layer2.1.bn2.bias").data.fill_(torch.inf)
    anatomy, blocks = seen(net)
    with pytest.raises(ScoreError, match=r"what block 'layer2.1' returns holds NaN"):
        score_blocks(anatomy, blocks, batches=some(2, 8), quiet=True)


def test_no_size_makes_no_sense_of_a_model_on_meta() -> None:
    anatomy, blocks = seen(zoo.build("resnet20", width=0.25).to("meta").float())
    for by in ("imprint", "probe", "cosine"):
        with pytest.raises(ScoreError, match="meta device"):
            score_blocks(anatomy, blocks, by, batches=some(2, 8), quiet=True)


def test_material_is_what_it_says() -> None:
    found: Material = material(resnet(), some(2, 8))
    assert isinstance(curves.curve(found, "x", _Never, 0, "zero"), BlockScores)


class _Never:
    """Learns nothing and is never right."""

    def learn(self, vectors: Tensor, classes: Tensor) -> None: ...
    def settle(self) -> None: ...
    def predict(self, vectors: Tensor) -> Tensor:
        return torch.full((len(vectors),), -1)
