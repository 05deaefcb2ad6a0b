"""The command line. The result goes to stdout, everything else to stderr; the exit code says how it ended."""

from __future__ import annotations

import gc
import sys

MANY = 50_000
"""Objects after which the garbage collector looks: a short command imports some ten thousand that all stay."""


def main() -> None:
    """The entry point ``orchclient``."""
    gc.set_threshold(MANY)
    try:
        from orchclient.cli.app import run

        run()
    except KeyboardInterrupt:  # before there was a command that could tell it
        sys.exit(130)
    finally:
        gc.freeze()  # else the interpreter looks through everything twice before it ends
