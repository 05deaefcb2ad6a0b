"""A page is walked through from its first command to its last, in order, as a newcomer does with two terminals."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from tests.docs.console import Step, steps, typed

SHOWN = "127.0.0.1:8765"
SERVE = "orchclient serve"
ORDERS = re.compile(r"^```console\n(.*?)^```|(Stop|Start) the orchestrator", re.M | re.S)


@define
class Newcomer:
    """A person in an empty directory. The port that the page shows may be taken here, so it is another one."""

    home: Path
    _reserved: socket.socket  # nobody else takes the port, and nobody answers there until it is served
    _port: int
    done: list[str] = field(factory=list)
    _question: str = ""
    _environment: dict[str, str] = field(factory=dict)
    _second_terminal: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where the orchestrator is, or will be."""
        return f"127.0.0.1:{self._port}"

    def walk(self, page: str) -> None:
        """Do what the page says, and see what it says."""
        for commands, order in ORDERS.findall(page):
            if order:
                self.serve() if order == "Start" else self.stop_serving()
            for step in steps(commands):
                self._type(step)

    def serve(self) -> None:
        """The orchestrator in the second terminal."""
        self._reserved.close()
        command = [sys.executable, "-m", *SERVE.split(), "--port", str(self._port)]
        self._second_terminal = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.home)
        assert self._second_terminal.stderr is not None
        said = self._second_terminal.stderr.readline()
        assert said == f"Listening on http://{self.address}\n"

    def stop_serving(self) -> None:
        """Ctrl-C in the second terminal."""
        if self._second_terminal is not None:
            self._second_terminal.terminate()
            self._second_terminal.communicate(timeout=30)
            self._second_terminal = None

    def _type(self, step: Step) -> None:
        self.done.append(step.command)
        command = step.command.replace(SHOWN, self.address).replace("01…", self._question)
        if command == SERVE:
            assert step.printed == (f"Listening on http://{SHOWN}",)
            self.serve()
        elif command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._environment[name] = value
        else:
            printed = typed(f'cd {self.home}; python() {{ {sys.executable} "$@"; }}; {command}', self._environment)
            assert step.is_like(printed), "\n".join([f"$ {command}", *printed])
            if found := re.match(r"still open: (\S+)", printed[0] if printed else ""):
                self._question = found[1]


@contextmanager
def newcomer(home: Path, agent: str) -> Iterator[Newcomer]:
    """A person who has saved an agent's code as ``agent.py``; the orchestrator is stopped afterwards."""
    (home / "agent.py").write_text(agent)
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        made = Newcomer(home, reserved, reserved.getsockname()[1])
        yield made
        made.stop_serving()
