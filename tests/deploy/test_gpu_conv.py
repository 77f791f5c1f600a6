"""A layer that runs by the Triton kernel computes what it did, and is offered where it may pay.

Without a GPU the kernel runs in Triton's interpreter, and tensors of the CPU pass for those of one.
"""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

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
def on_gpu(place: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Where tensors go that the kernel may run on."""
    monkeypatch.setattr(gpu_conv, "on_a_gpu", lambda x: x.device.type == place.type)
    monkeypatch.setattr(gpu_conv, "_known_or_measured", lambda index: KNOWN["H200"])
    yield place


@pytest.fixture
def ran(on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the kernel was told to do, each time that it ran."""
    seen: list[dict[str, Any]] = []
    convolve = gpu_conv.convolve

    def run(*given: Any, **named: Any) -> Tensor:
        seen.append(named | {"x": given[0]})
        return convolve(*given, **named)

    monkeypatch.setattr(gpu_conv, "convolve", run)
    return seen


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


def near(found: Tensor, wanted: Tensor, close: float = 1e-5) -> None:
    torch.testing.assert_close(found.cpu().float(), wanted.float(), rtol=close, atol=close)


def settled(cut: bool) -> Callable[..., Any]:
    """Make what stands for `choose`, and has its mind made up."""

    def choose(*given: Any, **named: Any) -> Any:
        choose.asked.append((given, named))  # type: ignore[attr-defined]
        reason = "memory-bound: at most x1.6 by any sparsity"
        return type("Choice", (), {"run": "kernel" if cut else "dense", "reason": reason})

    choose.asked = []  # type: ignore[attr-defined]
    return choose


# ---------------------------------------------------------------- the same numbers


# The fixture is the same for all examples: it says what passes for a GPU.
@settings(max_examples=40, suppress_health_check=[*settings.default.suppress_health_check])
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
    ran: list[dict[str, Any]], on_gpu: torch.device, allowed: str, tf32: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", allowed)
    assert allows_tf32() == tf32
    way = GpuConv(fused_of()).to(on_gpu)
    way(IMAGE.to(on_gpu))
    way.half()(IMAGE.to(on_gpu).half())
    assert [told["tf32"] for told in ran] == [tf32, False]


def test_the_older_flag_is_heard_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        assert allows_tf32() == allowed


# ---------------------------------------------------------------- where it goes


@KINDS
def test_copies_and_files_compute_the_same(
    ran: list[Any], on_gpu: torch.device, kind: str
) -> None:  # fmt: skip
    way, x = GpuConv(fused_of(kind, relu=True)).to(on_gpu), IMAGE.to(on_gpu)
    wanted, file = way(x), io.BytesIO()
    torch.save(way, file)
    file.seek(0)
    for other in (
        copy.deepcopy(way), pickle.loads(pickle.dumps(way)), torch.load(file, weights_only=False)
    ):  # fmt: skip
        assert torch.equal(other(x), wanted)
        assert other.weight.data_ptr() != way.weight.data_ptr()
        assert other.packed.window == way.packed.window
    assert len(ran) == 4


def test_a_copy_of_a_site_holds_its_reference_once() -> None:
    site = Site("a", fused_of())
    site.way = GpuConv(site.reference)
    for other in (copy.deepcopy(site), pickle.loads(pickle.dumps(site))):
        assert other.way.reference is other.reference
        assert other.reference is not site.reference


@KINDS
def test_other_types_convert_weights_and_leave_tables_alone(
    ran: list[Any], on_gpu: torch.device, kind: str
) -> None:
    wanted = fused_of(kind)
    way = GpuConv(copy.deepcopy(wanted)).to(on_gpu)
    tables = [t.clone() for t in (way.table, way.starts, way.filters)]
    near(way.half()(IMAGE.to(on_gpu).half()), wanted(IMAGE), 2e-2)
    assert way.weight.dtype == torch.float16
    for table, now in zip(tables, (way.table, way.starts, way.filters), strict=True):
        assert torch.equal(table, now)
    assert len(ran) == 1
    # What the kernel does not compute in runs as before.
    near(way.double()(IMAGE.to(on_gpu).double()), wanted(IMAGE), 2e-2)
    assert len(ran) == 1


@KINDS
def test_in_a_graph_it_is_made_of_ordinary_operators(
    ran: list[Any], on_gpu: torch.device, kind: str
) -> None:
    way = GpuConv(fused_of(kind, relu=True)).to(on_gpu)
    batch, x = torch.export.Dim("batch", max=32), IMAGE.to(on_gpu)
    program = torch.export.export(way, (x,), dynamic_shapes={"x": {0: batch}})
    targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert targets
    assert all(target.namespace == "aten" for target in targets)
    near(torch.vmap(lambda one: way(one[None]))(x).squeeze(1), way.reference(x).cpu())
    assert not ran
    near(program.module()(x), way(x).cpu())
    assert len(ran) == 1


def test_shapes_without_numbers_pass(ran: list[Any]) -> None:
    way = GpuConv(fused_of())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert way(mode.from_tensor(IMAGE)).shape == (2, 6, 9, 8)
    assert not ran


def test_one_image_without_a_batch_runs_as_before(ran: list[Any], on_gpu: torch.device) -> None:
    way = GpuConv(fused_of()).to(on_gpu)
    assert torch.equal(way(IMAGE[0].to(on_gpu)), way.reference(IMAGE[0].to(on_gpu)))
    assert not ran


@pytest.mark.parametrize("learner", ["input", "residual"])
def test_gradients_flow(ran: list[Any], on_gpu: torch.device, learner: str) -> None:
    wanted = fused_of(relu=True, adds=True)
    way = GpuConv(copy.deepcopy(wanted)).to(on_gpu)
    given_ = {"input": IMAGE, "residual": torch.ones(2, 6, 9, 8)}
    asked = given_[learner].clone().requires_grad_()
    (grad,) = torch.autograd.grad(wanted(*(given_ | {learner: asked}).values()).sum(), asked)
    there = {name: t.to(on_gpu) for name, t in given_.items()}
    asked = there[learner].clone().requires_grad_()
    out = way(*(there | {learner: asked}).values())
    near(torch.autograd.grad(out.sum(), asked)[0], grad, 1e-4)
    assert not ran
    with torch.no_grad():
        way(*(there | {learner: asked}).values())
    assert len(ran) == 1


def test_on_a_processor_it_runs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_conv, "convolve", None)
    wanted = fused_of()
    assert torch.equal(GpuConv(wanted)(IMAGE), wanted(IMAGE))


