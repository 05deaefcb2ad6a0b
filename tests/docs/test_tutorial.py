"""The tutorial is walked through from its first command to its last, in order, as a newcomer does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from tests.docs.console import DOCS, Step, steps, typed

PAGE = (DOCS / "tutorial.md").read_text()
SHOWN = "127.0.0.1:8765"
SERVE = "orchclient serve"
ORDERS = re.compile(r"^```console\n(.*?)^```|(Stop|Start) the orchestrator", re.M | re.S)
AGENT = re.compile(r"^<!-- file: agent.py -->\n```python\n(.*?)^```", re.M | re.S)


@define
class Newcomer:
    """A person with two terminals in an empty directory."""

    home: Path
    environment: dict[str, str]
    question: str = ""
    address: str = ""
    second_terminal: subprocess.Popen[str] | None = None
    done: list[str] = field(factory=list)

    def serve(self) -> None:
        """The orchestrator in the second terminal; the port of the page may be taken here, so it is another one."""
        port = self.address.rpartition(":")[2] or "0"
        command = [sys.executable, "-m", *SERVE.split(), "--port", port]
        self.second_terminal = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=self.home)
        assert self.second_terminal.stderr is not None
        said = self.second_terminal.stderr.readline().strip()
        self.address = said.removeprefix("Listening on http://")
        assert Step("", (f"Listening on http://{SHOWN}",)).is_like([said.replace(self.address, SHOWN)]), said

    def stop_serving(self) -> None:
        """Ctrl-C in the second terminal."""
        if self.second_terminal is not None:
            self.second_terminal.terminate()
            self.second_terminal.communicate(timeout=30)
            self.second_terminal = None

    def type(self, step: Step) -> None:
        """One command; what it prints must be what the page says."""
        command = step.command.replace(SHOWN, self.address).replace("01…", self.question)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return
        printed = typed(f'cd {self.home}; python() {{ {sys.executable} "$@"; }}; {command}', self.environment)
        assert step.is_like(printed), "\n".join([f"$ {command}", *printed])
        self.done.append(command)
        if found := re.match(r"still open: (\S+)", printed[0] if printed else ""):
            self.question = found[1]


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    """A newcomer with everything of the page's first step."""
    made = Newcomer(tmp_path, {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    (tmp_path / "agent.py").write_text(AGENT.findall(PAGE)[0])
    yield made
    made.stop_serving()


def test_the_tutorial_works_as_it_is_written(newcomer: Newcomer) -> None:
    pytest.importorskip("flask", reason="the orchestrator needs the extra server")
    for commands, order in ORDERS.findall(PAGE):
        if order == "Stop":
            newcomer.stop_serving()
        elif order == "Start":
            newcomer.serve()
        for step in steps(commands):
            newcomer.serve() if step.command == SERVE else newcomer.type(step)
    assert len(newcomer.done) == PAGE.count("\n$ ") - 2  # all but the server and the export
