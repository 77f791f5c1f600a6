"""What must hold for every model there is: the check behind the matrix and the coverage bench.

It knows nothing of how tonsor works. A model goes in, a slim one comes out, and each promise
about the two is looked at from outside. What does not hold is listed in words instead of being
raised, so that a table of all models can be printed too.
"""

import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO

import torch
from torch import nn

import tonsor
from tonsor.api import plan as make_plan
from tonsor.errors import BudgetError, TraceError

from .case import Case, output_tensors
from .snapshot import Snapshot

WITHIN = 0.005
CLEAR_REFUSALS = {"input_gradient": "nothing can be followed through"}


@dataclass
class Outcome:
    """What came of one case: `problems` do not hold, `why` says what could not be cut."""

    name: str
    family: str
    operators: int = 0
    free: int = 0
    pinned: int = 0
    macs: float = 1.0
    params: float = 1.0
    met: bool | None = None
    proof: float | None = None
    trains: str = ""
    round_trip: str = ""
    exports: str = ""
    seconds: float = 0.0
    why: str = ""
    problems: list[str] = field(default_factory=list)

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """List what goes wrong inside instead of raising it."""
        try:
            yield
        except AssertionError as error:
            self.problems.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001  whatever it is, the table goes on
            lines = traceback.format_exception(error, limit=-6)
            self.problems.append(f"{what} raised\n{''.join(lines)}")


@dataclass(frozen=True)
class Pruned:
    """A model before and after, and how one became the other."""

    model: nn.Module
    inputs: tonsor.Inputs
    anatomy: tonsor.Anatomy
    plan: tonsor.Plan
    slim: nn.Module


def check(case: Case, *, export: bool) -> Outcome:
    """Prune a case to half of its MACs, or as far as it goes, and look at every promise."""
    started = time.perf_counter()
    outcome = Outcome(case.name, case.family)
    model, args, kwargs = case.build()
    inputs = tonsor.Inputs(*args, **kwargs)
    before = Snapshot(model, inputs)
    pruned = None
    with outcome.watching("pruning"):
        pruned = _prune(outcome, model, inputs)
    with outcome.watching("the original"):
        changes = before.changes(model, inputs)
        assert not changes, f"changed in {', '.join(changes)}"
    if pruned is not None:
        with outcome.watching("the slim model"):
            _same_but_smaller(pruned)
        with outcome.watching("the prediction"):
            _as_predicted(pruned)
        with outcome.watching("export"):
            outcome.exports = _exports(case, pruned) if export else ""
        with outcome.watching("a training step"):
            outcome.trains = _trains(case, pruned)
        with outcome.watching("the round trip"):
            outcome.round_trip = _round_trip(pruned)
    outcome.seconds = time.perf_counter() - started
    return outcome


# ---------------------------------------------------------------- pruning


def _prune(outcome: Outcome, model: nn.Module, inputs: tonsor.Inputs) -> Pruned | None:
    try:
        anatomy = tonsor.inspect(model, inputs)
    except TraceError as error:
        if CLEAR_REFUSALS.get(outcome.name, "?") not in str(error):
            raise
        outcome.why = f"refused: {str(error).splitlines()[-1]}"
        return None
    outcome.operators = len(anatomy.graph.ops)
    outcome.free, outcome.pinned = len(anatomy.prunable), len(anatomy.pinned)
    for group in anatomy.pinned:
        for pin in group.pins:
            assert pin.detail.strip(), f"{group.name} is pinned without a reason"
    plan = _plan(outcome, anatomy)
    if plan is None:
        return None
    slim = plan.apply(model, verify=False)
    outcome.proof = plan.prove(model, slim).error
    outcome.macs = _share(anatomy.cost.macs(plan.counts), anatomy.cost.macs())
    outcome.params = _share(anatomy.cost.params(plan.counts), anatomy.cost.params())
    return Pruned(model, inputs, anatomy, plan, slim)


def _plan(outcome: Outcome, anatomy: tonsor.Anatomy) -> tonsor.Plan | None:
    """Keep half of the MACs or nearly the least that can be kept; parameters if MACs are not."""
    if not anatomy.prunable:
        assert anatomy.pinned or not anatomy.graph.parameters, "no group, and no reason for it"
        outcome.why = "; ".join(f"{g.name}: {g.pins[0]}" for g in anatomy.pinned[:3]) or "no group"
        return None
    for target in ("macs", "params"):
        try:
            plan = make_plan(anatomy, f"{target}=50%")
        except BudgetError as error:
            outcome.why, least = str(error), error.minimum or 0.0
            if least > 0.99:
                continue
            plan = make_plan(anatomy, tonsor.Budget(target, kept=least + (1 - least) / 10))
        if plan.keep:
            _budget_kept(anatomy, plan, target)
            outcome.met = plan.made_by["met"]
            return plan
    assert outcome.why, "nothing was cut, and nobody says why"
    return None


def _budget_kept(anatomy: tonsor.Anatomy, plan: tonsor.Plan, target: str) -> None:
    limit, reached = plan.made_by["limit"], plan.made_by["reached"]
    assert anatomy.cost.meter(target)(plan.counts) == reached, "`reached` is not what is reached"
    assert reached <= limit, f"{reached} of {target} stay, {limit} are allowed"
    near = reached >= limit * (1 - WITHIN)
    assert plan.made_by["met"] is near, f"{reached} of {limit} {target}, and met={not near}"