def test_without_triton_it_runs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_conv, "convolve", None)
    monkeypatch.setattr(gpu_conv, "on_a_gpu", lambda x: True)
    monkeypatch.setattr(gpu_conv, "has_triton", lambda: False)
    wanted = fused_of()
    assert torch.equal(GpuConv(wanted)(IMAGE), wanted(IMAGE))


# ---------------------------------------------------------------- when it is offered


@pytest.fixture
def worth_it(on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the kernel always expected to be faster."""
    choose = settled(True)
    monkeypatch.setattr(gpu_conv, "choose", choose)
    return choose


@pytest.mark.parametrize(
    ("kind", "forms"), [("stripes", ["nhwc"]), ("columns", ["nhwc", "nchw"]), ("dense", [])]
)
def test_layers_of_fibres_are_offered(worth_it: Any, kind: str, forms: list[str]) -> None:
    ways = gpu_ways(fused_of(kind), IMAGE)
    assert list(ways) == forms
    assert [way.last for way in ways.values()] == [form == "nhwc" for form in forms]  # type: ignore[union-attr]
    assert list(WAYS["triton"](fused_of(kind), IMAGE)) == [f"triton/{form}" for form in forms]


def test_the_roofline_is_asked_about_this_layer(
    worth_it: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = layer("columns", stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    rates = ("tf32", "float32", "float16", "bfloat16")
    for rate in rates:
        allowed = "tf32" if rate == "tf32" else "ieee"
        monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", allowed)
        dtype = getattr(torch, rate, torch.float32)
        gpu_ways(FusedConv(copy.deepcopy(conv).to(dtype)), IMAGE.to(dtype))
    packed = GpuConv(FusedConv(conv)).packed
    window = Window((2, 1), ((1, 1), (2, 2)), (1, 2))
    about = Layer(4, 6, (9, 8), (3, 3), window, 2)
    assert worth_it.asked == [
        ((about, 2, rate, packed.executed, KNOWN["H200"]), {"block": packed.block})
        for rate in rates
    ]


def test_what_is_not_expected_to_pay_is_left_out(
    on_gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_conv, "choose", settled(False))
    with pytest.raises(DeployError, match=r"^memory-bound: at most x1\.6 by any sparsity$"):
        gpu_ways(fused_of(), IMAGE)
    row = decide(Site("a", fused_of()), IMAGE, trial=Trial(1, 0.0, ("dense", "triton")))
    assert row.chosen == "dense"
    assert "memory-bound: at most x1.6 by any sparsity" in row.left_out["triton"]


@pytest.mark.parametrize(
    ("kind", "inputs", "side", "said"),
    [
        ("columns", 16, 32, r"^launch-bound: at most x1\.\d by any sparsity, x1\.0 expected$"),
        ("columns", 256, 14, ""),
        ("stripes", 256, 14, "bound.*: x0.*expected"),
    ],
)
def test_the_roofline_decides(
    on_gpu: torch.device, kind: str, inputs: int, side: int, said: str
) -> None:
    """Narrow layers gain nothing, nor do stripes that no filters share."""
    conv = layer(kind, keep=0.3, inputs=inputs, filters=inputs, padding=1).bfloat16()
    x = torch.empty(1, inputs, side, side, dtype=torch.bfloat16).expand(64, -1, -1, -1)
    if said:
        with pytest.raises(DeployError, match=said):
            gpu_ways(FusedConv(conv), x)
    else:
        assert list(gpu_ways(FusedConv(conv), x)) == ["nhwc", "nchw"]


def test_it_is_timed_beside_the_dense_way(worth_it: Any, on_gpu: torch.device) -> None:
    site = Site("a", fused_of("columns", relu=True)).to(on_gpu)
    trial = Trial(1, 0.0, ("dense", "triton"))
    with torch.no_grad():
        row = decide(site, IMAGE[:1].to(on_gpu), trial=trial)
    assert list(row.ms) == ["dense", "triton/nhwc", "triton/nchw"]
    assert not row.left_out
    assert row.chosen in row.ms


def test_what_it_does_not_run_is_not_offered(
    worth_it: Any, monkeypatch: pytest.MonkeyPatch
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
    assert not worth_it.asked


@pytest.mark.parametrize("conv", [nn.Conv1d(4, 4, 3), nn.Conv2d(4, 4, 3, padding_mode="circular")])
def test_other_convolutions_are_refused(conv: nn.Module) -> None:
    with pytest.raises(DeployError, match=r"two dimensions .* zeros, but this is Conv\dd\(4, 4"):
        GpuConv(FusedConv(conv))


def test_a_gpu_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def look(index: int) -> Any:
        looked.append(index)
        return KNOWN["L4"]

    monkeypatch.setattr(gpu_conv, "device_of", look)
    gpu_conv._known_or_measured.cache_clear()
    try:
        assert [gpu_conv._known_or_measured(i).name for i in (0, 1, 0, 1)] == ["L4"] * 4
        assert looked == [0, 1]
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


# ---------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not available(), reason="there is no GPU with Triton here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_deployed_network_runs_by_it(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_conv, "choose", settled(True))
    net = without_stripes().to("cuda", dtype)
    x = torch.randn(4, 3, 16, 16, device="cuda", dtype=dtype)
    fast, report = tonsor.deploy(net, x, rounds=1, ways=["triton"])
    assert any(row.chosen.startswith("triton") for row in report.rows)
    near(fast(x), net(x).cpu(), 0.1)
