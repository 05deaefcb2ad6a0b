"""Commands of a page, typed into a shell, and whether they print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

DOCS = Path(__file__).parents[2] / "docs"
ANY = "…"


@frozen
class Step:
    """A command of a page, and the lines that it is said to print."""

    command: str
    printed: tuple[str, ...]

    def is_like(self, lines: list[str]) -> bool:
        """Whether a command printed that; ``…`` is what differs, and alone on a line any number of lines."""
        patterns = [
            r"(?:.*\n)*" if line == ANY else ".*".join(map(re.escape, line.split(ANY))) + r"\n" for line in self.printed
        ]
        return re.fullmatch("".join(patterns), "".join(f"{line}\n" for line in lines)) is not None


def steps(block: str) -> list[Step]:
    """The commands of a block, each with what follows it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.M)[1:]
    return [Step(command, tuple(text.splitlines())) for command, text in zip(parts[::2], parts[1::2], strict=True)]


def blocks(page: str, language: str = "console") -> list[str]:
    """The blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def typed(command: str, environment: Mapping[str, str]) -> list[str]:
    """What a person sees who types it."""
    shell = f'orchclient() {{ {sys.executable} -m orchclient "$@"; }}; {command}'
    env = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(DOCS.parent), **environment}
    done = subprocess.run(
        ["bash", "-c", shell],
        env=env,
        cwd=os.environ["HOME"],  # the test's own: commands write files
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.stdout.splitlines()


def differences(block: str, environment: Mapping[str, str]) -> list[str]:
    """Each command of a block that printed something else than the page says, with what it printed."""
    found = []
    for step in steps(block):
        if step.command.startswith("export "):
            name, _, value = step.command.removeprefix("export ").partition("=")
            environment = {**environment, name: value}
        elif not step.is_like(printed := typed(step.command, environment)):
            found.append("\n".join([f"$ {step.command}", *printed]))
    return found
