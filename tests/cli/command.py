"""The real command in a process of its own, and what it ended with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.documents import complaints


class Ended:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str], arguments: tuple[str, ...] = ()) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self._arguments = arguments

    @property
    def document(self) -> dict[str, Any]:
        """The one document on stdout, as its published schema has it; anything else there is an error."""
        parsed: dict[str, Any] = json.loads(self.out)
        assert complaints(self._arguments, parsed) == []
        assert parsed["ok"] == (self.code == 0), (self.code, parsed)
        return parsed


class Command:
    """``orchclient`` on one outbox with one orchestrator."""

    def __init__(self, outbox: Path, url: str | None = None) -> None:
        self.environment = {"ORCHCLIENT_DB": str(outbox), **({"ORCHCLIENT_URL": url} if url else {})}

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        return orchclient(*arguments, **{**self.environment, **environment})

    def json(self, *arguments: str, **environment: str) -> dict[str, Any]:
        """The document of a command."""
        return self(*arguments, "--json", **environment).document

    def counts(self) -> dict[str, int]:
        """The counters of the only destination; they must add up to what was recorded."""
        status = self.json("status")
        (sink,) = status["sinks"]
        counts = {name: sink[name] for name in ("delivered", "pending", "dead", "expired")}
        assert sum(counts.values()) == status["recorded"], status
        return counts


def orchclient(*arguments: str, **environment: str) -> Ended:
    """Run a command to its end."""
    command = [sys.executable, "-m", "orchclient", *arguments]
    env = {**os.environ, "COLUMNS": "120", **environment}
    return Ended(subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False), arguments)
