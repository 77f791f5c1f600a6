"""The command `tonsor`: the same steps as in Python, for a model named on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tonsor._version import __version__
from tonsor.cli.options import parse
from tonsor.errors import StoppedError, TonsorError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a mistake, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        sys.stdout.write(f"tonsor {__version__}\n")
        return 0
    try:
        try:
            command = parse(given or ["--help"])
        except SystemExit:  # help was asked for, or needed
            sys.stdout.flush()
            raise
    except BrokenPipeError:
        return _enough()
    here = os.getcwd()  # noqa: PTH109  text, as the other entries of sys.path are
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        from tonsor.cli.show import complain, step

        with step("loading torch"):  # slow, so not before the command line has been read
            from tonsor.cli.run import run
        code = run(command)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _enough()
    except StoppedError as error:
        complain(error)  # which says where the checkpoint is, and how to go on
        return 130
    except (TonsorError, OSError) as error:
        if _wants_traceback(command):
            raise
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130


def _wants_traceback(command: object) -> bool:
    places = (command, getattr(command, "source", None), getattr(command, "network", None))
    return any(getattr(place, "traceback", False) for place in places)


def _enough() -> int:
    """Whoever read the output has seen enough of it: write no more, and end as other tools do."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
