"""Feature maps of a group: where its pieces can be seen while the model runs.

A piece is seen *as it is made*, in what comes out of the weights that make it, after a norm that
follows at once and before any activation; or *as it is read*, in what goes into the next weights.
Both are found in the recorded run. While the model really runs, calls that are given the very
parameter are met again in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from tonsor.anatomy import Anatomy
from tonsor.axes.uses import Use
from tonsor.families.channels import times, views
from tonsor.types import Axis, Group, Op

Side = Literal["out", "in"]
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor of the run that shows the pieces of a group.

    It comes out of, or goes into, the `call`-th call that is given `parameter`. `axes` are those
    of the tensor, whose dimension `dim` the group runs through.
    """

    group: str
    parameter: str
    call: int
    side: Side
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    dim: int

    def maps(self, tensor: Tensor, samples: int) -> Iterator[Tensor]:
        """View the tensor as `[piece, sample, ...]`, once for each time the group is in it."""
        last = tensor.movedim(self.dim, 0)
        dim = 1 if self.dim else 0
        if not self.dim:  # no dimension of samples in front
            for view in views(last, self.axes[0], self.group):
                yield view.unsqueeze(1)
            return
        back = last.movedim(dim, -1)
        for view in views(back, self.axes[self.dim], self.group):
            shown = view.movedim(-1, 1)
            if shown.shape[1] != samples and shown.shape[1] % samples == 0:
                shown = shown.unflatten(1, (samples, -1))  # windows of a picture, say
            yield shown

    def __str__(self) -> str:
        verb = "comes out of" if self.side == "out" else "goes into"
        return f"what {verb} '{self.parameter}'"


def sites(anatomy: Anatomy, group: Group, where: Literal["made", "read"]) -> list[Site]:
    """Return where the pieces of a group can be seen, once for each tensor of the run."""
    solution, graph = anatomy.solution, anatomy.graph
    found: dict[int, Site] = {}
    for name in dict.fromkeys(m.tensor for m in group.members if m.tensor in anatomy.parameters):
        for call, use in enumerate(anatomy.uses.get(name, ())):
            if where == "made" and use.makes(solution, group.name):
                value, site = _after_norm(anatomy, group.name, name, call, use)
            elif where == "read" and _contracts(anatomy, use, group.name):
                value, site = _site(anatomy, group.name, name, call, use, "in")
            else:
                continue
            if site is not None:
                found.setdefault(value, site)
    assert graph is solution.graph
    return list(found.values())


def _contracts(anatomy: Anatomy, use: Use, leaf: str) -> bool:
    """Whether a weight takes the pieces in and sums them up: they do not come out again."""
    solution = anatomy.solution
    passes = any(times(a, leaf) for v in use.outputs for a in solution.axes[v])
    return use.reads(solution, leaf) and not passes


def _after_norm(
    anatomy: Anatomy, leaf: str, name: str, call: int, use: Use
) -> tuple[int, Site | None]:
    """The site behind a norm that reads what a weight makes, or else behind the weight."""
    graph = anatomy.graph
    for norm, found in anatomy.uses.items():
        for at, later in enumerate(found):
            op = graph.ops[later.op]
            if _is_norm(op) and set(use.outputs) & set(later.data):
                return _site(anatomy, leaf, norm, at, later, "out")
    return _site(anatomy, leaf, name, call, use, "out")


def _is_norm(op: Op) -> bool:
    return any(n in op.name for n in _NORMS)


def _site(
    anatomy: Anatomy, leaf: str, name: str, call: int, use: Use, side: Side
) -> tuple[int, Site | None]:
    solution = anatomy.solution
    for value in use.outputs if side == "out" else use.data:
        for dim, axis in enumerate(solution.axes[value]):
            if times(axis, leaf):
                axes = solution.axes[value]
                shape = anatomy.graph.values[value].shape
                return value, Site(leaf, name, call, side, shape, axes, dim)
    return -1, None


class Watch(TorchFunctionMode):
    """Show the tensors at sites to `show(site, tensor)` while the model runs.

    What is shown is never changed afterwards by an operator in place: the model goes on with a
    copy. `met` holds the sites that were seen.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        watched: list[Site],
        show: Callable[[Site, Tensor], None],
    ) -> None:
        super().__init__()
        self._names = {id(t): n for n, t in reversed(list(parameters.items()))}
        self._show = show
        self._watched: dict[tuple[str, int], list[Site]] = {}
        for site in watched:
            self._watched.setdefault((site.parameter, site.call), []).append(site)
        self._calls: dict[str, int] = {}
        self.met: set[Site] = set()

    def __enter__(self) -> Any:
        self._calls.clear()
        return super().__enter__()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, and show what is watched of it."""
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        names = {self._names[id(t)] for t in given if id(t) in self._names}
        if not names or len(names) == len(given):  # no parameter, or nothing else
            return func(*args, **kwargs)
        due: list[Site] = []
        for name in names:
            call = self._calls[name] = self._calls.get(name, -1) + 1
            due += self._watched.get((name, call), ())
        for site in due:
            if site.side == "in":
                args, kwargs = self._seen_in((args, kwargs), site)
        out = func(*args, **kwargs)
        for site in due:
            if site.side == "out" and isinstance(out, Tensor) and _fits(out, site):
                self._met(site, out)
                out = out.clone()
        return out

    def _seen_in(self, given: Any, site: Site) -> Any:
        shown = False

        def look(value: Any) -> Any:
            nonlocal shown
            mine = isinstance(value, Tensor) and id(value) not in self._names
            if shown or not mine or not _fits(value, site):
                return value
            shown = True
            self._met(site, value)
            return value.clone()

        return tree_map(look, given)

    def _met(self, site: Site, tensor: Tensor) -> None:
        self.met.add(site)
        self._show(site, tensor)


def _fits(tensor: Tensor, site: Site) -> bool:
    """Whether this is the tensor of the recorded run, whatever the number of samples is now."""
    return tensor.dim() == len(site.shape) and tensor.shape[site.dim] == site.shape[site.dim]
