"""The operator that graphs hold: its shapes, exporting, compiling, and torch in its place."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from tests.kernels.cases import Case, cases, one_step
from tonsor.errors import EngineError
from tonsor.kernels import library, ops
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form, pack

FORM = pytest.mark.parametrize("form", FORMS)
OP: Any = torch.ops.tonsor.convolve


def arguments(case: Case) -> tuple[Any, ...]:
    return case.x, case.packed(), case.given_residual, case.geometry.numbers, case.relu


@contextmanager
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TONSOR_KERNELS", "off")
        library.forget()
        try:
            yield
        finally:
            library.forget()


class Layer(nn.Module):
    """Calls the operator, between other operators."""

    packed: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.numbers, self.relu = case.geometry.numbers, case.relu
        self.register_buffer("packed", case.packed())

    def forward(self, x: Tensor) -> Tensor:
        first = OP(x * 2, self.packed, None, self.numbers, self.relu)
        return OP(x, self.packed, first, self.numbers, self.relu).flatten(1) + 1


# ---------------------------------------------------------------- shapes


@FORM
@pytest.mark.parametrize("half", [False, True])
def test_torch_finds_nothing_wrong_with_the_operator(form: Form, half: bool) -> None:
    for residual in (False, True):
        case = Case(form, residual=residual, relu=residual, half=half)
        torch.library.opcheck(OP, arguments(case))


@settings(max_examples=40)
@given(case=cases(2e4))
def test_shapes_without_numbers_are_those_of_numbers(case: Case) -> None:
    given_ = arguments(case)
    real = OP(*given_)
    with FakeTensorMode() as mode:
        fake = OP(*[mode.from_tensor(a) if isinstance(a, Tensor) else a for a in given_])
    meta = OP(*[a.to("meta") if isinstance(a, Tensor) else a for a in given_])
    for other in (fake, meta):
        assert (other.shape, other.dtype) == (real.shape, real.dtype)
        assert other.stride() == real.stride()


def test_what_is_no_image_is_refused_by_shape_too() -> None:
    case = Case("panels", geometry=Geometry(5, 7, (3, 3)))
    given_ = arguments(case)
    with FakeTensorMode() as mode:
        for x in (torch.randn(2, 5, 1, 1), torch.randn(2, 4, 6, 5)):
            with pytest.raises(EngineError, match="can't convolve"):
                OP(mode.from_tensor(x), mode.from_tensor(given_[1]), *given_[2:])


# ---------------------------------------------------------------- graphs


@FORM
def test_a_program_with_any_batch_is_saved_and_runs(form: Form) -> None:
    case = Case(form, relu=True)
    layer = Layer(case).eval()
    program = torch.export.export(
        layer, (case.x,), dynamic_shapes=({0: torch.export.Dim("batch", max=64)},)
    )
    assert [n.target for n in program.graph.nodes].count(OP.default) == 2
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for batch in (2, 5):
        x = torch.randn(batch, *case.x.shape[1:])
        assert torch.equal(again(x), layer(x))


@FORM
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_is_compiled_into_one_graph(form: Form, backend: str) -> None:
    layer = Layer(Case(form)).eval()
    compiled: Any = torch.compile(layer, fullgraph=True, backend=backend, dynamic=True)
    for batch in (2, 3):
        x = torch.randn(batch, 5, 6, 5)
        with torch.no_grad():
            assert torch.equal(compiled(x), layer(x))
    torch.compiler.reset()


# ---------------------------------------------------------------- where there is no kernel


@settings(max_examples=60)
@given(case=cases(3e4))
def test_torch_in_its_place_computes_the_same(case: Case) -> None:
    by_kernel = OP(*arguments(case))
    with pytest.MonkeyPatch.context() as patch, without_kernels(patch):
        assert not ops.by_kernel(case.x)
        by_torch = OP(*arguments(case))
    assert by_torch.dtype == by_kernel.dtype
    assert by_torch.is_contiguous(memory_format=torch.channels_last)
    one, two = by_torch.double(), by_kernel.double()
    scale = max(1e-3, float(one.abs().max())) if one.numel() else 1.0
    assert ((one - two).abs() <= 1e-5 * scale + one_step(one) * case.half).all(), case


@FORM
def test_other_types_go_by_torch(form: Form) -> None:
    case = Case(form)
    found = OP(case.x.double(), *arguments(case)[1:])
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, case.wanted(), rtol=1e-9, atol=1e-9)
    assert OP(case.x.half(), *arguments(case)[1:]).dtype == torch.float16


# ---------------------------------------------------------------- gradients and transforms


@FORM
def test_gradients_flow_back_to_input_and_residual(form: Form) -> None:
    case = Case(form, residual=True, relu=True)
    packed, x, residual = case.packed(), case.x.requires_grad_(), case.given_residual
    assert residual is not None
    residual.requires_grad_()
    ops.run(packed, x, case.geometry, residual, relu=True).square().sum().backward()
    wanted = replace(case, residual=False, relu=False)
    weight = wanted.weight.nan_to_num(0)
    out = torch.conv2d(x, weight, wanted.given_bias, padding=1) + residual
    grads = torch.autograd.grad(out.relu().square().sum(), (x, residual))
    for found, right in zip((x.grad, residual.grad), grads, strict=True):
        torch.testing.assert_close(found, right)


def test_the_operator_of_graphs_says_that_it_has_no_gradient() -> None:
    case = Case("panels")
    x = case.x.requires_grad_()
    out = OP(x, *arguments(case)[1:])
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        out.sum().backward()


@FORM
def test_the_operator_of_graphs_goes_one_by_one_in_vmap(form: Form) -> None:
    given_ = arguments(Case(form))
    found = torch.vmap(lambda x: OP(x[None], *given_[1:]))(given_[0])
    torch.testing.assert_close(found.squeeze(1), OP(*given_))


def test_inference_mode_and_autocast_are_fine() -> None:
    case = Case("stripes")
    plain = OP(*arguments(case))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(OP(*arguments(case)), plain)


def test_a_packed_weight_may_come_from_inference_mode() -> None:
    shape = Geometry(4, 4, (1, 1))
    with torch.inference_mode():
        packed = pack(torch.ones(4, 4, 1, 1), None, shape, "panels")
    assert torch.equal(
        ops.run(packed, torch.ones(1, 4, 2, 2), shape), torch.full((1, 4, 2, 2), 4.0)
    )
