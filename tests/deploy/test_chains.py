"""Layers that run as one call compute, bit for bit, what they compute one by one."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode

from tests.deploy.nets import NETS, images, shaken
from tests.kernels.chains import Drawn, drawn_chain, same
from tonsor.deploy import deploy, deploying, portable
from tonsor.deploy.capture import sites_of
from tonsor.deploy.chains import Chained, Turn, join
from tonsor.deploy.kernel_conv import KernelConv
from tonsor.deploy.layers import FusedConv, Site
from tonsor.errors import DeployError, EngineError
from tonsor.kernels.chain import release

IMAGE = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))


def site(name: str, inputs: int = 4, filters: int = 4, seed: int = 0, **more: bool) -> Site:
    torch.manual_seed(seed)
    made = Site(name, FusedConv(nn.Conv2d(inputs, filters, 3, padding=1), **more).eval())
    made.way, made.chosen = KernelConv(made.reference, "panels"), "kernel/panels"
    return made


def some(seed: int = 0) -> Chained:
    """Three layers, of which the last adds what the first made; two of them are asked for."""
    one, two = site("one", seed=seed, relu=True), site("two", filters=6, seed=seed + 1)
    three = site("three", 6, 4, seed + 2, adds=True)
    return Chained([Turn(one, 0), Turn(two, 1), Turn(three, 2, 1)], [3, 2]).eval()


def listed(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, (list, tuple)) else [found]


def one_by_one(chain: Chained, *given_: Tensor) -> list[Tensor]:
    return listed(chain._one_by_one(given_))


def later(chain: nn.Module, *given_: Tensor) -> list[Tensor]:
    """What a second call makes, which goes at once."""
    chain(*given_)
    return listed(chain(*given_))


def at_once(chain: Chained) -> bool:
    """Whether there is something to go at once with."""
    return bool(chain._ready)


# ---------------------------------------------------------------- the same numbers


def from_drawn(drawn: Drawn) -> Chained:
    """The same links as layers of a model."""
    turns = []
    for number, (link, case) in enumerate(zip(drawn.links, drawn.cases, strict=True)):
        g = case.geometry
        conv = nn.Conv2d(g.in_channels, g.out_channels, g.kernel, groups=g.groups)
        made = Site(str(number), FusedConv(conv, relu=link.relu))
        way = KernelConv(made.reference, case.form)
        way.geometry, way.packed, made.way = g, link.packed, way
        turns.append(Turn(made, link.x, link.residual))
    return Chained(turns, drawn.outputs).eval()


@settings(max_examples=120)
@given(seed=st.integers(0, 2**20))
@torch.no_grad()
def test_any_layers_in_one_call_make_what_they_make_one_by_one(seed: int) -> None:
    drawn = drawn_chain(seed)
    chain, wanted = from_drawn(drawn), drawn.wanted()
    for _ in range(3):
        assert same(listed(chain(*drawn.given)), wanted), drawn
    alike = len({x.dtype for x in drawn.given}) == 1
    assert at_once(chain) == alike


@torch.no_grad()
def test_later_calls_see_what_is_given_to_them() -> None:
    """Of more sizes than are remembered, of none, of other types and layouts."""
    chain = some()
    torch.manual_seed(0)
    for batch in (2, 0, 1, 2, *range(12), 2, 2):
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            for layout in (torch.contiguous_format, torch.channels_last):
                x = torch.randn(batch, 4, 9, 8).to(dtype).contiguous(memory_format=layout)
                assert same(listed(chain(x)), one_by_one(chain, x))
                assert same(listed(chain(x)), one_by_one(chain, x))
    assert at_once(chain)


@torch.no_grad()
def test_a_layer_that_fails_leaves_nothing_behind() -> None:
    chain = some()
    for wrong in (IMAGE[:, :3], IMAGE[0], IMAGE[:, :, :0]):
        for _ in range(2):
            with pytest.raises(EngineError, match="can't convolve"):
                chain(wrong)
    assert not at_once(chain)
    for _ in range(2):
        assert same(listed(chain(IMAGE)), one_by_one(chain, IMAGE))


@torch.no_grad()
def test_a_residual_that_would_have_to_be_stretched_is_refused() -> None:
    one = site("one", adds=True)
    chain = Chained([Turn(one, 0, 1), Turn(site("two"), 2)], [3]).eval()
    for other in (IMAGE[:1], IMAGE[..., :1], torch.ones(())):
        for _ in range(2):
            with pytest.raises(EngineError, match="can't be added"):
                chain(IMAGE, other)
    assert same(listed(chain(IMAGE, IMAGE)), one_by_one(chain, IMAGE, IMAGE))


# ---------------------------------------------------------------- whole networks


class Crossing(nn.Module):
    """Values that are read twice, added to themselves, asked for, and handed through."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.three = nn.Conv2d(3, 5, 3, stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a = F.relu(self.one(x) + x)
        b = self.two(self.two(a))
        c = F.relu(self.one(b) + a)
        d = self.three(c)
        return self.three(a) + d, b, x, a, d.mean((2, 3)), b


