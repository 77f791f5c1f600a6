"""Layers that keep their weights the other way round, packed, named otherwise, or made anew."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tonsor.api import inspect

from .cutting import cut, verdicts


def old(name: str, layer: nn.Module, **options: Any) -> nn.Module:
    """Apply the weight norm or spectral norm of before parametrizations."""
    return getattr(nn.utils, name)(layer, **options)


def chain(first: nn.Module, second: nn.Module) -> nn.Sequential:
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(12, 4)).eval()


def test_a_transposed_layer_is_cut_along_its_own_dimensions() -> None:
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = chain(conv1d(16, 8), conv1d(12, 16))  # outputs, inputs; the weight is [in, out]
    made = cut(model, torch.randn(2, 8), ratios={"0.weight[1]": 0.5, "2.weight[1]": 0.5})
    kept, out = made.kept("0.weight[1]"), made.kept("2.weight[1]")
    assert torch.equal(made.slim[2].weight, model[2].get_parameter("weight")[kept][:, out])
    assert made.slim[0].weight.shape == (8, 8)
    assert (made.slim[0].nf, made.slim[2].nf) == (8, 6)
    assert made.slim[2].nx == 8, "only the printed module shows it, and that would be wrong"


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)], ids=["gru", "lstm"])
def test_gates_of_a_recurrent_layer_are_not_mixed_up(kind: Any, gates: int) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell = nn.Linear(8, 16), kind(16, 12, batch_first=True)
            self.last = nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.cell(self.first(x).relu())[0])

    model = Recurrent()
    made = cut(model, torch.randn(2, 5, 8), ratios={"first": 0.5, "cell": 0.5})
    kept, hidden = made.kept("first.weight[0]"), made.kept("last.weight[1]")
    rows = torch.cat([12 * gate + hidden for gate in range(gates)])
    assert torch.equal(made.slim.cell.weight_ih_l0, model.cell.weight_ih_l0[rows][:, kept])
    assert torch.equal(made.slim.cell.weight_hh_l0, model.cell.weight_hh_l0[rows][:, hidden])
    assert (made.slim.cell.input_size, made.slim.cell.hidden_size) == (8, 6)
    assert verdicts(made.anatomy, "cell.weight_hh_l0[0]") == ["position", "free"]  # gates, units
    assert {p.data_ptr() for p in made.slim.cell.parameters()} == {
        p.data_ptr() for p in made.slim.cell._flat_weights
    }  # what the kernel reads are the new weights


class RawParameters(nn.Module):
    """Weights that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Parameter(torch.randn(16, 8)), nn.Parameter(torch.randn(16))
        self.second = nn.Parameter(torch.randn(16, 12))
        self.filters = nn.Parameter(torch.randn(12, 1, 1))
        self.last = nn.Parameter(torch.randn(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.first, self.bias).relu() @ self.second
        x = F.conv1d(x[:, :, None], self.filters, groups=self.filters.shape[0])[:, :, 0]
        return x @ self.last


def test_raw_parameters_are_weights_like_any_other() -> None:
    model = RawParameters()
    made = cut(model, torch.randn(2, 8), ratios={"first": 0.5, "second[1]": 0.5})
    kept, out = made.kept("first[0]"), made.kept("second[1]")
    assert torch.equal(made.slim.first, model.first[kept])
    assert torch.equal(made.slim.bias, model.bias[kept])
    assert torch.equal(made.slim.second, model.second[kept][:, out])
    assert torch.equal(made.slim.filters, model.filters[out])
    assert torch.equal(made.slim.last, model.last[out])


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_weight_norm_keeps_length_and_direction_together(new: bool) -> None:
    layers = [nn.Linear(8, 16), nn.Linear(16, 12)]
    if new:
        model = chain(*(parametrizations.weight_norm(layer) for layer in layers))
        length = "2.parametrizations.weight.original0"
    else:
        model, length = chain(*(old("weight_norm", layer) for layer in layers)), "2.weight_g"
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model(torch.randn(2, 8))  # the old kind computes its weight in a forward pass

    made = cut(model, torch.randn(2, 8), ratios={"2": 0.5})

    kept = made.kept(f"{length}[0]")
    assert len(kept) == 6
    assert torch.equal(made.slim.get_parameter(length), model.get_parameter(length)[kept])
    weight, slim_weight = model[2].weight, made.slim[2].weight
    assert isinstance(weight, Tensor)
    torch.testing.assert_close(slim_weight, weight[kept])
    assert made.slim[2].out_features == 6


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_inputs_over_which_a_weight_norm_measures_are_free_but_said_to_matter(new: bool) -> None:
    norm = parametrizations.weight_norm if new else nn.utils.weight_norm
    anatomy = inspect(chain(nn.Linear(8, 16), norm(nn.Linear(16, 12))), torch.randn(2, 8))
    assert verdicts(anatomy, "0.weight[0]") == ["free"]
    assert "norm" in " ".join(anatomy.by_name["0.weight[0]"].approximate)


@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_spectral_norm_takes_its_vectors_along(new: bool) -> None:
    norm = parametrizations.spectral_norm if new else nn.utils.spectral_norm
    model = chain(nn.Linear(8, 16), norm(nn.Linear(16, 12)))
    made = cut(model, torch.randn(2, 8), ratios={"0": 0.5, "2": 0.5})
    buffers = dict(made.slim.named_buffers())
    assert {tuple(b.shape) for n, b in buffers.items() if n.startswith("2.")} == {(6,), (8,)}
    assert made.slim[2].weight.shape == (6, 8)
    for name, buffer in buffers.items():
        (kept,) = made.plan.cut().keep[name]
        assert torch.equal(buffer, model.get_buffer(name)[list(kept or ())])
