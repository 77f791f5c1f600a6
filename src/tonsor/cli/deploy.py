"""What `tonsor deploy` does: make a model ready to run fast, and show how it would run."""

from __future__ import annotations

from tonsor.cli.deploy_options import Deploy
from tonsor.cli.made import make
from tonsor.cli.show import show, show_json, step
from tonsor.cost.engines.registry import using_threads
from tonsor.deploy.capture import with_batch
from tonsor.deploy.deploying import deploy
from tonsor.errors import SelectionError


def show_deployed(command: Deploy) -> int:
    """Deploy a model and print what came of it."""
    for name, given in (("--threads", command.threads), ("--batch", command.batch)):
        if given is not None and given < 1:
            message = f"{name} takes a number from 1 on, not {given}"
            raise SelectionError(message)
    made = make(command.model, command.source)
    inputs = made.inputs if command.batch is None else with_batch(made.inputs, command.batch)
    with using_threads(command.threads), step("timing the layers in all ways"):
        _, report = deploy(
            made.model, inputs, rounds=command.rounds, margin=command.margin,
            ways=command.way or None, quiet=True,
        )  # fmt: skip
    if command.json:
        show_json(report.to_dict())
    else:
        show(report)
    return 0