KINDS = {"crossing": Crossing, **NETS}


def chains_of(model: nn.Module) -> list[Chained]:
    return [m for m in model.modules() if isinstance(m, Chained)]


def deployed(name: str, batch: int = 2) -> tuple[nn.Module, nn.Module]:
    model = shaken(KINDS[name]())
    return model, deploy(model, images(batch), rounds=1, ways=["kernel"])[0]


@pytest.mark.usefixtures("deployed_wins")
@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_networks_compute_the_same_in_any_batch(name: str) -> None:
    model, fast = deployed(name)
    other = copy.deepcopy(fast)
    for each in sites_of(other):
        each.register_forward_hook(lambda *_: None)  # who hooks a layer has it run by itself
    for batch in (2, 1, 2, 3, 5, 7):
        found = [listed(fast(*images(batch))) for _ in range(2)]
        wanted = listed(other(*images(batch)))
        assert same(found[0], wanted)
        assert same(found[1], wanted)
        for one, two in zip(found[1], listed(model(*images(batch))), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4 * float(two.abs().max()))
    assert all(at_once(chain) for chain in chains_of(fast))
    assert not any(at_once(chain) for chain in chains_of(other))


@pytest.mark.usefixtures("deployed_wins")
def test_what_follows_one_another_is_joined() -> None:
    _, fast = deployed("crossing")
    (chain, *_) = chains_of(fast)
    names = ["one", "two", "two", "one", "three", "three"]
    assert [turn.site.name for turn in chain.turns] == names
    assert [each.name for each in sites_of(fast)] == names
    assert {(t.x, t.residual) for t in chain.turns if t.residual is not None} >= {(0, 0)}
    assert "6 layers, one to three" in repr(chain)


def graph_of(sites: Sequence[Site], reads: Sequence[int], output: int) -> fx.GraphModule:
    """A graph in which each site reads a value; the input is the first of them."""
    root, graph = nn.Module(), fx.Graph()
    values: list[Any] = [graph.placeholder("x")]
    for number, (each, read) in enumerate(zip(sites, reads, strict=True)):
        root.add_module(f"s{number}", each)
        values.append(graph.call_module(f"s{number}", (values[read],)))
    graph.output(values[output])
    return fx.GraphModule(root, graph)


@pytest.mark.parametrize(("reads", "output"), [([0], 1), ([0, 1], 0)])
def test_a_layer_alone_or_for_nothing_is_not_joined(reads: list[int], output: int) -> None:
    body = graph_of([site(str(n)) for n in reads], reads, output)
    join(body)
    assert chains_of(body) == []
    assert body(IMAGE).shape == IMAGE.shape


def test_only_what_runs_by_kernels_is_joined() -> None:
    sites = [site(str(n), seed=n) for n in range(5)]
    sites[2].way = sites[2].reference
    body = graph_of(sites, range(5), 5)
    with torch.no_grad():
        wanted = body(IMAGE)
        join(body)
        assert [len(c.turns) for c in chains_of(body)] == [2, 2]
        for _ in range(2):
            assert torch.equal(body(IMAGE), wanted)


# ---------------------------------------------------------------- what may change


def test_gradients_flow_in_every_call() -> None:
    chain = some()
    sites = [turn.site for turn in chain.turns]
    for _ in range(3):
        x = IMAGE.clone().requires_grad_()
        with torch.no_grad():
            assert not chain(x)[0].requires_grad
        last, inner = chain(x)
        (found,) = torch.autograd.grad(last.square().sum() + inner.square().sum(), x)
        a = sites[0].reference(x)
        b = sites[1].reference(a)
        wanted_of = sites[2].reference(b, a).square().sum() + b.square().sum()
        (wanted,) = torch.autograd.grad(wanted_of, x)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert at_once(chain)


@torch.no_grad()
def test_weights_that_move_to_shared_memory_are_found_there() -> None:
    """As they do when a model is handed to another process."""
    chain = some()
    model = nn.ModuleList([turn.site for turn in chain.turns])
    wanted = later(chain, IMAGE)
    before: Any = chain.turns[1].site.way.packed
    at = before.data_ptr()
    (known,) = chain._ready.values()
    assert known[1].holds()
    ForkingPickler.dumps(model.state_dict())  # nothing of the model itself is told
    assert before.is_shared()
    assert before.data_ptr() != at
    assert not known[1].holds()
    for _ in range(2):
        assert same(listed(chain(IMAGE)), wanted)
    (known,) = chain._ready.values()
    assert known[1].holds()


