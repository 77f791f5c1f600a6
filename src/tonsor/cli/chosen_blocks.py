"""From words on a command line to how blocks are ranked, and which of them go."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tonsor.cli.choose_options import Prune
from tonsor.cli.family import family_of
from tonsor.criteria.blocks.score import block_criteria
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.blocks.voting import FIVE
from tonsor.criteria.registry import CRITERIA
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.blocks.find import Level

USUAL = "imprint"
_FEW = 8
_LEARN = ("imprint", "probe")  # these learn from what they are shown, and so see all of it
_LEVELS: dict[str, Level] = {"blocks": "block", "branches": "branch"}


def level_of(command: Prune) -> Level:
    """The level of blocks that goes."""
    return _LEVELS[family_of(command)]


def block_scores_named(by: str) -> str | BlockScores:
    """Read scores of blocks from a file, or check the name of a criterion."""
    if Path(by).suffix != ".json":
        looks_at_data(by)
        return by
    try:
        return BlockScores.from_json(json.loads(Path(by).read_text("utf-8")))
    except (OSError, ValueError) as error:
        message = f"'{by}' can't be read as scores of blocks: {error}"
        raise ScoreError(message) from None
    except ScoreError as error:
        message = f"'{by}': {error} `tonsor blocks --by CRITERION --out FILE.json` writes some."
        raise ScoreError(message) from None


def looks_at_data(by: str | BlockScores) -> bool:
    """Whether a criterion of blocks has to be shown images; one that is not known is refused."""
    if isinstance(by, BlockScores):
        return False
    name, _, options = by.partition(":")
    if name not in block_criteria():
        message = (
            f"no criterion of blocks is called '{name}'; `tonsor list block-criteria` shows them: "
            f"{', '.join(block_criteria())}"
        )
        raise SelectionError(message)
    if name == "ensemble":
        voters = [v for part in options.split(",") if "=" not in part for v in part.split("+")]
        return any(looks_at_data(v.strip()) for v in voters if v.strip()) or (
            not any(voters) and any(looks_at_data(v) for v in FIVE.values())
        )
    if name in CRITERIA:
        return CRITERIA[name].reads_data
    return name in (*_LEARN, "cosine")


def batches_seen(given: int | None, by: object) -> int | None:
    """How many minibatches a criterion sees, of blocks or channels; None stands for all."""
    learns = isinstance(by, str) and by.partition(":")[0] in _LEARN
    return given or (None if learns else _FEW)


def removed(command: Prune) -> int | list[str] | None:
    """Read `--remove`: one number, or names."""
    given = list(command.remove)
    numbers = [item for item in given if re.fullmatch(r"-?\d+", item)]
    if not given:
        return None
    if len(given) == len(numbers) == 1 and int(numbers[0]) > 0:
        return int(numbers[0])
    if numbers:
        message = (
            "--remove takes one number, such as --remove 4, or names of blocks, such as --remove "
            f"layer1.2 --remove layer1.4; got {' '.join(given)}"
        )
        raise SelectionError(message)
    return given


def blocks_each(command: Prune) -> int:
    """Read the schedule of blocks: how many go in each step, or 0 where all go at once."""
    if command.schedule == "one-shot":
        return 0
    found = re.fullmatch(r"iterative:(\d+)", command.schedule)
    if not found or not int(found[1]):
        message = (
            f"--schedule {command.schedule} is none for blocks: there are one-shot and "
            "iterative:N, which removes N blocks a step and trains for --epochs after each"
        )
        raise SelectionError(message)
    return int(found[1])
