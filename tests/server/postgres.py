"""A real PostgreSQL for tests, of the binaries of this machine: a directory, socket and user of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

from attrs import field, frozen

USER = "orch"
NOBODY = 65534
START_S = 60


def binaries() -> Path | None:
    """Where initdb and pg_ctl are: on the path, or where Debian puts them."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@frozen
class Postgres:
    """A server that runs. ``url`` makes a database that nobody else uses."""

    bin: Path
    directory: Path
    _numbers: Iterator[int] = field(factory=lambda: count(1))

    def url(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        _run(self.bin / "createdb", "-h", self.directory, "-U", USER, name)
        return f"postgresql://{USER}@/{name}?host={quote(str(self.directory))}"

    def ctl(self, *arguments: str) -> None:
        """Run pg_ctl."""
        log, data = self.directory / "log", self.directory / "data"
        _run(self.bin / "pg_ctl", "-D", data, "-l", log, "-w", "-t", str(START_S), *arguments)


@contextmanager
def running_postgres(found: Path) -> Iterator[Postgres]:
    """A server from start to stop. It refuses to run as root: then it runs as nobody."""
    directory = Path(tempfile.mkdtemp(prefix="orch-pg-"))  # short: the path of a socket has 107 characters at most
    try:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        _run(found / "initdb", "-D", directory / "data", "-U", USER, "--auth=trust", "-E", "UTF8", "--no-sync")
        server = Postgres(found, directory)
        # Nothing here outlives the machine: without syncs a restart does not wait for a busy disk.
        options = f"-k {directory} -c listen_addresses='' -c max_connections=200 -c fsync=off"
        server.ctl("start", "-o", options)
        try:
            yield server
        finally:
            server.ctl("stop", "-m", "immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(*command: str | Path) -> None:
    as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=START_S,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        **as_nobody,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
