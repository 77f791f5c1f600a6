"""A slim model survives its file, and a file that is not one is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import tonsor
from tests.models import ALL
from tests.models.case import output_tensors
from tonsor.artifact import load, read_plan, save
from tonsor.errors import PlanError
from tonsor.graph.clone import named_tensors
from tonsor.graph.inputs import Inputs
from tonsor.plans import Plan

CASES = {case.name: case for case in ALL}
ROUND_TRIPS = [
    "resnet_project",
    "densenet",
    "vit_qkv_reshape",
    "lstm",
    "channels_last",
    "weight_norm_old",
    "weight_norm_new",
    "spectral_norm_new",
    "tied_embedding",
    "tied_transposed",
    "decoder_tied",
    "hf_llama",  # has a buffer that is not saved
    "hf_t5",  # has three names for its embedding
]


class Net(nn.Module):
    """A tied weight, a buffer that is saved and one that is not."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.middle = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 20, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.linspace(1, 2, width), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids).mean(1)
        return self.head(self.norm(self.middle(x).relu()) * self.scale + x)


IDS = torch.arange(10).view(2, 5)


def make(seed: int = 0, width: int = 12) -> Net:
    torch.manual_seed(seed)
    return Net(width).eval()


@pytest.fixture(scope="module")
def pruned() -> tuple[nn.Module, Plan]:
    slim, report = tonsor.prune(make(), IDS, budget="params=60%")
    with torch.no_grad():  # as if it had been trained since
        for tensor in slim.parameters():
            tensor.add_(0.1)
    return slim, report.plan


@pytest.fixture
def file(pruned: tuple[nn.Module, Plan], tmp_path: Path) -> Path:
    path = tmp_path / "slim.tonsor"
    save(path, *pruned)
    return path


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(named_tensors(model))


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_slim_model_comes_back(name: str, tmp_path: Path) -> None:
    if name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = CASES[name].build()
    slim, report = tonsor.prune(model, Inputs(*args, **kwargs), budget="params=70%", floor=1)
    with torch.no_grad():
        for tensor in slim.parameters():
            tensor.mul_(1.01)
    save(tmp_path / "slim.tonsor", slim, report.plan)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.fill_(0.01)  # nothing of the original's weights may come through
    loaded = load(tmp_path / "slim.tonsor", model)
    assert type(loaded) is type(slim)
    before, after = state(slim), state(loaded)
    assert after.keys() == before.keys()
    assert {n: t.shape for n, t in after.items()} != {n: t.shape for n, t in state(model).items()}
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, rtol=0, atol=0, msg=key)
        assert after[key].stride() == tensor.stride(), key
    with torch.no_grad():
        wanted, found = slim(*args, **kwargs), loaded(*args, **kwargs)
    torch.testing.assert_close(output_tensors(found), output_tensors(wanted), rtol=0, atol=0)


def test_the_model_given_is_untouched(file: Path) -> None:
    model = make()
    before = {n: t.clone() for n, t in state(model).items()}
    load(file, model)
    after = state(model)
    assert all(torch.equal(after[n], t) for n, t in before.items())


def test_ties_are_stored_once_and_stay_ties(file: Path) -> None:
    stored = load_file(file)
    assert "embed.weight" in stored
    assert "head.weight" not in stored
    loaded = load(file, make())
    assert isinstance(loaded, Net)
    assert loaded.head.weight is loaded.embed.weight


def test_what_state_dict_leaves_out_is_not_stored(file: Path, pruned: Any) -> None:
    stored = load_file(file)
    assert "norm.running_mean" in stored
    assert "scale" not in stored
    assert stored.keys() <= pruned[0].state_dict().keys()
    loaded = load(file, make())
    assert torch.equal(state(loaded)["scale"], state(pruned[0])["scale"])


