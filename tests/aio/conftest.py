"""Asynchronous clients on the test's outbox, and a lock that keeps the file from everybody."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchclient.aio import OrchestratorClient

MakeAio = Callable[..., OrchestratorClient]


@pytest.fixture
def make_aio(outbox_path: Path) -> Iterator[MakeAio]:
    """Makes asynchronous clients on the test's outbox and closes them."""
    made: list[OrchestratorClient] = []

    def make(agent_id: str = "agent-1", **settings: Any) -> OrchestratorClient:
        settings.setdefault("outbox", outbox_path)
        made.append(OrchestratorClient(agent_id, **settings))
        return made[-1]

    yield make
    for client in made:
        asyncio.run(client.close(0))


class Lock:
    """Another program that keeps the outbox, once it is there, from everybody who writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._con: sqlite3.Connection | None = None

    def take(self) -> None:
        self._con = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._con.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        if self._con is not None:
            self._con.close()
            self._con = None


@pytest.fixture
def lock(outbox_path: Path) -> Iterator[Lock]:
    """Keeps the outbox from everybody else while it is taken."""
    lock = Lock(outbox_path)
    yield lock
    lock.release()
