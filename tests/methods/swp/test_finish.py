"""At the end nothing changes: not when skeletons are multiplied in, nor when stripes are cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tests.families.stripe_nets import NETS
from tests.methods.swp.nets import drive, gone, made, pictures, put
from tests.refusals import said
from tonsor.errors import PlanError, SelectionError, TrainError
from tonsor.methods.swp import FilterSkeleton
from tonsor.methods.swp.skeleton import merge, skeleton_of

BUILDS: dict[str, Any] = {
    **NETS,
    "resnet56": (lambda: tonsor.zoo.build("resnet56", width=0.25), (3, 8, 8)),
    "shortcut B": (lambda: tonsor.zoo.build("resnet20", width=0.25, shortcut="B"), (3, 8, 8)),
    "vgg16 with bias": (lambda: tonsor.zoo.build("vgg16", width=0.1, bias=True), (3, 32, 32)),
}


def ready(name: str, **options: Any) -> tuple[Any, Tensor, tonsor.Anatomy, FilterSkeleton]:
    build, shape = BUILDS[name]
    model = settled(build().double())
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    anatomy = tonsor.inspect(model, x)
    return model, x, anatomy, FilterSkeleton(model, anatomy, threshold=0.5, **options)


def kill(method: FilterSkeleton, seed: int = 0, filters: float = 0.3) -> None:
    """Let about half of the stripes of what lives fall to the threshold, and some whole filters."""
    put(method, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for numbers in method.skeletons:
            numbers[torch.rand(len(numbers), generator=chance) < filters] *= 0.4
    method.after_step(0)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_changes_at_the_end(name: str) -> None:
    model, x, anatomy, method = ready(name)
    whole, parameters = model(x), dict(anatomy.parameters)
    kill(method)
    before = model(x)
    assert not torch.allclose(before, whole)
    lost = gone(method)
    decided = method.finish()
    close(model(x), before)
    now = dict(model.named_parameters(remove_duplicate=False))
    assert all(now[n] is p for n, p in parameters.items())
    assert not any(skeleton_of(m) for m in model.modules())
    assert sum(len(some) for some in lost.values()) > 0
    slim = decided.apply(model)
    close(slim(x), before)
    assert sum(p.numel() for p in slim.parameters()) < 0.7 * sum(
        p.numel() for p in model.parameters()
    )
    for layer in method.course.layers:
        weight = anatomy.parameters[layer.weight].detach().flatten(2)
        zero = {
            i for i in range(layer.size)
            if not weight[i // layer.positions, :, i % layer.positions].any()
        }  # fmt: skip
        assert zero == lost[layer.name]


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "shortcut B"])
@pytest.mark.parametrize("emptied", ["conv1", "conv2"])
def test_a_block_with_an_emptied_convolution_becomes_its_shortcut(name: str, emptied: str) -> None:
    model, x, _, method = ready(name)
    kill(method)
    empty = [f"layer1.1.{emptied}", f"layer3.1.{emptied}"]
    put(method, {n: torch.zeros(model.get_submodule(n).weight.shape[0], 3, 3) for n in empty})
    method.after_step(1)
    for block in (model.layer1[1], model.layer3[1]):
        assert not block.bn2.weight.any()
        assert not block.bn2.bias.any()
    assert model.layer1[0].bn2.weight.any()
    before = model(x)
    decided = method.finish()
    dead = {n.rpartition(".")[0] for n, conv in model.named_modules() if _is_empty(conv)}
    assert dead >= {"layer1.1", "layer3.1"}
    assert {d.name for d in decided.drops} == dead
    assert any("the block goes" in note for note in decided.made_by["notes"])
    close(model(x), before)
    slim: Any = decided.apply(model)
    close(slim(x), before)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in slim.layer1[1].modules())


def _is_empty(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and not module.weight.any()


def test_an_emptied_branch_stays_silent_while_training_goes_on() -> None:
    net, anatomy = made("residual")
    assert "first" not in FilterSkeleton(net, anatomy).course.frame.following.may_empty
    torch.manual_seed(0)
    net = tonsor.zoo.build("resnet20", width=0.25, channels=1).train()
    method = FilterSkeleton(net, tonsor.inspect(net, torch.zeros(2, 1, 8, 8)), alpha=0.1)
    put(method, {"layer2.1.conv1": torch.zeros(8, 3, 3)})
    method.after_step(0)
    block: Any = net.get_submodule("layer2.1")

    def watch(step: int) -> None:
        assert not block.bn2.weight.any()
        assert not block.bn2.bias.any()

    drive(net, method, pictures(4), first=1, watch=watch)
    net.eval()
    slim: Any = method.finish().apply(net)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(slim(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("floor", "least"), [(1, 1), (7, 7), (0.25, 14)])
def test_layers_that_may_not_be_emptied_keep_their_highest_and_it_is_said(
    floor: float, least: int
) -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, floor=floor)
    small = 0.009 * torch.linspace(0.1, 1, 54).view(6, 3, 3).flip(0)
    put(method, {"conv1": small})
    method.after_step(0)
    assert len(gone(method)["conv1"]) == 54 - least
    values = small.flatten()
    stay = set(range(54)) - gone(method)["conv1"]
    assert stay == set(values.argsort(descending=True)[:least].tolist())
    assert torch.equal(method.skeletons[0].detach().flatten()[list(stay)], values[list(stay)])
    notes = method.finish().made_by["notes"]
    assert any(note.startswith(f"{least} stripes below the threshold stay") for note in notes)


def test_layers_that_are_kept_get_no_skeleton() -> None:
    net, anatomy = made("residual")
    method = FilterSkeleton(net, anatomy, keep=["first", net.stem])
    assert skeleton_of(net.first) is skeleton_of(net.stem) is None
    assert skeleton_of(net.second) is not None
    assert [x.name for x in method.course.layers] == ["second"]
    kill(method)
    assert set(method.finish().stripes) <= {"second.weight"}


# ---------------------------------------------------------------- what is refused


def test_a_second_skeleton_is_refused_and_leaves_the_model_as_it_is() -> None:
    net, anatomy = made("residual")
    first = FilterSkeleton(net, anatomy, keep=["stem"])
    names = list(net.state_dict())
    words = said(SelectionError, lambda: FilterSkeleton(net, anatomy))
    assert "'first' has a skeleton already" in words
    assert "finish() or release()" in words
    assert list(net.state_dict()) == names  # the stem has not got one either
    again = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    assert "skeleton already" in said(SelectionError, lambda: FilterSkeleton(net, again))
    first.finish()
    FilterSkeleton(net, anatomy).release()


@pytest.mark.parametrize("end", ["finish", "release"])
def test_what_is_finished_is_finished(end: str) -> None:
    net, anatomy = made("residual")
    method = FilterSkeleton(net, anatomy)
    kill(method)
    x, net = torch.randn(2, 1, 8, 8), net.eval()
    before, twin = net(x), copy.deepcopy(net)
    getattr(method, end)()
    weights = copy.deepcopy(net.state_dict())
    for act in (method.finish, lambda: method.before_step(0), lambda: method.after_step(0)):
        assert "is finished" in said(TrainError, act)
    method.release()
    assert torch.equal(net(x), before)
    assert torch.equal(twin(x), before)  # a copy keeps its skeletons
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    assert list(net.state_dict()) == list(made("residual")[0].state_dict())


def test_what_is_frozen_is_refused() -> None:
    net, anatomy = made("residual")
    net.requires_grad_(False)
    words = said(SelectionError, lambda: FilterSkeleton(net, anatomy))
    assert "'stem.weight' is frozen" in words
    assert "keep=['stem']" in words
    assert "skeleton_only" in words
    assert not any(skeleton_of(m) for m in net.modules())
    net.requires_grad_(True)
    net.first.weight.requires_grad_(False)
    FilterSkeleton(net, anatomy, keep=["first"]).release()
    assert not net.first.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alpha": -1.0}, "alpha is the weight of the penalty"),
        ({"alpha": float("nan")}, "alpha is the weight of the penalty"),
        ({"alpha": "small"}, "alpha is the weight of the penalty"),
        ({"start": "zeros"}, "start must be one of ones, norms"),
        ({"threshold": -0.1}, "threshold is a number of at least 0"),
        ({"threshold": "0.1"}, "threshold is a number of at least 0"),
        ({"threshold": 1.0}, "would take all at the first step"),
        ({"ramp": 0}, "ramp is a number of steps"),
        ({"every": 2.5}, "every is a number of steps"),
        ({"floor": 0}, "floor is a share"),
        ({"keep": ["nothing"]}, "nothing"),
        ({"keep": ["stem", "first", "second"]}, "no convolution of this model may lose stripes"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_touched(
    options: dict[str, Any], words: str
) -> None:
    net, anatomy = made("residual")
    assert words in said(SelectionError, lambda: FilterSkeleton(net, anatomy, **options))
    assert not any(skeleton_of(m) for m in net.modules())


def test_models_that_it_could_not_prune_are_refused() -> None:
    net, anatomy = made("residual")
    other, _ = made("residual")
    words = said(SelectionError, lambda: FilterSkeleton(other, anatomy))
    assert "made of another Residual" in words
    assert "first.weight" in anatomy.parameters
    net.first.weight = nn.Parameter(net.first.weight.detach().clone())
    assert "'first.weight' is no longer" in said(TrainError, lambda: FilterSkeleton(net, anatomy))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2))
    seen = tonsor.inspect(flat, torch.zeros(2, 4))
    assert "no convolution" in said(SelectionError, lambda: FilterSkeleton(flat, seen))


# ---------------------------------------------------------------- after another plan


def test_a_slim_model_gets_skeletons_and_both_plans_become_one() -> None:
    model = settled(tonsor.zoo.build("resnet20", width=0.5).double())
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    earlier = tonsor.plan(tonsor.inspect(model, x), "macs=60%")
    slim = earlier.apply(model)
    method = FilterSkeleton(slim, tonsor.inspect(slim, x), threshold=0.5)
    kill(method)
    later = method.finish()
    slimmer = later.apply(slim)
    # the original with the weights that were trained, put back where they came from
    with torch.no_grad():
        for name, kept in earlier.cut().keep.items():
            tensor = dict(model.named_parameters()).get(name)
            if tensor is not None:
                _scatter(tensor, slim.get_parameter(name), kept)
        untouched = set(earlier.cut().keep)
        for name, tensor in model.named_parameters():
            if name not in untouched:
                tensor.copy_(slim.get_parameter(name))
    total = later.rebase(earlier)
    close(total.apply(model)(x), slimmer(x))
    assert total.stripes


def _scatter(whole: Tensor, part: Tensor, kept: Any) -> None:
    dims = [
        list(range(n)) if k is None else list(k) for n, k in zip(whole.shape, kept, strict=True)
    ]
    whole[torch.meshgrid([torch.tensor(d) for d in dims], indexing="ij")] = part


@pytest.mark.parametrize("kind", ["channels", "stripes", "block"])
def test_what_an_earlier_plan_removes_stays_gone_and_is_zero_at_once(kind: str) -> None:
    torch.manual_seed(0)
    net: Any = tonsor.zoo.build("resnet20", width=0.25, channels=1).train()
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    if kind == "channels":
        earlier = tonsor.plan(anatomy, "macs=70%")
    elif kind == "stripes":
        earlier = tonsor.plan_stripes(anatomy, "macs=70%")
    else:
        method = FilterSkeleton(net, anatomy)
        put(method, {"layer2.1.conv1": torch.zeros(8, 3, 3)})
        method.after_step(0)
        earlier = method.finish()
        assert earlier.drops
        with torch.no_grad():
            net.get_submodule("layer2.1.bn2").weight.fill_(1.0)
    method = FilterSkeleton(net, anatomy, after=earlier, keep=["layer1.0.conv2"], threshold=0.3,
                            alpha=0.05)  # fmt: skip
    net.eval()
    x = torch.randn(4, 1, 8, 8)
    slim = earlier.apply(_merged(net))
    torch.testing.assert_close(net(x), slim(x), rtol=1e-4, atol=1e-5)
    net.train()
    drive(net, method, pictures(40))
    net.eval()
    before = net(x)
    decided = method.finish()
    for name, stripes in earlier.stripes.items():
        mine = decided.stripes.get(name)
        if mine is not None and not decided.drops:
            assert not (mine.mask & ~stripes.mask).any()
    for name, kept in earlier.keep.items():
        assert set(decided.keep[name]) <= set(kept)
    slim = decided.apply(net)
    torch.testing.assert_close(slim(x), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(x), before, rtol=0, atol=0)


def _merged(net: nn.Module) -> nn.Module:
    """A copy whose skeletons are multiplied in."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if skeleton_of(module) is not None:
            merge(module)
    return twin


def test_a_block_that_could_not_be_held_at_zero_is_refused() -> None:
    net = tonsor.zoo.build("resnet20", width=0.25, channels=1)
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    blocks = tonsor.plan_blocks(anatomy, remove=["layer2.1"], by="random")
    unknown = replace(blocks, drops=tuple(replace(d, name="other") for d in blocks.drops))
    words = said(SelectionError, lambda: FilterSkeleton(net, anatomy, after=unknown))
    assert "block 'other', which can't be held" in words
    assert "later.rebase(earlier)" in words
    net2, anatomy2 = made("residual")
    assert said(PlanError, lambda: FilterSkeleton(net2, anatomy2, after=blocks))
