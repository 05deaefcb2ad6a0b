"""A program of agents.py in a process of its own, and how a test talks to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]
QUICK_S = 90
"""When a program counts as hanging."""


class Program:
    """A program of agents.py in a process of its own."""

    def __init__(
        self, name: str, *arguments: object, hangs_after_s: int = QUICK_S, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._errors = TemporaryFile("w+")  # noqa: SIM115  closed at exit
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.agents", str(hangs_after_s), name, json.dumps(arguments)],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """It does not outlive the test, however that ends."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def line(self) -> str:
        """The next line that it prints; it has not ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended with {self.process.wait(QUICK_S)}, and said {self._said()!r}"
        return line.strip()

    def hear(self, line: str) -> None:
        """It is told a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ended(self, code: int = 0) -> list[str]:
        """The lines that it still printed. It has ended with this code and said nothing on stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        lines = self.process.stdout.read().splitlines()
        self.process.wait(QUICK_S)
        ended = self.process.returncode, self._said()
        assert ended == (code, ""), f"ended with {ended[0]}, not {code}, and said {ended[1]!r}"
        return lines

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def told(self) -> Any:
        """The value that it printed at its end."""
        [line] = self.ended()
        return json.loads(line)
