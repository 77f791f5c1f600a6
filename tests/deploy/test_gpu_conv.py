"""A layer that runs by the Triton kernel computes what it did, and is offered where it may pay.

Without a GPU the kernel runs in Triton's interpreter, and tensors of the CPU pass for those of one.
"""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import tonsor
from tests.deploy.nets import without_stripes
from tests.deploy.test_kernel_conv import layer
from tests.kernels.gpu import conftest
from tonsor.deploy import gpu_conv
from tonsor.deploy.choose import Trial, decide
from tonsor.deploy.gpu_conv import GpuConv, allows_tf32, gpu_ways, has_triton
from tonsor.deploy.layers import FusedConv, Site
from tonsor.deploy.ways import WAYS
from tonsor.errors import DeployError
from tonsor.kernels.gpu.devices import KNOWN
from tonsor.kernels.gpu.launch import available
from tonsor.kernels.gpu.roofline import Layer
from tonsor.kernels.gpu.window import Window
from tonsor.surgery.stripe_conv import StripeConv2d

place = conftest.place
IMAGE = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
KINDS = pytest.mark.parametrize("kind", ["stripes", "columns", "dense"])


@pytest.fixture
def on_gpu(place: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where tensors go that the kernel may run on."""
    monkeypatch.setattr(gpu_conv, "on_a_gpu", lambda x: x.device.type == place.type)
    monkeypatch.setattr(gpu_conv, "_known_or_measured", lambda index: KNOWN["H200"])
    return place


@pytest.fixture
def ran(on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The kernel, which knows each time that it ran."""
    watched = Mock(wraps=gpu_conv.convolve)
    monkeypatch.setattr(gpu_conv, "convolve", watched)
    return watched


def fused_of(kind: str = "stripes", **given_: Any) -> FusedConv:
    return FusedConv(layer(kind, padding=1), **given_).requires_grad_(False).eval()


@st.composite
def fused(draw: st.DrawFn) -> FusedConv:
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride = draw(pair)
    padding: Any = draw(st.sampled_from([0, (2, 1), "valid", *(["same"] * (stride == (1, 1)))]))
    conv = layer(
        draw(st.sampled_from(["dense", "stripes", "columns"])),
        keep=draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])), seed=draw(st.integers(0, 99)),
        stride=stride, padding=padding, dilation=draw(pair), groups=draw(st.sampled_from([1, 2])),
        bias=draw(st.booleans()),
    )  # fmt: skip
    return FusedConv(conv, relu=draw(st.booleans()), adds=draw(st.booleans())).eval()


@contextmanager
def precision(allowed: str) -> Iterator[None]:
    """Have torch's convolutions of float32 be rounded so far, or not."""
    cudnn: Any = torch.backends.cudnn
    before, cudnn.conv.fp32_precision = cudnn.conv.fp32_precision, allowed
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before


def near(found: Tensor, wanted: Tensor, close: float = 1e-5) -> None:
    torch.testing.assert_close(found.cpu().float(), wanted.float(), rtol=close, atol=close)


def settled(run: str) -> Mock:
    """Make what stands for `choose`, and has its mind made up."""
    reason = "memory-bound: at most x1.6 by any sparsity"
    return Mock(return_value=SimpleNamespace(run=run, reason=reason))


# ---------------------------------------------------------------- the same numbers


