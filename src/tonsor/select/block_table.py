"""How long each block takes, so that the latency of any plan can be told beforehand.

Blocks of one make are timed as they run in the model: one after the other, each on what the one
before has made. A block that runs over and over on the same numbers finds its weights and them in
the processor's caches, and is faster than any in the model, or slower where they do not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.cost.latency import Timing
from tonsor.cost.signature import capture, signature
from tonsor.cost.table import Memory, Part, PartTable, prediction_error, time_parts
from tonsor.families.blocks.block import Block, Blocks
from tonsor.select.drop import drop_plan, that_go_together

_WHOLE, _REST = "(whole)", "(rest)"


@dataclass(frozen=True)
class BlockTable:
    """Timings of the blocks that may go, of the model without them, and of the model itself.

    `makes` names for each block the part of the table that it was timed in, and how many blocks
    ran there.
    """

    parts: PartTable
    makes: Mapping[str, tuple[str, int]]

    @property
    def whole(self) -> Timing:
        """The model itself, measured with its parts."""
        return self.parts[_WHOLE]

    @property
    def rest(self) -> Timing:
        """The model without any of these blocks."""
        return self.parts[_REST]

    def __getitem__(self, block: str) -> Timing:
        part, number = self.makes[block]
        found = self.parts[part]
        return Timing(found.median_ms / number, found.low_ms / number, found.high_ms / number)

    @property
    def summed(self) -> float:
        """The milliseconds of all parts together, as they were timed alone."""
        return self.rest.median_ms + sum(self[n].median_ms for n in self.makes)

    @property
    def error(self) -> float:
        """How far all parts together are from the whole as measured, as a fraction."""
        return prediction_error(self.summed, self.whole.median_ms)

    def predict(self, gone: Collection[str] = ()) -> float:
        """Predict the milliseconds of the model without some blocks.

        Blocks share what the whole takes beyond the rest, each by what it takes alone, for what
        runs in a large model takes somewhat longer than alone.
        """
        blocks = self.summed - self.rest.median_ms
        beyond = self.whole.median_ms - self.rest.median_ms
        share = beyond / blocks if blocks > 0 and beyond > 0 else 1.0
        present = sum(self[n].median_ms for n in self.makes if n not in gone)
        return self.rest.median_ms + share * present

    def __str__(self) -> str:
        lines = [
            f"{len(self.makes)} blocks, {self.parts.measured} distinct parts measured: "
            f"{self.parts.conditions}"
        ]
        width = max((len(n) for n in self.makes), default=0)
        lines += [f"  {n:<{width}}  {self[n]}" for n in self.makes]
        lines.append(f"  {'the rest':<{width}}  {self.rest}")
        lines.append(
            f"  together {self.summed:.3g} ms, the whole was measured at {self.whole}: "
            f"{self.error:+.1%}"
        )
        return "\n".join(lines)


def block_table(
    anatomy: Anatomy,
    blocks: Blocks,
    bench: Bench | None = None,
    *,
    memory: Memory | None = None,
    quiet: bool = False,
) -> BlockTable:
    """Time every distinct block that may go, alone and on what it is given in the model.

    Where not all of them can go at once, those that can after the earlier ones are in the table.
    `memory` keeps timings for later tables, in a file if it has a path.
    """
    bench = bench or Bench()
    given = bench.inputs(anatomy.inputs)
    names, _ = that_go_together(anatomy, blocks, [b.name for b in blocks.removable])
    going = [blocks.named(n) for n in names]
    rest = drop_plan(anatomy, blocks, names).apply(anatomy.model, verify=False)
    seen = capture(anatomy.model, given, [b.modules[0] for b in going]) if going else {}
    makes: dict[str, list[Block]] = {}
    for block in going:
        modules = [anatomy.model.get_submodule(m) for m in block.modules]
        makes.setdefault(signature(modules, seen[block.modules[0]]), []).append(block)
    parts = {
        key: Part(_Chain(anatomy.model, alike), seen[alike[0].modules[0]], f"{key}x{len(alike)}")
        for key, alike in makes.items()
    }
    for name, model in ((_WHOLE, anatomy.model), (_REST, rest)):
        parts[name] = Part(model, given, signature([model], given))
    return BlockTable(
        time_parts(parts, bench, memory=memory, quiet=quiet),
        {b.name: (key, len(alike)) for b in going for key, alike in makes.items() if b in alike},
    )


class _Chain(nn.Module):
    """Blocks of one make, one after the other."""

    def __init__(self, model: nn.Module, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.runs = nn.ModuleList(
            nn.ModuleList(model.get_submodule(m) for m in b.modules) for b in blocks
        )
        self.blocks = blocks

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run each on what the one before has made, where that is of the same shape."""
        out: Any = None
        for block, run in zip(self.blocks, list[Any](self.runs), strict=True):
            first, *rest = list[Any](run)
            out = first(*args, **kwargs)
            if block.kind == "branch" and rest:
                continue  # a norm or a scale, which need not be given what the branch returns
            for module in rest:
                out = module(out)
            if block.input_shape == block.output_shape and len(block.takes) == 1:
                args, kwargs = _instead(block, block.result(out), args, kwargs)
        return out


def _instead(
    block: Block, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (place,) = block.takes
    if isinstance(place, int):
        return (*args[:place], x, *args[place + 1 :]), kwargs
    return args, {**kwargs, place: x}
