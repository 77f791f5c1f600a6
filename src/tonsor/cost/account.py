"""The account of a model: what it costs now, and what it would cost after any plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from tonsor.cost.conventions import Convention, find_convention
from tonsor.cost.ops import fate, terms
from tonsor.cost.sample import sample_sizes
from tonsor.cost.sheet import Entry, Sheet
from tonsor.cost.smooth import Smooth
from tonsor.cost.terms import Counts, Line, Reader
from tonsor.errors import SelectionError
from tonsor.types import Axis, Solution, leaves

WHOLE: Counts = MappingProxyType({})
"""Nothing is cut."""

Meter: TypeAlias = Callable[[Counts], int]


@dataclass(frozen=True, slots=True)
class Uncounted:
    """An operator whose cost nobody knows, and where it was called."""

    operator: str
    modules: tuple[str, ...]
    times: int
    reason: str

    def __str__(self) -> str:
        where = ", ".join(f"'{m}'" if m else "the model itself" for m in self.modules)
        times = "once" if self.times == 1 else f"{self.times} times"
        return f"{self.operator}, {times} in {where}: {self.reason}"


@dataclass(frozen=True)
class Account:
    """Costs of one sample, exact after any plan.

    `counts` says how many indices are kept of which leaves. Every recorded operator is in
    one of three places: counted (`lines`), free (`free`: no arithmetic), or `uncounted`.
    """

    lines: tuple[Line, ...]
    free: Mapping[str, int]
    uncounted: tuple[Uncounted, ...]
    parameters: Mapping[str, tuple[Axis, ...]]
    modules: tuple[str, ...]
    sample: Mapping[str, int]
    leaves: frozenset[str] = field(repr=False)
    _sheets: dict[tuple[str, str], Sheet] = field(default_factory=dict, repr=False, compare=False)

    def macs(self, counts: Counts = WHOLE) -> int:
        """Count all multiply-accumulates: convention `mac`. For `mac_conv` see `total`."""
        return int(self.total("mac", counts))

    def params(self, counts: Counts = WHOLE) -> int:
        """Count the elements of all parameters; tied ones once, buffers not at all."""
        return self._sums("params", "", counts).get("", 0)

    def total(
        self, convention: str, counts: Counts = WHOLE, *, before: Account | None = None
    ) -> int | float:
        """Count by any convention of `conventions.CONVENTIONS`, by name.

        A speed-up is over this account with nothing cut, or over the one `before`.
        """
        found = find_convention(convention)
        after = self._sums(convention, "", counts).get("", 0)
        if found.finish is None:
            return after
        return found.finish(after, (before or self)._sums(convention, "", WHOLE).get("", 0))

    def amount(
        self, target: str, counts: Counts = WHOLE, *, before: Account | None = None
    ) -> int | float:
        """Count by "macs", "params", or any convention; see `total`."""
        if target in ("macs", "params"):
            return self.meter(target)(counts)
        return self.total(target, counts, before=before)

    def by_module(self, counts: Counts = WHOLE, target: str = "macs") -> dict[str, int]:
        """Cost of every module, with all that is inside it; "" is the whole model.

        `target` is "macs", "params", or a convention that adds up.
        """
        found = dict.fromkeys(self.modules, 0)
        for path, cost in self._sums(_summable(target), "module", counts).items():
            for module in _upwards(path):
                found[module] = found.get(module, 0) + cost
        return found

    def by_operator(self, counts: Counts = WHOLE, target: str = "macs") -> dict[str, int]:
        """Cost by operator, the dearest first; those of no cost are left out."""
        found = self._sums(_summable(target), "operator", counts)
        dear = sorted(found.items(), key=lambda item: -item[1])
        return {operator: cost for operator, cost in dear if cost}

    def meter(self, target: str) -> Meter:
        """Return a function from counts to "macs", "params" or a convention that adds up."""
        name = _summable(target)
        sheet = self._sheet(name, "")

        def measure(counts: Counts) -> int:
            self._check(counts)
            return sheet.totals(counts).get("", 0)

        return measure

    def smooth(self, target: str, names: Sequence[str], fixed: Counts = WHOLE) -> Smooth:
        """Return the cost as a function of tensors: so many of each of the `names`, in part too.

        `target` is "macs", "params", or a convention that adds up.
        """
        self._check({**dict.fromkeys(names, 0), **fixed})
        return Smooth(self._sheet(_summable(target), ""), "", names, fixed)

    def __str__(self) -> str:
        text = (
            f"{self.macs():,} MAC ({self.total('mac_conv'):,} of them in convolutions and "
            f"linear layers), {self.params():,} parameters"
        )
        return "\n".join([text, *(f"not counted: {item}" for item in self.uncounted)])

    def _sums(self, name: str, group: str, counts: Counts) -> dict[str, int]:
        self._check(counts)
        return self._sheet(name, group).totals(counts)

    def _sheet(self, name: str, group: str) -> Sheet:
        """Make each sheet once; `group` is what its keys are."""
        known = self._sheets.get((name, group))
        if known is None:
            if name == "params":
                entries = self._parameter_entries(group)
            else:
                entries = self._entries(find_convention(name), group)
            known = self._sheets[name, group] = Sheet(entries, self.sample)
        return known

    def _entries(self, convention: Convention, group: str) -> Iterator[Entry]:
        for line in self.lines:
            key = getattr(line, group) if group else ""
            for term in line.terms:
                weight = convention.weigh(line, term)
                if weight:
                    yield key, weight * term.factor, term.axes

    def _parameter_entries(self, group: str) -> Iterator[Entry]:
        for name, axes in self.parameters.items():
            yield name.rpartition(".")[0] if group == "module" else group, 1, axes

    def _check(self, counts: Counts) -> None:
        if not counts.keys() <= self.leaves:
            unknown = sorted(counts.keys() - self.leaves)
            message = (
                f"the model has no axis called '{unknown[0]}', so its count means nothing; "
                "counts are given by the names of leaves, as in Solution.axes"
            )
            raise SelectionError(message)


def account(solution: Solution) -> Account:
    """Write down what every recorded operator costs.

    Costs are those of one sample: the batch size is dimension 0 of the first tensor input.
    Work that does not grow with the batch is counted whole. A formula that does not fit puts
    its operator among the uncounted; it never fails the user, and never counts zero.
    """
    graph = solution.graph
    reader = Reader(solution)
    lines: list[Line] = []
    free: Counter[str] = Counter()
    lost: dict[tuple[str, str], list[str]] = defaultdict(list)
    for op in graph.ops:
        status = fate(op)
        if status == "free":
            free[op.name] += 1
        elif status == "unknown":
            lost[op.name, "it has no formula"].append(op.module)
        else:
            try:
                found = terms(reader, op)
            except Exception as error:  # noqa: BLE001  an odd operator is listed instead
                reason = f"its formula does not fit here ({type(error).__name__}: {error})"
                lost[op.name, reason].append(op.module)
            else:
                kind = graph.module_types.get(op.module, "")
                lines.append(Line(op.index, op.name, op.module, kind, found))
    return Account(
        lines=tuple(lines),
        free=free,
        uncounted=tuple(
            Uncounted(name, tuple(dict.fromkeys(modules)), len(modules), reason)
            for (name, reason), modules in lost.items()
        ),
        parameters=_untied(solution),
        modules=tuple(graph.module_types),
        sample=sample_sizes(solution),
        leaves=_all_leaves(solution),
    )


def _untied(solution: Solution) -> dict[str, tuple[Axis, ...]]:
    """Name every parameter once."""
    first: dict[int, str] = {}
    for name, value in solution.graph.parameters.items():
        first.setdefault(value, name)
    return {name: solution.axes[value] for value, name in first.items()}


def _all_leaves(solution: Solution) -> frozenset[str]:
    trees = {id(axis): axis for axes in solution.axes.values() for axis in axes}
    return frozenset(leaf.name for axis in trees.values() for leaf in leaves(axis))


def _upwards(path: str) -> Iterator[str]:
    """Yield a module and all that it is inside of, up to the model itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _summable(target: str) -> str:
    if target == "params":
        return target
    name = "mac" if target == "macs" else target
    if find_convention(name).finish is not None:
        message = f"'{name}' is no sum of parts but made from one; ask Account.total for it"
        raise SelectionError(message)
    return name
