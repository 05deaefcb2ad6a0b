"""The command line. The result goes to stdout, everything else to stderr; the exit code says how it ended."""

from __future__ import annotations


def main() -> None:
    """The entry point ``orchclient``."""
    from orchclient.cli.app import run

    run()
