"""Fixtures of all tests: a private outbox, a receiver on loopback, clients that are closed, a clean environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.testing.receiver import Receiver

MakeClient = Callable[..., OrchestratorClient]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background job. What is ignored stays so in every program that is started, and some tests start
    # one to interrupt it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No setting of the person who runs the tests reaches them, and none of theirs reaches the person."""
    for name in os.environ:
        if name.startswith("ORCHCLIENT_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(home))


@pytest.fixture
def outbox_path(tmp_path: Path) -> Path:
    """Where an outbox may be made."""
    return tmp_path / "outbox.db"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An orchestrator on loopback, up."""
    with Receiver() as running:
        yield running


@pytest.fixture
def make_client(outbox_path: Path) -> Iterator[MakeClient]:
    """Makes clients on the test's outbox and closes them."""
    made: list[OrchestratorClient] = []

    def make(agent_id: str = "agent-1", **settings: Any) -> OrchestratorClient:
        settings.setdefault("outbox", outbox_path)
        client = OrchestratorClient(agent_id, **settings)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close(0)
