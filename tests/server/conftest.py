"""Fixtures of the orchestrator's tests: a database of each kind, and an orchestrator over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchclient.server.orchestrator import Orchestrator
from tests.server.postgres import Postgres, binaries, running_postgres

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that runs for all tests of this process."""
    found = binaries()
    if found is None:
        pytest.skip("no PostgreSQL on this machine: install the package postgresql to run these tests")
    with running_postgres(found) as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    return str(request.param)


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if kind == "sqlite":
        return str(tmp_path / "orchestrator.db")
    server: Postgres = request.getfixturevalue("postgres")
    return server.url()


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_us = 1_795_000_000_000_000

    def __call__(self) -> int:
        self.now_us += 1  # no two instants are the same
        return self.now_us

    def pass_(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


MakeOrchestrator = Callable[[], Orchestrator]


@pytest.fixture
def make_orchestrator(database: str, clock: Clock) -> Iterator[MakeOrchestrator]:
    """Opens the test's database; each call is like another process."""
    made: list[Orchestrator] = []

    def make() -> Orchestrator:
        made.append(Orchestrator.open(database, now_us=clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def orchestrator(make_orchestrator: MakeOrchestrator) -> Orchestrator:
    """An orchestrator over an empty database."""
    return make_orchestrator()
