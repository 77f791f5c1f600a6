"""`python -m tonsor` is the command `tonsor`, for launchers that want a module."""

import sys

from tonsor.cli import main

if __name__ == "__main__":
    sys.exit(main())
