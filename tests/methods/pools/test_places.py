from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.methods.lfpc.nets import NETS, images, made
from tonsor.families.channels import views
from tonsor.methods.pools.base import Wanted
from tonsor.methods.pools.channel_places import one_place
from tonsor.methods.pools.channels import ChannelPools
from tonsor.methods.pools.drawn import let_go
from tonsor.methods.pools.make import held_of
from tonsor.types import Group

SUMS = (nn.Conv2d, nn.Linear)
# cutting changes what is normalised over, so that the model is another than the masked one
OTHER = {"mixer", "group norm"}
HOMOGENEOUS = [
    "normed", "early", "early with a stem", "twofold", "dense", "bare", "resnet20", "shortcut B",
]  # fmt: skip


LEARNED = Wanted(learned=True, combine="producer")


def pools_for(name: str) -> tuple[Any, Any, ChannelPools]:
    """A net with its pools, and the same net without masks."""
    net, anatomy = made(name)
    return net, copy.deepcopy(net), ChannelPools(anatomy, LEARNED)


def cut_by(name: str, masks: list[Tensor]) -> Any:
    net, anatomy = made(name)
    pools = ChannelPools(anatomy, LEARNED)
    let_go(held_of(pools))
    return pools.plan(masks, {}).apply(net, verify=False)


def drawn_for(pools: ChannelPools, seed: int) -> list[Tensor]:
    """Masks of tied groups that keep equally many steps, at least one."""
    generator = torch.Generator().manual_seed(seed)
    names = list(pools.there)
    found = {n: torch.zeros(len(pools.there[n]), dtype=torch.bool) for n in names}
    for tied in pools.tied:
        steps = min(len(found[n]) // unit for n, unit in tied.items())
        left = int(torch.randint(1, steps + 1, (), generator=generator))
        for n, unit in tied.items():
            found[n][torch.randperm(len(found[n]), generator=generator)[: left * unit]] = True
    return [found[n] for n in names]


def scaled_where_read(net: Any, group: Group, mask: Tensor) -> Any:
    """Have layers that sum over a group read so much of each of its channels."""
    for member in group.members:
        owner = net.get_submodule(member.tensor.rpartition(".")[0])
        if member.dim != 1 or getattr(owner, "groups", 1) > 1:
            continue
        weight = dict(net.named_parameters())[member.tensor]
        with torch.no_grad():
            for view in views(weight.detach().movedim(1, 0), member.axis, group.name):
                view.mul_(mask.view(-1, *(1,) * (view.dim() - 1)))
    return net


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(NETS.keys() - OTHER))
def test_masking_is_cutting(name: str, seed: int) -> None:
    net, plain, pools = pools_for(name)
    masks, x = drawn_for(pools, seed), images(3, seed)
    cut = cut_by(name, masks)
    pools.show_(masks, masks)
    for training in (False, True):
        masked = copy.deepcopy(net).train(training)(x)
        torch.testing.assert_close(masked, copy.deepcopy(cut).train(training)(x),
                                   rtol=1e-9, atol=1e-10)  # fmt: skip
    if not all(m.all() for m in masks):
        assert not torch.allclose(plain(x), cut(x))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(OTHER))
def test_where_cutting_normalises_otherwise_layers_do_not_read_what_is_masked(
    name: str, seed: int
) -> None:
    net, plain, pools = pools_for(name)
    masks, x = drawn_for(pools, seed), images(3, seed)
    for group, mask in zip(pools.groups, masks, strict=True):
        scaled_where_read(plain, group, mask.double())
    pools.show_(masks, masks)
    torch.testing.assert_close(net(x), plain(x), rtol=1e-9, atol=1e-10)


def seen_by_sums(net: Any, x: Tensor) -> dict[str, Tensor]:
    """What each layer that sums makes of its input, with the input in front of its weights."""
    found: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:
        found[name] = out.detach()

    hooks = [
        m.register_forward_hook(lambda m, given, out, n=n: keep(n, out))
        for n, m in net.named_modules() if isinstance(m, SUMS)
    ]  # fmt: skip
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_half_a_mask_is_half_a_channel_wherever_it_is_read(name: str, training: bool) -> None:
    net, plain, pools = pools_for(name)
    x = images(4, 5)
    for chosen, group in enumerate(pools.groups):
        masks = [torch.ones(len(t), dtype=torch.float64) for t in pools.there.values()]
        masks[chosen] = torch.linspace(0.1, 0.9, group.size, dtype=torch.float64)
        wanted = scaled_where_read(copy.deepcopy(plain), group, masks[chosen])
        pools.show_(masks, masks)
        mine, other = (seen_by_sums(copy.deepcopy(n).train(training), x) for n in (net, wanted))
        assert mine.keys() == other.keys()
        for layer in mine:
            torch.testing.assert_close(mine[layer], other[layer], rtol=1e-9, atol=1e-10)


def places(name: str) -> dict[str, set[str]]:
    _, anatomy = made(name)
    found = one_place(anatomy, anatomy.prunable)
    return {g: {p.member.tensor for p in mine} for g, mine in found.items()}


def test_the_last_norm_is_masked_where_that_does_as_well() -> None:
    for name in ("resnet20", "shortcut B"):
        for found in places(name).values():
            assert all(".bn" in f".{t}" or "shortcut.1" in t for t in found)
    assert places("inverted")["wide.weight[0]"] == {"norm2.weight", "norm2.bias"}
    norm3 = {"norm3.weight", "norm3.bias"}
    for name in ("early", "early with a stem"):  # not the norm of the stem
        assert places(name)["stem.weight[0]"] == {"norm1.weight", "norm1.bias"} | norm3
    assert places("twofold")["one.weight[0]"] == {"norm2.weight", "norm2.bias"}
    assert not any("first" in t for found in places("dense").values() for t in found)


def test_what_reads_is_masked_where_a_norm_would_be_wrong() -> None:
    assert places("shifted")["one.weight[0]"] == {"two.weight"}  # a sigmoid makes 1/2 of 0
    assert places("chunked")["two.weight[1]"] == {"two.weight"}  # both factors would be masked
    assert places("bare") == {"one.weight[0]": {"two.weight"}, "two.weight[0]": {"fc.weight"}}
    assert all(t.endswith("weight") and "norm" not in t
               for found in places("mixer").values() for t in found)  # fmt: skip


@pytest.mark.parametrize("name", ["normed", "mixer"])
def test_looking_for_places_changes_nothing(name: str) -> None:
    net, anatomy = made(name)
    net.train()
    net.fc.eval()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    one_place(anatomy, anatomy.prunable)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert net.training
    assert not net.fc.training


def test_a_model_that_can_not_be_tried_is_masked_where_it_is_read() -> None:
    with torch.device("meta"):
        net = NETS["normed"]()
        anatomy = tonsor.inspect(net, torch.zeros(1, 3, 8, 8))
    found = one_place(anatomy, anatomy.prunable)
    assert {p.member.tensor for mine in found.values() for p in mine} == {"two.weight", "fc.weight"}
