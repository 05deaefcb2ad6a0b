"""A command in this process: what the real one prints and ends with, without the price of a process."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from orchclient.cli.app import run
from tests.cli.command import Command, Ended


class Inside(Command):
    """``orchclient`` on one outbox, run in this process."""

    def __init__(self, outbox: Path, url: str | None = None, **environment: str) -> None:
        super().__init__(outbox, url)
        self.environment |= environment

    def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Ended:
        return inside(*arguments, stdin=stdin, **{**self.environment, **environment})


class Terminal(StringIO):
    """Stderr as a terminal has it."""

    def isatty(self) -> bool:
        return True


def inside(*arguments: str, stdin: bytes = b"", on_terminal: bool = False, **environment: str) -> Ended:
    """Run a command to its end."""
    out, err = StringIO(), Terminal() if on_terminal else StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": "120"} | environment),
        patch("sys.stdin", TextIOWrapper(BytesIO(stdin), encoding="utf-8")),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            run(list(arguments))
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Ended(CompletedProcess(arguments, code, out.getvalue(), err.getvalue()), arguments)
