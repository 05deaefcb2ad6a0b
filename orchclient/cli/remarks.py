"""What is said beside the result: on stderr, for people, and not with ``--quiet``. Errors always are, elsewhere."""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click


def remark(text: str, *, nl: bool = True) -> None:
    """Say something that a script does not need."""
    if not _is_quiet():
        click.echo(text, nl=nl, err=True)


def has_onlooker() -> bool:
    """Whether a person looks at a terminal: then there is progress, and what follows is told."""
    return sys.stderr is not None and sys.stderr.isatty() and not _is_quiet()  # None: it was closed, as by 2>&-


def can_rewrite(stream: TextIO | None) -> bool:
    """Whether lines can be taken back: on a terminal that is not dumb."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    flags = context.find_root().obj if context else None
    return bool(flags and flags.get("is_quiet"))