@settings(max_examples=40)
@given(wanted=fused(), last=st.booleans())
def test_it_computes_what_the_convolution_does(
    place: torch.device, wanted: FusedConv, last: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(gpu_conv, "on_a_gpu", lambda x: True)
        patch.setattr(gpu_conv, "allows_tf32", lambda: False)
        plain = wanted(IMAGE)
        way = GpuConv(wanted, last=last)
        # Whoever is run instead would say so.
        way.reference = FusedConv(nn.Identity())
        way = way.to(place)
        residual = torch.randn(plain.shape) if wanted.adds else None
        for x in (IMAGE, IMAGE[:1], IMAGE.contiguous(memory_format=torch.channels_last)):
            more = None if residual is None else residual[: len(x)]
            found = way(x.to(place), None if more is None else more.to(place))
            near(found, wanted(x, more))
            assert found.is_contiguous(memory_format=torch.channels_last) or not last
            assert found.is_contiguous() or last


def test_filters_that_share_their_skeleton_run_together() -> None:
    """Their masks come in an order in which neighbours differ."""
    rng = np.random.default_rng(0)
    mask = np.tile(rng.random((4, 9)) < 0.3, (16, 1))
    way = GpuConv(FusedConv(StripeConv2d(64, 64, mask, (3, 3), padding=1)))
    assert way.packed.executed == pytest.approx(mask.mean())
    assert way.packed.block == 16


def test_columns_run_as_columns() -> None:
    way = GpuConv(FusedConv(layer("columns", keep=0.3, inputs=64, filters=64)))
    assert not way.packed.runs
    assert way.packed.executed < 0.35


@pytest.mark.parametrize(("allowed", "tf32"), [("tf32", True), ("ieee", False)])
def test_float32_is_rounded_if_torch_may(
    ran: Mock, on_gpu: torch.device, allowed: str, tf32: bool
) -> None:
    way = GpuConv(fused_of()).to(on_gpu)
    with precision(allowed):
        assert allows_tf32() == tf32
        way(IMAGE.to(on_gpu))
        way.half()(IMAGE.to(on_gpu).half())
    assert [c.kwargs["tf32"] for c in ran.call_args_list] == [tf32, False]


@pytest.mark.parametrize("allowed", [False, True])
def test_the_older_flag_is_heard_too(allowed: bool) -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = allowed
        assert allows_tf32() == allowed
    finally:
        torch.backends.cudnn.allow_tf32 = before


@KINDS
def test_copies_and_files_compute_the_same(
    ran: Mock, on_gpu: torch.device, kind: str
) -> None:  # fmt: skip
    way, x = GpuConv(fused_of(kind, relu=True)).to(on_gpu), IMAGE.to(on_gpu)
    wanted, file = way(x), io.BytesIO()
    torch.save(way, file)
    file.seek(0)
    read = pickle.loads(pickle.dumps(way)), torch.load(file, weights_only=False)
    for other in (copy.deepcopy(way), *read):
        assert torch.equal(other(x), wanted)
        assert other.weight.data_ptr() != way.weight.data_ptr()
        assert other.packed.window == way.packed.window
    assert ran.call_count == 4


def test_a_copy_of_a_site_holds_its_reference_once() -> None:
    site = Site("a", fused_of())
    site.way = GpuConv(site.reference)
    others: list[Any] = [copy.deepcopy(site), pickle.loads(pickle.dumps(site))]
    for other in others:
        assert other.way.reference is other.reference
        assert other.reference is not site.reference


@KINDS
def test_other_types_convert_weights_and_leave_tables_alone(
    ran: Mock, on_gpu: torch.device, kind: str
) -> None:
    wanted = fused_of(kind)
    way = GpuConv(copy.deepcopy(wanted)).to(on_gpu)
    before = way.packed
    near(way.half()(IMAGE.to(on_gpu).half()), wanted(IMAGE), 2e-2)
    assert way.weight.dtype == torch.float16
    for name in ("table", "starts", "filters"):
        assert torch.equal(getattr(way.packed, name), getattr(before, name))
    assert ran.call_count == 1
    # What the kernel does not compute in runs as before.
    near(way.double()(IMAGE.to(on_gpu).double()), wanted(IMAGE), 2e-2)
    assert ran.call_count == 1


@KINDS
def test_in_a_graph_it_is_made_of_ordinary_operators(
    ran: Mock, on_gpu: torch.device, kind: str
) -> None:
    way = GpuConv(fused_of(kind, relu=True)).to(on_gpu)
    batch, x = torch.export.Dim("batch", max=32), IMAGE.to(on_gpu)
    program = torch.export.export(way, (x,), dynamic_shapes={"x": {0: batch}})
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert targets
    assert all(target.namespace == "aten" for target in targets)
    near(torch.vmap(lambda one: way(one[None]))(x).squeeze(1), way.reference(x).cpu())
    ran.assert_not_called()
    near(program.module()(x), way(x).cpu())
    assert ran.call_count == 1


def test_what_is_no_batch_of_images_runs_as_before(ran: Mock, on_gpu: torch.device) -> None:
    way = GpuConv(fused_of()).to(on_gpu)
    assert torch.equal(way(IMAGE[0].to(on_gpu)), way.reference(IMAGE[0].to(on_gpu)))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert way(mode.from_tensor(IMAGE.to(on_gpu))).shape == (2, 6, 9, 8)
    ran.assert_not_called()


@pytest.mark.parametrize("learner", [0, 1], ids=["input", "residual"])
def test_gradients_flow(ran: Mock, on_gpu: torch.device, learner: int) -> None:
    wanted = fused_of(relu=True, adds=True)
    way = GpuConv(copy.deepcopy(wanted)).to(on_gpu)
    tensors = [IMAGE.clone().to(on_gpu), torch.ones(2, 6, 9, 8, device=on_gpu)]
    asked = tensors[learner].requires_grad_()
    (found,) = torch.autograd.grad(way(*tensors).sum(), asked)
    near(found, torch.autograd.grad(wanted.to(on_gpu)(*tensors).sum(), asked)[0].cpu(), 1e-4)
    ran.assert_not_called()
    with torch.no_grad():
        way(*tensors)
    ran.assert_called_once()


def test_under_autocast_it_runs_as_before(ran: Mock, on_gpu: torch.device) -> None:
    way = GpuConv(fused_of()).to(on_gpu)
    with torch.autocast(on_gpu.type, torch.bfloat16):
        assert way(IMAGE.to(on_gpu)).dtype == torch.bfloat16
    ran.assert_not_called()


@pytest.mark.parametrize(("gpu", "triton"), [(False, True), (True, False)])
def test_elsewhere_it_runs_as_before(
    gpu: bool, triton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_conv, "convolve", None)
    monkeypatch.setattr(gpu_conv, "on_a_gpu", lambda x: gpu)
    monkeypatch.setattr(gpu_conv, "has_triton", lambda: triton)
    wanted = fused_of()
    assert torch.equal(GpuConv(wanted)(IMAGE), wanted(IMAGE))


# ---------------------------------------------------------------- when it is offered


@pytest.fixture
def worth_it(on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Have the kernel always expected to be faster."""
    choose = settled("kernel")
    monkeypatch.setattr(gpu_conv, "choose", choose)
    return choose


@pytest.mark.parametrize(
    ("kind", "forms"), [("stripes", ["nhwc"]), ("columns", ["nhwc", "nchw"]), ("dense", [])]
)
def test_layers_of_fibres_are_offered(worth_it: Mock, kind: str, forms: list[str]) -> None:
    ways = gpu_ways(fused_of(kind), IMAGE)
    assert list(ways) == forms
    assert [way.last for way in ways.values()] == [form == "nhwc" for form in forms]  # type: ignore[union-attr]
    assert list(WAYS["triton"](fused_of(kind), IMAGE)) == [f"triton/{form}" for form in forms]


def test_the_roofline_is_asked_about_this_layer(worth_it: Mock) -> None:
    conv = layer("columns", stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    rates = ("tf32", "float32", "float16", "bfloat16")
    for rate in rates:
        dtype = getattr(torch, rate, torch.float32)
        with precision("tf32" if rate == "tf32" else "ieee"):
            gpu_ways(FusedConv(copy.deepcopy(conv).to(dtype)), IMAGE.to(dtype))
    packed = GpuConv(FusedConv(conv)).packed
    window = Window((2, 1), ((1, 1), (2, 2)), (1, 2))
    about = Layer(4, 6, (9, 8), (3, 3), window, 2)
    assert worth_it.call_args_list == [
        call(about, 2, rate, packed.executed, KNOWN["H200"], block=packed.block) for rate in rates
    ]


def test_what_is_not_expected_to_pay_is_left_out(
    on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_conv, "choose", settled("dense"))
    with pytest.raises(DeployError, match=r"^memory-bound: at most x1\.6 by any sparsity$"):
        gpu_ways(fused_of(), IMAGE)
    row = decide(Site("a", fused_of()), IMAGE, trial=Trial(1, 0.0, ("dense", "triton")))
    assert row.chosen == "dense"
    assert "memory-bound: at most x1.6 by any sparsity" in row.left_out["triton"]


@pytest.mark.parametrize(
    ("kind", "inputs", "side", "why_not"),
    [
        ("columns", 16, 32, r"^launch-bound: at most x1\.0 by any sparsity, x1\.0 expected$"),
        ("columns", 256, 14, ""),
        ("stripes", 256, 14, "x0.*expected"),
    ],
)
def test_the_roofline_decides(
    on_gpu: torch.device, kind: str, inputs: int, side: int, why_not: str
) -> None:
    """Narrow layers gain nothing, nor do stripes that no filters share."""
    conv = layer(kind, keep=0.3, inputs=inputs, filters=inputs, padding=1).bfloat16()
    x = torch.empty(1, inputs, side, side, dtype=torch.bfloat16).expand(64, -1, -1, -1)
    if why_not:
        with pytest.raises(DeployError, match=why_not):
            gpu_ways(FusedConv(conv), x)
    else:
        assert list(gpu_ways(FusedConv(conv), x)) == ["nhwc", "nchw"]


def test_it_is_timed_beside_the_dense_way(worth_it: Mock, on_gpu: torch.device) -> None:
    site = Site("a", fused_of("columns", relu=True)).to(on_gpu)
    trial = Trial(1, 0.0, ("dense", "triton"))
    with torch.no_grad():
        row = decide(site, IMAGE[:1].to(on_gpu), trial=trial)
    assert list(row.ms) == ["dense", "triton/nhwc", "triton/nchw"]
    assert not row.left_out
    assert row.chosen in row.ms


def test_what_it_does_not_run_is_not_offered(
    worth_it: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu_ways(FusedConv(layer(padding=1, padding_mode="reflect")), IMAGE) == {}
    assert gpu_ways(FusedConv(nn.Conv1d(4, 4, 3)), IMAGE[0]) == {}
    assert gpu_ways(fused_of(), IMAGE[0]) == {}
    with pytest.raises(DeployError, match=r"not for torch.float64: float32, float16 or bfloat16"):
        gpu_ways(fused_of().double(), IMAGE.double())
    monkeypatch.setattr(gpu_conv, "has_triton", lambda: False)
    with pytest.raises(DeployError, match="Triton is not installed: pip install"):
        gpu_ways(fused_of(), IMAGE)
    monkeypatch.setattr(gpu_conv, "on_a_gpu", lambda x: x.is_cuda)
    assert gpu_ways(fused_of(), IMAGE) == {}
    worth_it.assert_not_called()


@pytest.mark.parametrize("conv", [nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, 3, padding_mode="circular")])
def test_other_convolutions_are_refused(conv: nn.Module) -> None:
    with pytest.raises(DeployError, match=r"two dimensions .* zeros, but this is Conv\dd\(4, 4"):
        GpuConv(FusedConv(conv))


def test_a_gpu_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    look = Mock(return_value=KNOWN["L4"])
    monkeypatch.setattr(gpu_conv, "device_of", look)
    gpu_conv._known_or_measured.cache_clear()
    try:
        assert [gpu_conv._known_or_measured(i).name for i in (0, 1, 0, 1)] == ["L4"] * 4
        assert look.call_args_list == [call(0), call(1)]
    finally:
        gpu_conv._known_or_measured.cache_clear()


def test_it_says_what_it_is() -> None:
    way = GpuConv(FusedConv(layer("dense", padding=1), relu=True))
    assert repr(way).startswith("GpuConv(\n  4, 6, (3, 3), block=16, executed=")
    assert ", relu" in repr(way)


def test_triton_is_found_without_being_imported() -> None:
    program = (
        "import sys, tonsor.deploy; from tonsor.deploy.gpu_conv import has_triton; "
        "print(has_triton(), 'triton' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(has_triton()), "False"]


@pytest.mark.skipif(not available(), reason="there is no GPU with Triton here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_deployed_network_runs_by_it(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_conv, "choose", settled("kernel"))
    net = without_stripes().to("cuda", dtype)
    x = torch.randn(4, 3, 16, 16, device="cuda", dtype=dtype)
    fast, report = tonsor.deploy(net, x, rounds=1, ways=["triton"])
    assert any(row.chosen.startswith("triton") for row in report.rows)
    near(fast(x), net(x).cpu(), 0.1)
