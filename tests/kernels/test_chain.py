"""Chains of kernels: what they make, where values lie, and what they refuse."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.chains import ONE, OTHER, Drawn, drawn_chain, line, same
from tonsor.errors import EngineError
from tonsor.kernels.chain import Chain, Link, _holders, _placed, release
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form, pack

FORM = pytest.mark.parametrize("form", FORMS)


# ---------------------------------------------------------------- the same numbers


@settings(max_examples=200)
@given(seed=st.integers(0, 2**20))
def test_a_chain_makes_what_its_kernels_make_one_by_one(seed: int) -> None:
    drawn = drawn_chain(seed)
    before = [x.clone() for x in drawn.given]
    found = drawn.found()
    assert same(found, drawn.wanted()), drawn
    assert same(list(drawn.given), before)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in found)


def test_many_kinds_of_chains_are_drawn() -> None:
    """Else the test above would say little."""
    many = [drawn_chain(seed) for seed in range(300)]
    links = [link for drawn in many for link in drawn.links]
    assert sum(link.residual is not None for link in links) > 200
    assert any(link.residual == link.x for link in links)
    assert any(len(drawn.given) == 2 for drawn in many)
    assert any(list(drawn.outputs) != sorted(drawn.outputs) for drawn in many)
    inner = [
        [n for n in (link.x, link.residual) if n in d.outputs] for d in many for link in d.links
    ]
    assert any(inner)
    assert {case.form for drawn in many for case in drawn.cases} == {*FORMS}
    assert {case.half for drawn in many for case in drawn.cases} == {True, False}


@FORM
def test_no_images_pass_through_a_chain(form: Form) -> None:
    drawn = line(form)
    none = replace(drawn, given=(drawn.given[0][:0],))
    assert [x.shape for x in none.found()] == [(0, 7, 6, 5)]


@FORM
def test_calls_that_follow_each_other_do_not_meet(form: Form) -> None:
    """They share memory; and what was returned is not written to again."""
    small, large = line(form), line(form, 5, batch=7)
    first = small.chain()
    one = first(small.given)
    kept = [x.clone() for x in one]
    assert same(large.found(), large.wanted())
    assert same(first(small.given), kept)
    assert same(one, kept)


@FORM
def test_another_default_device_does_not_matter(form: Form) -> None:
    drawn = line(form)
    chain = drawn.chain()
    release()
    with torch.device("meta"):
        found = chain(drawn.given)
    assert same(found, drawn.wanted())


# ---------------------------------------------------------------- where values lie


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Link], int, list[int], list[torch.Size]]:
    """Links that read any values before them, of any sizes; their weights do not matter."""
    given_, count = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    links = []
    for number in range(given_, given_ + count):
        # Near ones more often: far ones keep everything alive.
        back = st.integers(1, number) | st.integers(1, min(3, number))
        residual = draw(st.none() | back)
        links.append(Link(torch.empty(0), ONE, False, number - draw(back),
                          None if residual is None else number - residual))  # fmt: skip
    own = range(given_, given_ + count)
    outputs = draw(st.lists(st.sampled_from(own), min_size=1, max_size=4, unique=True))
    sizes = draw(st.lists(st.integers(0, 100), min_size=given_ + count, max_size=given_ + count))
    return links, given_, outputs, [torch.Size((1, n, 1, 1)) for n in sizes]


@settings(max_examples=500)
@given(graph=graphs(), width=st.sampled_from([2, 4]))
def test_values_that_are_needed_together_never_overlap(graph: Any, width: int) -> None:
    links, given_, outputs, shapes = graph
    places, size = _placed(links, given_, outputs, shapes, width)
    assert len(places) == len(shapes)
    assert places[:given_] == [-1 - n for n in range(given_)]
    assert [places[n] for n in outputs] == [-1 - given_ - n for n in range(len(outputs))]
    inner = [n for n in range(given_, len(shapes)) if n not in outputs]
    ends = {n: places[n] + shapes[n].numel() * width for n in inner}
    assert all(places[n] >= 0 and places[n] % 64 == 0 and ends[n] <= size for n in inner)
    for step, link in enumerate(links):
        made = given_ + step
        for later in range(step, len(links)):
            reads = (links[later].x, links[later].residual)
            # What is made in between, or by the one that reads it last, must lie elsewhere.
            for other in inner:
                if made in inner and made in reads and made < other <= given_ + later:
                    assert ends[made] <= places[other] or ends[other] <= places[made], link
    assert size <= sum(-(-max(1, shapes[n].numel() * width) // 64) * 64 for n in inner)


@given(count=st.integers(1, 30), size=st.integers(1, 500))
def test_a_line_of_equal_values_needs_two_of_them(count: int, size: int) -> None:
    links = [Link(torch.empty(0), ONE, False, n) for n in range(count)]
    shapes = [torch.Size((1, size, 1, 1))] * (count + 1)
    _, found = _placed(links, 1, [count], shapes, 4)
    assert found == min(2, count - 1) * -(-size * 4 // 64) * 64


# ---------------------------------------------------------------- memory


@FORM
def test_memory_is_given_back(form: Form) -> None:
    drawn = line(form, 4)
    chain = drawn.chain()
    first = chain(drawn.given)
    assert any(holder.held is not None for holder in _holders)
    release()
    assert all(holder.held is None for holder in _holders)
    assert same(chain(drawn.given), first)


def test_memory_of_other_threads_is_given_back_while_they_live() -> None:
    drawn = line("panels", 4)
    chain, wanted = drawn.chain(), drawn.wanted()
    ran, go_on, found = threading.Event(), threading.Event(), []

    def run() -> None:
        found.append(chain(drawn.given))
        ran.set()
        go_on.wait(60)
        found.append(chain(drawn.given))

    release()
    before = len(_holders)
    thread = threading.Thread(target=run)
    thread.start()
    assert ran.wait(60)
    held = [holder.held for holder in _holders]
    release()
    freed = [holder.held for holder in _holders]
    go_on.set()
    thread.join()
    assert sum(x is not None for x in held) == 1
    assert freed == [None] * len(freed)
    assert all(same(each, wanted) for each in found)
    assert len(_holders) <= before  # and it goes with its thread


def test_threads_run_chains_at_the_same_time() -> None:
    many = [drawn_chain(seed) for seed in range(40)]
    chains, wanted = [d.chain() for d in many], [d.wanted() for d in many]

    def run(worker: int) -> bool:
        torch.set_num_threads(1)
        order = [(worker * 7 + n) % len(many) for n in range(2 * len(many))]
        return all(same(chains[n](many[n].given), wanted[n]) for n in order)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(6)))


@FORM
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_runs_a_chain(form: Form) -> None:
    drawn = line(form, 4)
    chain = drawn.chain()
    wanted = chain(drawn.given)
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)
            code = 0 if same(chain(drawn.given), wanted) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---------------------------------------------------------------- what is refused


def test_a_chain_is_for_tensors_of_its_kind() -> None:
    drawn = line("panels")
    chain, (x,) = drawn.chain(), drawn.given
    assert chain.fits([x])
    assert not chain.fits([x.bfloat16()])
    assert not chain.fits([x.to("meta")])
    assert not chain.fits([torch.nn.Parameter(x)])
    learns = x.clone().requires_grad_()
    assert not chain.fits([learns])
    with torch.no_grad():
        assert chain.fits([learns])


def _link(geometry: Geometry, x: int, residual: int | None = None) -> Link:
    weight = torch.ones(geometry.out_channels, geometry.inputs, *geometry.kernel)
    return Link(pack(weight, None, geometry, "panels"), geometry, False, x, residual)


X, BARE = torch.ones(2, 5, 6, 5), Geometry(5, 7, (3, 3))
WRONG: dict[str, Callable[[], Chain]] = {
    r"reads the values \(1,\), and there are 1 before": lambda: Chain([_link(ONE, 1)], [X], [1]),
    r"reads the values \(0, -1\)": lambda: Chain([_link(ONE, 0, -1)], [X], [1]),
    r"does not fit what it reads, \[\(2, 5, 6, 5\)\]": lambda: Chain([_link(OTHER, 0)], [X], [1]),
    r"\[\(2, 5, 6, 5\), \(2, 5, 6, 5\)\]": lambda: Chain([_link(ONE, 0, 0)], [X], [1]),
    r"what it reads, \[\(2, 5, 2, 5\)\]": lambda: Chain([_link(BARE, 0)], [X[:, :, :2]], [1]),
    r"outputs of a chain, \[0\], .* 1 to 1, each once": lambda: Chain([_link(ONE, 0)], [X], [0]),
    r"outputs of a chain, \[1, 1\]": lambda: Chain([_link(ONE, 0)], [X], [1, 1]),
    r"these are \['\(.*\), torch.float64'\]": lambda: Chain([_link(ONE, 0)], [X.double()], [1]),
    r"all in float32 or all in bf": lambda: Chain([_link(ONE, 0)], [X, X.bfloat16()], [2]),
}  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_links_that_are_no_chain_are_refused(said: str) -> None:
    with pytest.raises(EngineError, match=said):
        WRONG[said]()


@FORM
def test_weights_that_were_written_over_are_not_run_as_others(form: Form) -> None:
    """Of the same size, but for another convolution."""
    drawn = line(form)
    chain, packed = drawn.chain(), drawn.links[0].packed
    kept = packed.clone()
    packed.copy_(_strided(drawn, form))
    with pytest.raises(EngineError, match=r"a kernel of a chain failed: .* another convolution"):
        chain(drawn.given)
    packed.zero_()
    with pytest.raises(EngineError, match="a kernel of a chain failed: these weights"):
        chain(drawn.given)
    packed.copy_(kept)
    assert same(chain(drawn.given), drawn.wanted())


def _strided(drawn: Drawn, form: Form) -> Tensor:
    return replace(drawn.cases[0], geometry=replace(ONE, stride=(2, 2))).packed()