def test_the_file_is_as_readable_as_any_other(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_plan_is_in_the_metadata(file: Path, pruned: Any) -> None:
    assert read_plan(file) == pruned[1]


def test_dtype_and_device_are_those_of_the_model(file: Path, pruned: Any) -> None:
    loaded = load(file, make().to(torch.bfloat16))
    for name, tensor in state(loaded).items():
        wanted = state(pruned[0])[name]
        kind = torch.bfloat16 if wanted.is_floating_point() else wanted.dtype
        assert tensor.dtype == kind, name
        torch.testing.assert_close(tensor.to(wanted), wanted, rtol=0.01, atol=0.01)


def test_flags_are_those_of_the_model(file: Path) -> None:
    model = make()
    model.middle.weight.requires_grad_(False)
    loaded = load(file, model.train())
    assert isinstance(loaded, Net)
    assert loaded.training
    assert not loaded.middle.weight.requires_grad
    assert loaded.middle.bias.requires_grad


def test_a_model_on_meta_is_filled(tmp_path: Path) -> None:
    def small() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    slim, report = tonsor.prune(small().eval(), torch.randn(2, 8), budget="params=50%")
    save(tmp_path / "slim.tonsor", slim, report.plan)
    with torch.device("meta"):
        empty = small().eval()
    loaded = load(tmp_path / "slim.tonsor", empty)
    x = torch.randn(3, 8)
    torch.testing.assert_close(loaded(x), slim(x), rtol=0, atol=0)


def test_a_merged_plan_goes_with_a_model_pruned_twice(tmp_path: Path) -> None:
    model = make()
    first, one = tonsor.prune(model, IDS, budget="params=80%")
    second, two = tonsor.prune(first, IDS, budget="params=80%")
    with pytest.raises(PlanError, match=r"later\.rebase\(earlier\)"):
        save(tmp_path / "slim.tonsor", second, one.plan)
    save(tmp_path / "slim.tonsor", second, two.plan.rebase(one.plan))
    loaded = load(tmp_path / "slim.tonsor", make())
    torch.testing.assert_close(loaded(IDS), second(IDS), rtol=0, atol=0)


def test_tensors_that_share_memory_are_written_apart(
    pruned: tuple[nn.Module, Plan], tmp_path: Path
) -> None:
    slim = pruned[1].apply(make())
    assert isinstance(slim, Net)
    memory = torch.randn(len(slim.norm.bias) + 1)
    slim.norm.weight.data, slim.norm.bias.data = memory[1:], memory[:-1]
    save(tmp_path / "slim.tonsor", slim, pruned[1])
    loaded = load(tmp_path / "slim.tonsor", make())
    assert isinstance(loaded, Net)
    assert torch.equal(loaded.norm.weight, memory[1:])
    assert torch.equal(loaded.norm.bias, memory[:-1])


# ---------------------------------------------------------------- refused


def test_a_failed_save_leaves_the_old_file(
    file: Path, pruned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half a file")
        message = "the disk is full"
        raise OSError(message)

    monkeypatch.setattr("tonsor.artifact.save_file", fail)
    with pytest.raises(OSError, match="the disk is full"):
        save(file, *pruned)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_model_that_the_plan_does_not_leave_is_refused(pruned: Any, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"the plan leaves '.*' as .*, the model has"):
        save(tmp_path / "slim.tonsor", make(), pruned[1])
    more = make()
    slim = pruned[1].apply(more)
    slim.register_buffer("extra", torch.zeros(1))
    with pytest.raises(PlanError, match="a tensor 'extra' that the plan knows nothing of"):
        save(tmp_path / "slim.tonsor", slim, pruned[1])
    assert not list(tmp_path.iterdir())


def test_extra_state_is_refused_rather_than_lost(tmp_path: Path) -> None:
    class Keeper(nn.Linear):
        def get_extra_state(self) -> dict:
            return {"seen": 3}

    slim, report = tonsor.prune(
        nn.Sequential(Keeper(4, 8), nn.Linear(8, 2)), torch.randn(2, 4), budget="params=60%"
    )
    with pytest.raises(PlanError, match=r"'0' \(Keeper\) keeps extra state"):
        save(tmp_path / "slim.tonsor", slim, report.plan)


def test_another_model_is_refused(file: Path) -> None:
    with pytest.raises(PlanError, match=r"slim\.tonsor' was not made from this Net: .*has shape"):
        load(file, make(width=10))
    with pytest.raises(PlanError, match="was not made from this Linear: the plan knows"):
        load(file, nn.Linear(2, 2))


def test_a_file_cut_short_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for size in (0, 5, 200, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(PlanError, match=r"was cut short|is not a tonsor file"):
            load(file, make())
    assert len(whole) > 1000


def test_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    torch.save(make().state_dict(), tmp_path / "pickle.tonsor")
    with pytest.raises(PlanError, match="is not a tonsor file"):
        load(tmp_path / "pickle.tonsor", make())
    save_file(load_file(file), tmp_path / "plain.tonsor")
    with pytest.raises(PlanError, match="a safetensors file without a plan"):
        load(tmp_path / "plain.tonsor", make())
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.tonsor", make())


def rewrite(file: Path, change: Any) -> None:
    """Write the file again, with other tensors or metadata."""
    with safe_open(file, framework="pt") as opened:
        metadata = dict(opened.metadata())
    tensors = load_file(file)
    change(tensors, metadata)
    save_file(tensors, file, metadata)


def mend_something_else(tensors: Any, metadata: dict[str, str]) -> None:
    plan = json.loads(metadata["plan"])
    for mend in plan["mends"]:
        mend["path"] = ["no_such_size"]
    metadata["plan"] = json.dumps(plan)


REWRITTEN = [
    (mend_something_else, "sizes held in attributes that this Net does not have .*no_such_size"),
    (lambda t, m: m.update(tonsor="2"), "a tonsor file of version 2"),
    (lambda t, m: m.update(plan="{"), "has no usable plan"),
    (lambda t, m: m.update(plan=json.dumps({"format": "tonsor plan"})), "version None"),
    (lambda t, m: t.pop("middle.bias"), "has no tensor 'middle.bias'"),
    (lambda t, m: t.update(more=torch.zeros(1)), "has a tensor 'more' that the model does not"),
    (lambda t, m: t.update({"norm.weight": torch.zeros(1)}), r"'norm\.weight' in .* is \(1,\)"),
    (
        lambda t, m: t.update({"norm.weight": torch.zeros_like(t["norm.weight"]).int()}),
        r"of torch\.int32, the plan in it leaves .* of torch\.float32",
    ),
    (
        lambda t, m: (m.update(ties="{}"), t.update({"head.weight": t["embed.weight"] + 1})),
        r"the model ties 'head\.weight' to 'embed\.weight', which have different values",
    ),
]


@pytest.mark.parametrize(("change", "said"), REWRITTEN)
def test_a_changed_file_is_refused(file: Path, change: Any, said: str) -> None:
    rewrite(file, change)
    with pytest.raises(PlanError, match=said):
        load(file, make())


def test_ties_stored_apart_with_equal_values_are_accepted(file: Path, pruned: Any) -> None:
    rewrite(
        file,
        lambda t, m: (m.update(ties="{}"), t.update({"head.weight": t["embed.weight"].clone()})),
    )
    torch.testing.assert_close(load(file, make())(IDS), pruned[0](IDS), rtol=0, atol=0)


def test_a_model_that_does_not_tie_gets_both(file: Path, pruned: Any) -> None:
    apart = make()
    apart.head.weight = nn.Parameter(apart.head.weight.detach().clone())
    torch.testing.assert_close(load(file, apart)(IDS), pruned[0](IDS), rtol=0, atol=0)