@torch.no_grad()
def test_other_weights_and_ways_are_seen() -> None:
    chain, other = some(), some(10)
    for _ in range(2):
        before, wanted = listed(chain(IMAGE)), listed(other(IMAGE))
    assert not same(before, wanted)
    for turn, its in zip(chain.turns, other.turns, strict=True):
        turn.site.load_state_dict(its.site.state_dict())
    assert same(listed(chain(IMAGE)), wanted)
    for turn, its in zip(chain.turns, some().turns, strict=True):
        turn.site.way.packed = its.site.way.packed  # type: ignore[assignment]
    assert same(listed(chain(IMAGE)), before)
    chain.turns[1].site.way = other.turns[1].site.way
    mixed = listed(chain(IMAGE))
    assert not same(mixed, before)
    assert same(mixed, one_by_one(chain, IMAGE))
    chain.turns[1].site.way = other.turns[1].site.reference
    assert same(listed(chain(IMAGE)), one_by_one(chain, IMAGE))


@torch.no_grad()
@pytest.mark.parametrize("of", ["site", "way"])
@pytest.mark.parametrize("before", [True, False])
def test_who_hooks_a_layer_is_called_each_time(of: str, before: bool) -> None:
    chain, seen = some(), []
    wanted = later(chain, IMAGE)
    layer = chain.turns[1].site if of == "site" else chain.turns[1].site.way
    register = layer.register_forward_pre_hook if before else layer.register_forward_hook
    handle = register(lambda *_: seen.append(1))
    for count in (1, 2, 3):
        assert same(listed(chain(IMAGE)), wanted)
        assert len(seen) == count
    handle.remove()
    assert same(listed(chain(IMAGE)), wanted)
    assert len(seen) == 3


@pytest.mark.usefixtures("deployed_wins")
def test_a_wrong_layer_in_a_chain_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = deploying.choose

    def spoiling(body: nn.Module, sites: list[Site], *rest: Any, **more: Any) -> Any:
        rows = choose(body, sites, *rest, **more)
        conv = copy.deepcopy(sites[1].reference)
        conv.conv.weight.data.mul_(1.5)
        sites[1].way = KernelConv(conv, "panels")
        return rows

    monkeypatch.setattr(deploying, "choose", spoiling)
    with pytest.raises(DeployError, match=r"first layer to differ is 'two' \(kernel/panels\)"):
        deploy(shaken(Crossing()), images(2), rounds=1, ways=["kernel"])


# ---------------------------------------------------------------- where it goes


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_copies_files_and_graphs_compute_the_same() -> None:
    _, fast = deployed("crossing")
    wanted, file = later(fast, *images(2)), io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    for other in (
        copy.deepcopy(fast), pickle.loads(pickle.dumps(fast)), torch.load(file, weights_only=False)
    ):  # fmt: skip
        assert list(other.state_dict()) == list(fast.state_dict())
        assert {id(t.site) for c in chains_of(other) for t in c.turns} <= {
            id(s) for s in sites_of(other)
        }
        for _ in range(2):
            assert same(listed(other(*images(2))), wanted)
    program = torch.export.export(fast, images(2))
    assert same(listed(program.module()(*images(2))), wanted)
    targets = [str(n.target) for n in program.graph.nodes]
    assert targets.count("tonsor.convolve.default") == 6
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert same(listed(compiled(*images(2))), wanted)
    assert same(listed(fast(*images(2))), wanted)


@pytest.mark.usefixtures("deployed_wins")
@torch.no_grad()
def test_what_is_portable_has_no_kernels() -> None:
    model, fast = deployed("crossing")
    wanted = later(fast, *images(2))
    plain = portable(fast)
    assert not any(isinstance(m, KernelConv) for m in plain.modules())
    program = torch.export.export(plain, images(2))
    assert all("tonsor" not in str(n.target) for n in program.graph.nodes)
    for found in (plain(*images(2)), plain(*images(2)), program.module()(*images(2))):
        for one, two in zip(listed(found), listed(model(*images(2))), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    assert not any(at_once(chain) for chain in chains_of(plain))
    assert same(listed(fast(*images(2))), wanted)


@torch.no_grad()
def test_shapes_without_numbers_and_other_default_devices_pass() -> None:
    chain = some()
    wanted = later(chain, IMAGE)
    shapes = [x.shape for x in wanted]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for x in (IMAGE, mode.from_tensor(IMAGE)):
            assert [y.shape for y in chain(x)] == shapes
    assert [y.shape for y in chain(IMAGE.to("meta"))] == shapes
    with torch.device("meta"):
        release()
        assert same(listed(chain(IMAGE)), wanted)
    found = torch.vmap(lambda x: chain(x[None])[0])(IMAGE)
    torch.testing.assert_close(found.squeeze(1), wanted[0], rtol=1e-5, atol=1e-5)


def test_threads_call_a_chain_at_the_same_time() -> None:
    chain = some()
    sizes = [(batch, 4, side, 8) for batch in (1, 2, 3) for side in (3, 9, 20, 40)]
    given_ = [torch.randn(size) for size in sizes]
    with torch.no_grad():
        wanted = [one_by_one(chain, x) for x in given_]

    def run(worker: int) -> bool:
        torch.set_num_threads(1)
        with torch.no_grad():
            order = [(worker * 5 + n) % len(given_) for n in range(4 * len(given_))]
            return all(same(listed(chain(given_[n])), wanted[n]) for n in order)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(6)))
