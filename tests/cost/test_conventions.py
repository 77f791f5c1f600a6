"""Each way of counting, against published numbers and a counter written the way they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.cost.nets import accounted, cifar_resnet, image, spp_convnet, vgg
from tonsor.cost.account import Account
from tonsor.cost.conventions import CONVENTIONS, convention, find_convention
from tonsor.errors import SelectionError


def hook_count(model: nn.Module, x: Tensor) -> int:
    """Count with forward hooks on leaf modules, per sample, as public repositories do."""
    found: list[int] = []

    def hook(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            each = 2 * module.weight[0].numel() + (module.bias is not None)
        elif isinstance(module, nn.Linear):
            each = 2 * module.in_features + (module.bias is not None)
        elif isinstance(module, nn.BatchNorm2d):
            each = 2
        elif isinstance(module, nn.ReLU):
            each = 1
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            assert isinstance(module.kernel_size, int)
            each = module.kernel_size**2
        elif isinstance(module, nn.Upsample):
            each = 12
        else:
            each = 0
        found.append(each * out.numel())

    handles = [m.register_forward_hook(hook) for m in model.modules() if not list(m.children())]
    model.eval()(x)
    for handle in handles:
        handle.remove()
    assert sum(found) % len(x) == 0
    return sum(found) // len(x)


class Mixed(nn.Module):
    """Everything that the hooks see, and as much that they do not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=True)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4, bias=False)
        self.up = nn.Upsample(scale_factor=2)
        self.transposed = nn.ConvTranspose2d(12, 6, 2)
        self.norm, self.relu, self.norm1d = nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm1d(6)
        self.gelu, self.pool = nn.GELU(), nn.MaxPool2d(2)
        self.fc = nn.Linear(6, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(self.relu(self.conv(x))))
        x = self.relu(self.norm(self.transposed(self.up(x))))
        x = F.avg_pool2d(self.pool(self.gelu(x)), 2)
        return self.fc(self.norm1d(x.mean((2, 3))))


HOOKED: list[tuple[str, Callable[[], nn.Module]]] = [
    ("mixed", Mixed),
    ("vgg-head", lambda: vgg(16, bias=True, head=True)),
    ("resnet-modules", lambda: cifar_resnet(20, modules=True)),
    ("resnet-functions", lambda: cifar_resnet(20, "B", modules=False)),
    ("spp", spp_convnet),
]


@pytest.mark.parametrize("build", [pytest.param(b, id=n) for n, b in HOOKED])
def test_counter_rethinking_is_a_forward_hook_counter(build: Callable[[], nn.Module]) -> None:
    model = build()
    x = torch.zeros(2, 3, 32, 32)
    assert accounted(model, x).total("counter_rethinking") == hook_count(model, x)


