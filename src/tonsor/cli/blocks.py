"""What `tonsor blocks` shows: the blocks of a model, their scores, and how long they take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonsor.anatomy import Anatomy
from tonsor.cli.block_options import Blocks as Command
from tonsor.cli.chosen_blocks import batches_seen, block_scores_named, looks_at_data
from tonsor.cli.made import make_anatomy
from tonsor.cli.show import show, show_json, show_table
from tonsor.cli.timing import bench_of
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import SelectionError
from tonsor.explain import short
from tonsor.families.blocks.block import Block, Blocks, shape_text
from tonsor.families.blocks.find import find_blocks
from tonsor.files import replacing
from tonsor.report.importance import block_accuracy, importance
from tonsor.report.raw import save_figure
from tonsor.select.block_table import BlockTable, block_table
from tonsor.select.drop import drop_plan

if TYPE_CHECKING:
    from tonsor.train.data import Splits


@dataclass(frozen=True, slots=True)
class _Row:
    """A block, and all that is known of it."""

    block: Block
    params: int
    macs: int | None
    score: float | None = None
    goes: int | None = None
    known: float | None = None
    ms: float | None = None


def show_blocks(command: Command) -> int:
    """List the blocks of a model, with what the command asks of them."""
    by = None if command.by is None else block_scores_named(command.by)
    _check(command, by)
    bench = bench_of(command.timed, command.device, command.source) if command.time else None
    splits = None
    if command.images.data is not None:
        from tonsor.cli.given import read_splits

        splits = read_splits(command.images)
    anatomy = make_anatomy(command.model, command.source, splits)
    blocks = find_blocks(anatomy, level=command.level)
    scores = by if not isinstance(by, str) else _score(command, anatomy, blocks, splits, by)
    table = None
    if bench is not None and blocks.removable:
        table = block_table(anatomy, blocks, bench, quiet=command.quiet)
    files = [] if scores is None else list(_written(command, blocks, scores))
    rows = list(_rows(anatomy, blocks, scores, table))
    if command.json:
        show_json(_as_json(anatomy, command, rows, scores, table, files))
    else:
        _show(blocks, rows, scores, table, files)
    return 0


def _check(command: Command, by: str | BlockScores | None) -> None:
    for option in ("out", "figure"):
        if by is None and getattr(command, option) is not None:
            message = f"--{option} keeps scores; say by which criterion: --by imprint"
            raise SelectionError(message)
    if command.figure is not None and command.figure.suffix != ".svg":
        message = f"--figure draws SVG, so it takes a name that ends in .svg, not {command.figure}"
        raise SelectionError(message)
    if by is not None and looks_at_data(by) and command.images.data is None:
        message = f"'{by}' looks at data: --data cifar10:FOLDER, for example"
        raise SelectionError(message)


def _score(
    command: Command, anatomy: Anatomy, blocks: Blocks, splits: Splits | None, by: str
) -> BlockScores:
    data: dict[str, Any] = {}
    if splits is not None:
        from tonsor.cli.given import held_out, shown_to_criteria

        data["batches"] = shown_to_criteria(splits, command.score_batch, command.source.seed)
        data["judge"] = held_out(splits, command.judge)
        data["at_most"] = batches_seen(command.score_batches, by)
    return score_blocks(
        anatomy, blocks, by, seed=command.source.seed, quiet=command.quiet, **data
    )  # fmt: skip


def _rows(
    anatomy: Anatomy, blocks: Blocks, scores: BlockScores | None, table: BlockTable | None
) -> Iterator[_Row]:
    whole = anatomy.cost.macs()
    removable = [b.name for b in blocks.removable]
    order = () if scores is None else scores.ranking(removable)
    for block in blocks:
        macs = None
        if block.drop is not None:
            gone = drop_plan(anatomy, blocks, [block.name])
            macs = whole - anatomy.cost_without(gone.drops).macs(gone.counts)
        yield _Row(
            block,
            params=sum(anatomy.parameters[n].numel() for n in block.parameters),
            macs=macs,
            score=None if scores is None else scores.values.get(block.name),
            goes=order.index(block.name) + 1 if block.name in order else None,
            known=None if scores is None else (scores.curve or {}).get(block.name),
            ms=table[block.name].median_ms if table and block.removable else None,
        )


def _written(command: Command, blocks: Blocks, scores: BlockScores) -> Iterator[Path]:
    if command.out is not None:
        with replacing(command.out) as part:
            part.write_text(json.dumps(scores.to_json(), indent=1) + "\n", "utf-8")
        yield command.out
    if command.figure is None:
        return
    names, fixed = list(blocks.by_name), [b.name for b in blocks if not b.removable]
    values = {n: v for n, v in scores.values.items() if n in blocks.by_name}
    data = {"by": scores.by, "blocks": names, "fixed": fixed, "scores": values}
    yield command.figure
    yield save_figure(command.figure, importance({scores.by: values}, names, fixed=fixed), data)
    if scores.curve:
        path = command.figure.with_stem(f"{command.figure.stem}-accuracy")
        svg = block_accuracy({scores.by: scores.curve}, names, network=scores.network, fixed=fixed)
        data = {"by": scores.by, "accuracy": scores.curve, "network": scores.network}
        yield path
        yield save_figure(path, svg, data)


def _show(
    blocks: Blocks,
    rows: list[_Row],
    scores: BlockScores | None,
    table: BlockTable | None,
    files: list[Path],
) -> None:
    show(f"{len(blocks)} blocks, of which {len(blocks.removable)} may go")
    columns = ["block", "kind", "shape", "parameters", "MACs less"]
    columns += ["score", "goes"] if scores else []
    columns += ["after it"] if scores and scores.curve else []
    columns += ["ms"] if table else []
    columns.append("notes")
    show_table(columns, [[_cell(row, c) for c in columns] for row in rows])
    if not len(blocks):
        show("no shortcut leads around a module here, and no layer hands one tensor on")
    if scores is not None:
        order = scores.ranking(b.name for b in blocks.removable)
        show(f"by {scores.by} they would go in this order: {', '.join(order) or 'none'}")
        if scores.network is not None:
            show(f"the network itself is right in {scores.network:.2%}")
        for note in scores.notes:
            show(f"note: {note}", "yellow")
    if table is not None:
        show(
            f"the rest takes {table.rest}, all together {table.summed:.3g} ms; the whole was "
            f"measured at {table.whole}: {table.error:+.1%}"
        )
        show(f"({table.parts.conditions}; {table.parts.measured} distinct parts)")
    for path in files:
        show(f"written: {path}", "green")


def _cell(row: _Row, column: str) -> str:
    block = row.block
    drop = block.drop
    match column:
        case "block":
            return block.name
        case "kind":
            return block.kind
        case "shape":
            return shape_text(block.input_shape)
        case "parameters":
            return short(row.params)
        case "MACs less":
            return "" if row.macs is None else short(row.macs)
        case "score":
            return "" if row.score is None else f"{row.score:.4g}"
        case "goes":
            return "" if row.goes is None else f"{row.goes}."
        case "after it":
            return "" if row.known is None else f"{row.known:.2%}"
        case "ms":
            return "" if row.ms is None else f"{row.ms:.3g}"
        case _:
            if drop is None:
                return f"stays: {block.reason}"
            return f"keeps {', '.join(drop.through)}" if drop.through else ""


def _as_json(
    anatomy: Anatomy,
    command: Command,
    rows: list[_Row],
    scores: BlockScores | None,
    table: BlockTable | None,
    files: list[Path],
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "model": type(anatomy.model).__name__,
        "level": command.level,
        "removable": sum(r.block.removable for r in rows),
        "blocks": [_row_json(row) for row in rows],
        "scores": None,
        "latency": None,
        "files": [str(f) for f in files],
    }
    if scores is not None:
        order = scores.ranking(r.block.name for r in rows if r.block.removable)
        found["scores"] = scores.to_json() | {"order": list(order), "notes": list(scores.notes)}
    if table is not None:
        found["latency"] = {
            "conditions": table.parts.conditions,
            "whole_ms": table.whole.median_ms,
            "rest_ms": table.rest.median_ms,
            "predicted_ms": table.summed,
            "error": table.error,
        }
    return found


def _row_json(row: _Row) -> Mapping[str, Any]:
    block = row.block
    return {
        "name": block.name,
        "kind": block.kind,
        "modules": list(block.modules),
        "input_shape": list(block.input_shape),
        "output_shape": list(block.output_shape),
        "removable": block.removable,
        "reason": block.reason,
        "keeps": [] if block.drop is None else list(block.drop.through),
        "params": row.params,
        "macs": row.macs,
        "score": row.score,
        "goes": row.goes,
        "accuracy": row.known,
        "ms": row.ms,
    }
