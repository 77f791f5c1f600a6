"""Running operators on shapes gives what running them on values gives, or the same refusal."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from tonsor.graph import shapes
from tonsor.graph.fake import Faker

aten = torch.ops.aten
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@st.composite
def tensors(draw: Any, rank: int | None = None, shape: tuple[int, ...] | None = None) -> Tensor:
    """Draw a tensor in one of the layouts that models make: plain, permuted, sliced, stretched."""
    if shape is None:
        rank = rank or draw(st.integers(1, 5))
        assert rank is not None
        shape = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    dtype = draw(st.sampled_from(DTYPES)) if draw(st.integers(0, 4)) == 0 else torch.float32
    layout = draw(st.sampled_from(("plain", "plain", "permuted", "last", "sliced", "stretched")))
    if layout == "permuted":
        order = draw(st.permutations(range(len(shape))))
        back = [order.index(d) for d in range(len(shape))]
        return torch.ones([shape[d] for d in order], dtype=dtype).permute(back)
    if layout == "last" and len(shape) in (4, 5):
        form = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
        return torch.ones(shape, dtype=dtype).contiguous(memory_format=form)
    if layout == "sliced" and shape:
        dim = draw(st.integers(0, len(shape) - 1))
        wide = [n + 2 if d == dim else n for d, n in enumerate(shape)]
        return torch.ones(wide, dtype=dtype).narrow(dim, 1, shape[dim])
    if layout == "stretched" and shape:
        dim = draw(st.integers(0, len(shape) - 1))
        thin = [1 if d == dim else n for d, n in enumerate(shape)]
        return torch.ones(thin, dtype=dtype).expand(shape)
    return torch.ones(shape, dtype=dtype)


@st.composite
def pairs(draw: Any) -> tuple[Any, Any]:
    x = draw(tensors())
    shape = [1 if draw(st.integers(0, 3)) == 0 else n for n in x.shape]
    shape = shape[draw(st.integers(0, len(shape))) :]
    if shape and draw(st.integers(0, 5)) == 0:
        shape[-1] += 1  # which may not fit
    y = draw(st.one_of(tensors(shape=tuple(shape)), st.sampled_from((2, 0.5, 3))))
    return (y, x) if isinstance(y, Tensor) and draw(st.booleans()) else (x, y)


@st.composite
def linears(draw: Any) -> tuple[Any, ...]:
    x = draw(tensors())
    inside = x.shape[-1] + (draw(st.integers(0, 5)) == 0)
    outside = draw(st.integers(1, 4))
    bias = draw(st.one_of(st.none(), tensors(shape=(outside,))))
    return x, draw(tensors(shape=(outside, inside))), bias


@st.composite
def cats(draw: Any) -> tuple[Any, ...]:
    first = draw(tensors())
    dim = draw(st.integers(-first.dim(), first.dim() - 1))
    parts = [first]
    for _ in range(draw(st.integers(0, 2))):
        shape = list(first.shape)
        shape[dim] = draw(st.integers(1, 4))
        if draw(st.integers(0, 6)) == 0:
            shape[0] += 1
        parts.append(draw(tensors(shape=tuple(shape))))
    return parts, dim


@st.composite
def normed(draw: Any, kind: str) -> tuple[Any, ...]:
    x = draw(tensors())
    channels = x.shape[1] if x.dim() > 1 else 1
    if kind == "layer":
        count = draw(st.integers(1, x.dim()))
        over = x.shape[-count:]
        return x, list(over), draw(tensors(shape=tuple(over))), None
    weight = draw(tensors(shape=(channels + (draw(st.integers(0, 5)) == 0),)))
    if kind == "group":
        return x, draw(st.integers(1, 4)), weight, None
    rest = [draw(tensors(shape=(channels,))) for _ in range(3)]
    return x, weight, *rest, False, 0.1, 1e-5, True


@st.composite
def convs(draw: Any) -> tuple[Any, ...]:
    x = draw(tensors(rank=4))
    groups = draw(st.sampled_from((1, x.shape[1])))
    shape = draw(st.integers(1, 3)) * groups, x.shape[1] // groups, *draw(_kernels)
    weight = draw(tensors(shape=shape))
    return x, weight, None, [1, draw(st.integers(1, 2))], [1, 1], [1, 1], groups


_kernels = st.sampled_from(((1, 1), (3, 3), (1, 3), (2, 2)))
_one = tensors().map(lambda x: (x,))
_dims = st.lists(st.integers(-3, 2), min_size=1, max_size=3)
CASES = {
    **{n: (getattr(aten, n).Tensor, pairs()) for n in ("add", "sub", "mul", "div")},
    **{n: (getattr(aten, n).default, _one) for n in shapes._ONE_BY_ONE.split()},
    **{n: (getattr(aten, n).default, _one) for n in ("relu_", "exp", "detach", "contiguous")},
    "pow": (aten.pow.Tensor_Scalar, st.tuples(tensors(), st.sampled_from((2, 0.5)))),
    "mean": (aten.mean.dim, st.tuples(tensors(), _dims, st.booleans())),
    "roll": (aten.roll.default, st.tuples(tensors(), st.just([1]), st.lists(
        st.integers(-3, 2), min_size=1, max_size=1))),
    "linear": (aten.linear.default, linears()),
    "addmm": (aten.addmm.default, linears().filter(lambda a: a[2] is not None).map(
        lambda a: (a[2], a[0], a[1].t()))),
    "matmul": (aten.matmul.default, linears().map(lambda a: (a[0], a[1].t()))),
    "cat": (aten.cat.default, cats()),
    "layer_norm": (aten.layer_norm.default, normed("layer")),
    "rms_norm": (aten.rms_norm.default, normed("layer").map(lambda a: a[:3])),
    "group_norm": (aten.group_norm.default, normed("group")),
    "batch_norm": (aten.batch_norm.default, normed("batch")),
    "conv2d": (aten.conv2d.default, convs()),
    "view": (aten.view.default, st.tuples(tensors(), st.just([-1]))),
    "transpose": (aten.transpose.int, st.tuples(tensors(), st.integers(-2, 1), st.just(0))),
    "chunk": (aten.chunk.default, st.tuples(tensors(), st.integers(1, 3))),
    "softmax": (aten.softmax.int, st.tuples(tensors(), st.integers(-2, 1))),
    "avg_pool2d": (aten.avg_pool2d.default, st.tuples(tensors(rank=4), st.just([2, 2]))),
    "max_pool2d": (aten.max_pool2d.default, st.tuples(tensors(rank=4), st.just([2, 2]))),
    "maximum": (aten.maximum.default, pairs().filter(lambda a: all(
        isinstance(t, Tensor) for t in a))),
    "where": (aten.where.self, pairs().filter(lambda a: all(
        isinstance(t, Tensor) for t in a)).map(lambda a: (a[0] > 0, *a))),
    "masked_fill": (aten.masked_fill.Scalar, tensors().map(lambda x: (x, x > 0, 0.0))),
    "stack": (aten.stack.default, st.tuples(tensors(rank=2), tensors(rank=2)).map(
        lambda pair: (list(pair), 1))),
    "pad": (aten.pad.default, st.tuples(tensors(), st.lists(
        st.integers(-1, 2), min_size=2, max_size=4))),
    "embedding": (aten.embedding.default, st.tuples(tensors(rank=2), st.sampled_from(
        (torch.zeros(3, dtype=torch.long), torch.zeros(2, 2, dtype=torch.int32))))),
    "adaptive_avg_pool2d": (aten.adaptive_avg_pool2d.default, st.tuples(
        tensors(rank=4), st.sampled_from(([1, 1], [2, 3])))),
    "add_": (aten.add_.Tensor, pairs().filter(lambda a: isinstance(a[0], Tensor))),
    "bmm": (aten.bmm.default, st.tuples(tensors(rank=3), tensors(rank=3))),
    "reshape": (aten.reshape.default, st.tuples(tensors(), st.sampled_from(([-1], [1, -1])))),
    "slice": (aten.slice.Tensor, st.tuples(
        tensors(), st.integers(-2, 1), st.integers(-2, 2), st.integers(1, 9))),
    "expand": (aten.expand.default, st.tuples(tensors(rank=2), st.just([2, -1, 3]))),
    "to": (aten.to.dtype, st.tuples(tensors(), st.sampled_from(DTYPES))),
    "dropout": (aten.dropout.default, st.tuples(tensors(), st.just(0.5), st.just(False))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_those_of_a_real_run(name: str) -> None:
    func, arguments = CASES[name]

    @given(arguments)
    def check(args: tuple[Any, ...]) -> None:
        faker = Faker()
        with torch.no_grad():
            fakes = [_as_fake(a, faker) for a in args]
            with faker.mode:
                found = _outcome(lambda *a: shapes.run(faker, func, a, {}), fakes)
                by_torch = _outcome(func, fakes)
        real = _outcome(func, args)
        # torch's own fakes are not always right, and need not be outdone.
        assert found in (real, by_torch), (found, real, by_torch)

    check()


def test_a_value_known_to_torch_is_not_lost() -> None:
    faker = Faker()
    with faker.mode:
        three = torch.tensor(3.0)
        six = shapes.run(faker, aten.mul.Tensor, (three, 2.0), {})
        assert float(six) == 6.0


def test_tensors_of_two_devices_are_refused_as_torch_does() -> None:
    faker = Faker()
    a = FakeTensor(faker.mode, torch.empty(3, device="meta"), torch.device("cuda"))
    b = FakeTensor(faker.mode, torch.empty(3, device="meta"), torch.device("cpu"))
    with faker.mode, pytest.raises(RuntimeError, match=r"cuda.*cpu"):
        shapes.run(faker, aten.add.Tensor, (a, b), {})


def _outcome(func: Any, args: Any) -> Any:
    """Return shape, strides, dtype and device of every result, or that there is none."""
    try:
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            out = func(*args)
    except Exception:  # noqa: BLE001  any refusal counts
        return "refused"
    return [
        (t.shape, _steps(t), t.dtype, str(t.device))
        for t in (out if isinstance(out, (list, tuple)) else [out])
    ]


def _as_fake(value: Any, faker: Faker) -> Any:
    if isinstance(value, list):
        return [_as_fake(v, faker) for v in value]
    return faker.like(value) if isinstance(value, Tensor) else value


def _steps(tensor: Tensor) -> list[int]:
    """Return strides, where a size of one leaves none to choose."""
    return [s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]