def _share(after: int, before: int) -> float:
    return after / before if before else 1.0


# ---------------------------------------------------------------- what the slim model is


def _same_but_smaller(pruned: Pruned) -> None:
    model, slim = pruned.model, pruned.slim
    assert type(slim) is type(model), f"a {type(model).__name__} became a {type(slim).__name__}"
    modules, slims = dict(model.named_modules()), dict(slim.named_modules())
    assert modules.keys() == slims.keys()
    assert not {id(m) for m in modules.values()} & {id(m) for m in slims.values()}, "modules shared"
    for name, module in modules.items():
        assert type(slims[name]).__name__ == type(module).__name__, name
        assert slims[name].training == module.training, f"{name}.training"
    tensors, slim_tensors = _named(model), _named(slim)
    assert tensors.keys() == slim_tensors.keys()
    for name, tensor in tensors.items():
        new = slim_tensors[name]
        assert type(new) is type(tensor), f"'{name}' became a {type(new).__name__}"
        assert new.dtype == tensor.dtype, f"'{name}' became {new.dtype}"
        assert new.requires_grad == tensor.requires_grad, f"{name}.requires_grad"
    assert _ties(tensors) == _ties(slim_tensors), "other parameters are tied than before"
    shared = {t.data_ptr() for t in tensors.values() if t.numel()}
    shared &= {t.data_ptr() for t in slim_tensors.values() if t.numel()}
    assert not shared, "the slim model shares memory with the original"


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    found = dict(model.named_parameters(remove_duplicate=False))
    return found | dict(model.named_buffers(remove_duplicate=False))


def _ties(tensors: dict[str, torch.Tensor]) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]


def _as_predicted(pruned: Pruned) -> None:
    """The price was known before the cut, to the last MAC."""
    counts, cost = pruned.plan.counts, pruned.anatomy.cost
    there = sum(p.numel() for p in pruned.slim.parameters())
    assert cost.params(counts) == there, f"{cost.params(counts)} parameters foretold, {there} there"
    after = tonsor.inspect(pruned.slim, pruned.inputs).cost
    assert after.params() == there
    if pruned.anatomy.graph.ran == "fake":  # a model that values steer may go another way now
        assert cost.macs(counts) == after.macs(), f"{cost.macs(counts)} MACs, then {after.macs()}"


# ---------------------------------------------------------------- what can be done with it


def _trains(case: Case, pruned: Pruned) -> str:
    """Take one step with both: the slim model learns wherever the original does."""
    original = case.build()[0]
    reached = _train_one_step(original, pruned.inputs)
    reached_slim = _train_one_step(pruned.slim, pruned.inputs)
    assert reached == reached_slim, f"the original: {reached}, the slim model: {reached_slim}"
    return reached if isinstance(reached, str) else "yes"


def _train_one_step(model: nn.Module, inputs: tonsor.Inputs) -> set[str] | str:
    """Name the parameters that a gradient reached, or say why this model can't train."""
    free = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not free:
        return "no parameter is free"
    optimizer = torch.optim.SGD(free.values(), lr=1e-3)
    model.train()
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = output_tensors(inputs.map(torch.Tensor.clone).call(model))
            parts = [t.abs().double().square().mean() for t in found if t.requires_grad]
            if not parts:
                return "no output has a gradient"
            loss = torch.stack(parts).sum()
            loss.backward()
        assert loss.isfinite(), f"the loss is {loss}"
        optimizer.step()
        assert all(p.isfinite().all() for p in free.values()), "a step leads to infinity"
    except RuntimeError as error:
        return f"{error}".partition(":")[0]
    finally:
        model.eval()
    return {name for name, p in free.items() if p.grad is not None}


def _round_trip(pruned: Pruned) -> str:
    """Weights that went on learning come back into a fresh slim model."""
    fresh = pruned.plan.apply(pruned.model, verify=False)
    result = fresh.load_state_dict(pruned.slim.state_dict())
    assert not result.missing_keys, result.missing_keys
    assert not result.unexpected_keys, result.unexpected_keys
    wanted, got = (_outputs(m, pruned.inputs) for m in (pruned.slim, fresh))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
    return "yes"


def _outputs(model: nn.Module, inputs: tonsor.Inputs) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model.train().eval()  # some models hold what they made of their weights until they train
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return output_tensors(inputs.map(torch.Tensor.clone).call(model))


def _exports(case: Case, pruned: Pruned) -> str:
    """Whatever could be exported before can be exported still."""
    reason = _export_fails(case.build()[0], pruned.inputs)
    if reason:
        return f"the original does not: {reason}"
    slim = pruned.plan.apply(pruned.model, verify=False)
    failure = _export_fails(slim, pruned.inputs)
    assert not failure, f"the original exports, the slim model does not: {failure}"
    return "yes"


def _export_fails(model: nn.Module, inputs: tonsor.Inputs) -> str:
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            torch.export.export(model, inputs.args, inputs.kwargs)
    except Exception as error:  # noqa: BLE001  torch raises all sorts of things
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""
