"""The demo's agent as a process of its own: started, listened to, killed, or let end. Nobody waits for it for ever.

Must not know the play, nor what the agent does.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from attrs import frozen

from orchclient.cli.output import printable
from orchclient.core.errors import OrchClientError

AGENT = "orchclient.cli.demo_agent"
OUTBOX = "outbox.db"
LOG = "agent.log"
LONGEST_S = 60.0
DEATH_S = 5.0


class DemoFailed(OrchClientError):
    """The demo could not be played to its end: the message says what it waited for."""


@frozen
class Deadline:
    """The monotonic instant at which the demo gives up, whatever it waits for."""

    at: float

    @classmethod
    def of(cls, began: float) -> Self:
        """Of a demo that began at a monotonic instant."""
        return cls(began + LONGEST_S)

    @classmethod
    def never(cls) -> Self:
        """Of a wait for a person."""
        return cls(math.inf)

    def left_s(self, awaited: str) -> float:
        """Seconds to wait for something, a minute at most; raises ``DemoFailed`` when there are none."""
        left = min(self.at - time.monotonic(), LONGEST_S)
        if left <= 0:
            raise DemoFailed(f"the demo gave up after {LONGEST_S:.0f} s, while it waited for {awaited}")
        return left


@frozen
class Receipt:
    """What the agent showed of a record call that returned."""

    id: str
    took_ms: float


class Agent:
    """The agent, running as a process of its own, and everything that it said so far."""

    def __init__(self, directory: Path, url: str, deadline: Deadline, flags: Sequence[str] = ()) -> None:
        self.receipts: list[Receipt] = []
        self.deadline = deadline
        self._awaited = ""
        self._log = directory / LOG
        self._process = _started(directory, url, self._log, flags)
        assert self._process.stdin
        assert self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._said = self._messages()

    def listen(self, is_enough: Callable[[dict[str, Any]], bool], awaited: str) -> dict[str, Any]:
        """Take in what it says until that is enough. Raises ``DemoFailed`` when it ends before."""
        self._awaited = awaited
        for said in self._said:
            if is_enough(said):
                return said
        raise DemoFailed(f"the agent ended by itself while the demo waited for {awaited}: {_last_line(self._log)}")

    def kill(self) -> None:
        """Kill it with SIGKILL; what it said before is taken in."""
        self._process.kill()
        self._hear_out("the agent to die", -signal.SIGKILL)

    def let_go(self) -> None:
        """Tell it that nobody waits for it any more."""
        self._stdin.close()

    def end(self) -> None:
        """Let it end: it delivers what is left and exits."""
        self.let_go()
        self._hear_out("the agent to end", 0)

    def _hear_out(self, awaited: str, code: int) -> None:
        self._awaited = awaited
        for _ in self._said:
            pass
        while self._process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.deadline.left_s(awaited))
        if self._process.returncode != code:
            raise DemoFailed(f"the agent ended with exit code {self._process.returncode}: {_last_line(self._log)}")

    def _messages(self) -> Iterator[dict[str, Any]]:
        unread = b""
        while chunk := self._chunk():
            *lines, unread = (unread + chunk).split(b"\n")
            for said in map(json.loads, lines):
                if said["say"] == "receipt":
                    self.receipts.append(Receipt(said["id"], said["took_ms"]))
                yield said

    def _chunk(self) -> bytes:
        while not select.select([self._stdout], [], [], self.deadline.left_s(self._awaited))[0]:
            pass
        return os.read(self._stdout.fileno(), 65_536)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Popen's own would wait for the agent to end by itself.
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_S)
        self._stdin.close()
        self._stdout.close()


def _started(directory: Path, url: str, log: Path, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", AGENT, str(directory / OUTBOX), url, *flags]
    with log.open("ab") as errors:
        return subprocess.Popen(  # noqa: S603 - this Python, and paths that were made here
            command,
            cwd=directory,
            env=agent_environment(os.environ, directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the agent
        )


def agent_environment(environ: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment without the user's settings, nor the places where they stand."""
    kept = {name: value for name, value in environ.items() if not name.startswith(("ORCHCLIENT_", "XDG_"))}
    # Another home hides packages that were installed with --user: the agent finds what this process found.
    return kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return printable(next((line for line in reversed(lines) if line.strip()), "it left no word"))
