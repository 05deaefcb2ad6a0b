"""What a command loads before it does anything: its start is most of what a call from a script costs.

Counted in modules, not in seconds. What is loaded for nothing is found here, by name.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.inside import Inside

NEVER = {
    *("requests", "urllib3", "cattrs", "sqlite_utils", "tabulate", "dateutil", "jsonschema", "flask", "sqlalchemy"),
    *("asyncio", "email", "http", "importlib.metadata", "logging.config", "socket", "ssl", "subprocess", "tomllib"),
    *("typing_extensions", "urllib.request", "hashlib", "difflib", "concurrent.futures.thread", "multiprocessing"),
    *("orchclient.delivery.http", "orchclient.delivery.runner", "orchclient.delivery.worker", "orchclient.sinks"),
    *("orchclient.core.policy", "orchclient.core.http", "orchclient.outbox.salvage", "orchclient.aio"),
}
"""What no command loads that only tells or looks, without a destination and a settings file."""

LOOKING = {
    *("orchclient.outbox.outbox", "orchclient.outbox.store", "orchclient.outbox.writer", "orchclient.outbox.inbox"),
    *("orchclient.client", "orchclient.station", "orchclient.core.redaction", "orchclient.core.reminders"),
}
"""What only those need who record or deliver."""

CASES: dict[str, tuple[tuple[str, ...], set[str], int]] = {
    "--help": (("--help",), {"attrs", "sqlite3", "pathlib", "orchclient.config"}, 8),
    "status": (("status",), {*LOOKING, "orchclient.outbox.desk", "orchclient.outbox.requests"}, 52),
    "list": (("list",), LOOKING, 60),
    "update": (("update", "t"), set(), 115),
}
"""What is typed, what it does not load beside the above, and how many modules of ours it loads, with a few to spare."""


def loaded(words: tuple[str, ...], environment: dict[str, str]) -> set[str]:
    program = "import sys; from orchclient.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("name", CASES)
def test_a_command_loads_what_it_needs_and_no_more(outbox_path: Path, name: str) -> None:
    words, not_needed, most = CASES[name]
    Inside(outbox_path)("update", "t")
    environment = {"ORCHCLIENT_DB": str(outbox_path), "HOME": str(outbox_path.parent), "PYTHONPATH": ":".join(sys.path)}
    modules = loaded(words, environment)
    assert modules & (NEVER | not_needed) == set()
    ours = {each for each in modules if each.partition(".")[0] == "orchclient"}
    assert len(ours) <= most, sorted(ours)


def test_what_is_loaded_for_nothing_would_be_found(outbox_path: Path) -> None:
    environment = {"ORCHCLIENT_DB": str(outbox_path), "PYTHONPATH": ":".join(sys.path)}
    assert loaded(("doctor",), environment) & NEVER