def spsrc_inner(depth: int, skip: Sequence[int], removed: Sequence[float]) -> list[int]:
    """Widths inside the blocks after SPSRC; convolution 1 is the stem, block i's first is 2i."""
    each = (depth - 2) // 6
    widths = []
    for block in range(3 * each):
        width, ratio = (16, 32, 64)[block // each], removed[block // each]
        widths.append(width if 2 * (block + 1) in skip else int(width * (1 - ratio)))
    return widths


def inner_counts(widths: Sequence[int]) -> dict[str, int]:
    """The same as counts of the whole model's leaves."""
    return {f"{2 + i}.first.0.weight[0]": width for i, width in enumerate(widths)}


SKIP_110 = (36, 38, 74)
DENSE_110 = [16] * 18 + [32] * 18 + [64] * 18
SPSRC = [
    ("dense", DENSE_110, "0.50893", 260.57, "252.89", "1.728"),
    ("cfg1", spsrc_inner(110, SKIP_110, (0.5, 0.4, 0.3)), "0.31275", 160.128, "155.12", "1.168"),
    ("cfg2", spsrc_inner(110, SKIP_110, (0.7, 0.6, 0.4)), "0.22218", 113.76, "110.00", "0.962"),
]


@pytest.fixture(scope="module")
def resnet110() -> Account:
    return accounted(cifar_resnet(110), image(32))


@pytest.mark.parametrize(
    ("inner", "giga", "table", "macs", "params"),
    [pytest.param(*row[1:], id=row[0]) for row in SPSRC],
)
def test_the_table_of_spsrc(
    resnet110: Account, inner: list[int], giga: str, table: float, macs: str, params: str
) -> None:
    smaller = accounted(cifar_resnet(110, inner=inner), image(32))
    for account, counts in ((resnet110, inner_counts(inner)), (smaller, {})):
        assert f"{account.total('counter_rethinking', counts) / 1e9:.5f}" == giga
        assert account.total("spsrc_table", counts) == float(giga) / 2 * 1024
        assert account.total("spsrc_table", counts) == pytest.approx(table, abs=0.005)
        assert f"{account.total('mac_conv', counts) / 1e6:.2f}" == macs
        assert f"{account.params(counts) / 1e6:.3f}" == params


def test_shortcut_b_does_not_give_the_table_of_spsrc() -> None:
    account = accounted(cifar_resnet(110, "B"), image(32))
    assert account.total("spsrc_table") == pytest.approx(260.85, abs=0.005)


SPSRC_56 = [
    ("cfg1", (16, 20, 38, 54), (0.6, 0.3, 0.1), "86.48", "0.727"),
    ("cfg2", (16, 18, 20, 34, 38, 54), (0.6, 0.4, 0.6), "71.30", "0.465"),
    ("cfg3", (16, 18, 20, 34, 38, 54), (0.8, 0.8, 0.8), "44.97", "0.301"),
]


@pytest.mark.parametrize(
    ("skip", "removed", "macs", "params"), [pytest.param(*row[1:], id=row[0]) for row in SPSRC_56]
)
def test_spsrc_on_resnet56(
    skip: tuple[int, ...], removed: tuple[float, ...], macs: str, params: str
) -> None:
    account = accounted(cifar_resnet(56), image(32))
    counts = inner_counts(spsrc_inner(56, skip, removed))
    assert f"{account.total('mac_conv', counts) / 1e6:.2f}" == macs
    assert f"{account.params(counts) / 1e6:.3f}" == params


def test_the_two_numbers_of_swp_for_resnet56() -> None:
    account = accounted(cifar_resnet(56, "B", modules=False), image(32))
    assert account.total("flops2_conv") == 251_495_680
    assert f"{account.total('counter_rethinking') / 1e6:.2f}" == "252.59"


def test_speedup_of_spp_is_of_convolutions_only() -> None:
    account = accounted(spp_convnet(), image(32))
    counts = {"0.weight[0]": 16, "4.weight[0]": 8, "8.weight[0]": 32}
    after = 2_457_600 // 2 + 6_553_600 // 8 + 3_276_800 // 8
    assert account.total("spp_speedup") == 1
    assert account.total("spp_speedup", counts) == 12_288_000 / after
    assert account.total("spp_speedup_fc", counts) == 12_298_240 / (after + 5_120)
    assert account.total("spp_speedup", {"0.weight[0]": 0, "4.weight[0]": 0}) == float("inf")


def test_mac_conv_leaves_out_what_mac_counts() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(x)
            return x @ x.transpose(1, 2)

    account = accounted(Both(), torch.zeros(1, 7, 6))
    assert account.total("mac_conv") == 7 * 6 * 5
    assert account.total("mac") == account.macs() == 7 * 6 * 5 + 7 * 7 * 5


def test_an_unknown_convention_is_refused_with_a_hint() -> None:
    account = accounted(nn.Linear(2, 2), torch.zeros(1, 2))
    for ask in (account.total, account.meter, lambda name: account.by_module(target=name)):
        with pytest.raises(SelectionError, match=r"'mac_cov'\. Did you mean 'mac_conv'"):
            ask("mac_cov")


def test_ratios_are_no_meters() -> None:
    account = accounted(nn.Linear(2, 2), torch.zeros(1, 2))
    for name in ("spp_speedup", "spsrc_table"):
        with pytest.raises(SelectionError, match=r"ask Account\.total for it"):
            account.meter(name)


def test_conventions_are_named_once_and_described() -> None:
    wanted = {"mac_conv", "mac", "flops2_conv", "counter_rethinking", "spsrc_table", "spp_speedup"}
    assert wanted <= CONVENTIONS.keys()
    assert all(c.about and c is find_convention(name) for name, c in CONVENTIONS.items())
    with pytest.raises(ValueError, match="a convention 'mac' already"):
        convention("mac")(lambda line, term: 1)
