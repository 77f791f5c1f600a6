"""Kernels in many threads, in forked processes, and with any number of torch's threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.kernels.cases import Case, cases, drawn
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form

FORM = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def by_threads(case: Case, threads: int) -> Tensor:
    torch.set_num_threads(threads)
    return case.found()


@settings(max_examples=60)
@given(case=cases())
def test_any_number_of_threads_gives_the_same(case: Case) -> None:
    """The same bits but for stripes, which are summed in another order where threads share them."""
    one = by_threads(case, 1)
    for threads in (2, 3, 4):
        found = by_threads(case, threads)
        if case.form == "stripes":
            torch.set_num_threads(threads)
            case.check()
        else:
            assert torch.equal(found, one), (threads, case)


@FORM
@pytest.mark.parametrize("kind", ["stripes", "columns"])
def test_one_image_is_shared_among_threads(form: Form, kind: str) -> None:
    """Few pixels and many filters, so that threads share a piece; and many rows, so that not."""
    for sides, filters in (((4, 4), 100), ((33, 20), 20)):
        shape = Geometry(9, filters, (3, 3), padding=(1, 1, 1, 1))
        case = Case(form, "stripes" if kind == "stripes" else "columns", shape, 1, sides)
        torch.set_num_threads(4)
        case.check()
        assert torch.equal(case.found(), case.found())
        torch.testing.assert_close(case.found(), by_threads(case, 1))


def test_calls_at_the_same_time_do_not_meet() -> None:
    many = [drawn(seed, 1e5) for seed in range(20_000, 20_160)]
    alone = [case.found() for case in many]
    packed = [(case, case.packed(), case.x) for case in many]
    torch.set_num_threads(2)

    def run(worker: int) -> bool:
        order = range(worker, worker + len(many))
        return all(
            torch.equal(packed[at % len(many)][0].found(), alone[at % len(many)]) for at in order
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(0, 160, 20)))


def test_one_layer_is_called_by_many_threads() -> None:
    cases_ = [
        Case(form, geometry=Geometry(20, 33, (3, 3)), batch=batch, sides=(size, 9), seed=5)
        for form in FORMS for batch, size in ((1, 5), (3, 40), (2, 12))
    ]  # fmt: skip
    alone = [case.found() for case in cases_]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = pool.map(lambda case: case.found(), cases_ * 8)
            assert all(
                torch.equal(a, b) for a, b in zip(found, alone * 8, strict=True)
            )  # fmt: skip


# ---------------------------------------------------------------- processes


@FORM
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_computes_the_same(form: Form) -> None:
    """With one thread, as workers that load data have it; more hang there in torch too."""
    case = Case(form, geometry=Geometry(20, 33, (3, 3)), sides=(30, 30))
    wanted = case.found()
    child = os.fork()
    if not child:
        code = 1
        try:
            torch.set_num_threads(1)
            code = 0 if torch.equal(case.found(), wanted) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Convolved(Dataset[Tensor]):
    """Samples that a kernel makes."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Tensor:
        return replace(self.case, seed=index).found()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_that_load_data_may_use_kernels() -> None:
    case = Case("stripes", relu=True)
    case.check()
    found = list(DataLoader(Convolved(case), batch_size=None, num_workers=2))
    assert len(found) == 6
    for index, sample in enumerate(found):
        assert torch.equal(sample, replace(case, seed=index).found())
