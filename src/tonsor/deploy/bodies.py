"""The body of a deployed model: a fused graph if it can be had, else the modules as they are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from tonsor.deploy.agree import outputs_agree, worst
from tonsor.deploy.calls import Layout
from tonsor.deploy.capture import batch_of, capture, fresh, with_batch
from tonsor.deploy.deployed import AsItIs, Deployed, FromGraph
from tonsor.deploy.fuse import fuse
from tonsor.deploy.layers import FusedConv, Site, is_plain, own_copy
from tonsor.errors import DeployError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Bodies:
    """A model whose convolutions are sites, and what was not to be had."""

    fast: Deployed
    any_batch: bool
    notes: tuple[str, ...] = ()


def made_ready(own: nn.Module, given: Inputs, wanted: object, laid: tuple[bool, ...]) -> Bodies:
    """Make the best body that computes what a model does; `wanted` is its output."""
    try:
        return _from_graph(own, given, wanted, laid)
    except Exception as error:  # noqa: BLE001  the exporter and what it makes fail in many ways
        why = str(error) if isinstance(error, DeployError) else f"{type(error).__name__}: {error}"
        note = f"no graph could be made, so nothing was fused: {why.splitlines()[0][:200]}"
    return _swapped(own, given, wanted, laid, note)


def _from_graph(
    own: nn.Module, given: Inputs, wanted: object, laid: tuple[bool, ...]
) -> Bodies:  # fmt: skip
    found = capture(own, given)
    fuse(found.graph)
    fast = FromGraph(found.graph, found.layout, laid)
    got = fresh(given).call(fast) if _takes(fast, given) else None
    if got is None and found.layout.dynamic and batch_of(given) == 1:
        fast.layout = found.layout.from_one()
        got = fresh(given).call(fast)
    if got is None or not outputs_agree(got, wanted):
        off = f"{worst(got, wanted):.1e} of the largest" if got is not None else "its shapes"
        message = f"what the graph computes differs from the model by {off}"
        raise DeployError(message)
    fast.layout = _for_other_batches(own, fast, given)
    notes = () if fast.layout.dynamic else ("the batch is fixed: the model depends on its size",)
    return Bodies(fast, fast.layout.dynamic, notes)


def _for_other_batches(own: nn.Module, fast: FromGraph, given: Inputs) -> Layout:
    """Return for which batches a graph is right: those that the exporter says, and one sample.

    The exporter never lets one sample in, and does not see all that a model makes of the size.
    """
    layout, batch = fast.layout, batch_of(given)
    if not layout.dynamic:
        return layout
    if batch > 1 and _right(own, fast, with_batch(given, 1), layout.from_one()):
        layout = layout.from_one()
    low, high = layout.free.get("batch", (1, None))
    for size in (batch + 1, batch + 2):
        inside = size >= low and (high is None or size <= high)
        if inside and not _right(own, fast, with_batch(given, size), layout):
            return layout.fixed(given)
    return layout


def _right(own: nn.Module, fast: FromGraph, inputs: Inputs, layout: Layout) -> bool:
    before, fast.layout = fast.layout, layout
    try:
        return outputs_agree(fresh(inputs).call(fast), fresh(inputs).call(own))
    except Exception:  # noqa: BLE001  what fails is not right
        return False
    finally:
        fast.layout = before


def _takes(fast: FromGraph, given: Inputs) -> bool:
    try:
        fast.layout.flat(given.args, given.kwargs)
    except DeployError:
        return False
    return True


def _swapped(
    own: nn.Module, given: Inputs, wanted: object, laid: tuple[bool, ...], note: str
) -> Bodies:
    """Put a site in the place of each convolution of a copy, if that still runs."""
    copy = clone(own, lambda _, tensor: tensor)
    memo: dict[int, Site] = {}
    for name, module in list(copy.named_modules(remove_duplicate=False)):
        if name and is_plain(module):
            parent, _, leaf = name.rpartition(".")
            site = memo.setdefault(id(module), Site(name, FusedConv(own_copy(module))))
            setattr(copy.get_submodule(parent), leaf, site)
    for last in (True, False):
        fast = AsItIs(copy, laid, last=last)
        try:
            if outputs_agree(fresh(given).call(fast), wanted):
                return Bodies(fast, True, (note,))
        except Exception:  # noqa: BLE001  some read attributes of their convolutions
            continue
    plain = AsItIs(clone(own, lambda _, tensor: tensor), laid, last=False)
    extra = "its convolutions can't be replaced either, so it is left as it is"
    return Bodies(plain, True, (note, extra))
