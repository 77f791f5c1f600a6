"""How well the latency of a model is foretold from that of its blocks, and what engines make of it.

    python bench/blocks.py [--networks resnet56 resnet50] [--batches 1 16] [--engines eager]

For each network the table of blocks is measured: what all of them and the rest take together is set
beside the whole network as measured. From the table the latency is predicted of the network without
every third and without half of its blocks; these are then measured in turns.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

import tonsor
from tonsor.cost.bench import Bench
from tonsor.cost.table import prediction_error
from tonsor.select.block_table import block_table

SIDES = {"resnet50": 224, "resnet18": 224, "resnet34": 224}


def rows(network: str, batch: int, engine: str, rounds: int) -> Iterator[dict[str, object]]:
    """Predict and measure a network, whole and without some blocks."""
    torch.manual_seed(0)
    model = tonsor.zoo.build(network).eval()
    side = SIDES.get(network, 32)
    anatomy = tonsor.inspect(model, torch.randn(1, 3, side, side))
    blocks = tonsor.blocks(anatomy)
    bench = Bench(batch=batch, engine=engine, rounds=rounds)
    table = block_table(anatomy, blocks, bench, quiet=True)
    names = [b.name for b in blocks.removable]
    gone: dict[str, list[str]] = {"whole": [], "without a third": names[::3],
                                  "without half": names[::2]}  # fmt: skip
    models: dict[str, nn.Module] = {
        what: tonsor.plan_blocks(anatomy, remove=some, by="random").apply(model, verify=False)
        for what, some in gone.items()
    }
    inputs = bench.inputs(anatomy.inputs)
    found = bench.measure(models, inputs)
    for what, some in gone.items():
        predicted = table.predict(some) if some else table.summed
        measured = found[what].median_ms
        yield {
            "network": network, "batch": batch, "engine": engine, "what": what,
            "blocks": len(names) - len(some), "predicted_ms": predicted, "measured_ms": measured,
            "error": prediction_error(predicted, measured), "conditions": found.conditions,
        }  # fmt: skip


def main() -> None:
    """Print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet56", "resnet50"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--engines", nargs="+", default=["eager"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/blocks.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    print(f"{'network':<10}{'batch':>6} {'engine':<12}{'':<16}{'blocks':>7}"
          f"{'predicted':>12}{'measured':>12}{'error':>8}")  # fmt: skip
    for network in given.networks:
        for batch in given.batches:
            for engine in given.engines:
                for row in rows(network, batch, engine, given.rounds):
                    found.append(row)
                    print(
                        f"{network:<10}{batch:>6} {engine:<12}{row['what']:<16}{row['blocks']:>7}"
                        f"{row['predicted_ms']:>9.2f} ms{row['measured_ms']:>9.2f} ms"
                        f"{row['error']:>+8.1%}", flush=True,
                    )  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
