"""The page on PostgreSQL is typed: a role, a database, two servers, a token."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from tests.docs.console import DOCS
from tests.server.postgres import Postgres

PAGE = (DOCS / "postgresql.md").read_text()
COMMANDS = [
    line.strip()
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.M | re.S)
    for line in block.splitlines()
    if "pip install" not in line
]


def shell(command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    script = f'orchclient() {{ {sys.executable} -m orchclient "$@"; }}; {command}'
    return subprocess.Popen(
        ["bash", "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(command: str, environment: dict[str, str]) -> str:
    process = shell(command, environment)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


@contextmanager
def serving(command: str, environment: dict[str, str]) -> Iterator[str]:
    """A server in a terminal; where it listens."""
    process = shell(f"exec {command.replace('orchclient', f'{sys.executable} -m orchclient', 1)}", environment)
    assert process.stderr is not None
    yield process.stderr.readline()
    process.terminate()
    process.communicate(timeout=30)


def test_the_commands_of_the_page_make_a_database_serve_it_and_make_a_token(postgres: Postgres) -> None:
    make, export, serve, token, serve_others = COMMANDS
    path = f"{postgres.bin}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PGHOST": str(postgres.directory), "PGUSER": "orch"}
    run(re.sub(r"\borch\b", "orch_page", make), environment)  # the server's own user is named orch already
    name, _, url = export.removeprefix("export ").partition("=")
    assert url == "postgresql://orch@db.example.com/orch"
    environment[name] = f"postgresql://orch_page@/orch_page?host={quote(str(postgres.directory))}"
    with serving(f"{serve} --port 0", environment) as said:
        assert said.startswith("Listening on http://127.0.0.1:")
    assert run(token, environment).splitlines()[-1].startswith("orch_")
    assert "backend-7" in run("orchclient serve token list", environment)
    with serving(f"{serve_others} --port 0", environment) as said:
        assert said.startswith("Listening on http://0.0.0.0:")
