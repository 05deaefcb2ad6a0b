"""Servers in processes of their own that start in milliseconds: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from multiprocessing.process import BaseProcess
from typing import Any

from attrs import define, field

from orchclient.server.reading import BATCH_TYPE
from tests.server.events import Event, body_of
from tests.stopwatch import Stopwatch

START_S = 60
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["orchclient.server.serving", "sqlalchemy.dialects.sqlite", "psycopg", "alembic.command"])

Plant = Callable[[], None]


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@define
class Served:
    """A server that runs in a process of its own, can be killed at any moment, and started again on the same port."""

    db: str
    port: int = field(factory=free_port)
    plant: Plant | None = None
    _process: BaseProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Served:
        process = _FORKS.Process(target=_serve, args=(self.db, self.port, self.plant), daemon=True)
        process.start()
        self._process = process
        _await(self.port)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.join(START_S)

    def stop(self) -> float:
        """SIGTERM; how many seconds the end took."""
        assert self._process is not None
        assert self._process.pid is not None
        with Stopwatch() as took:
            os.kill(self._process.pid, signal.SIGTERM)
            self._process.join(START_S)
        assert self._process.exitcode == 0
        return took.s

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _serve(db: str, port: int, plant: Plant | None) -> None:
    from orchclient.server.orchestrator import Orchestrator
    from orchclient.server.serving import Listening, Server

    if plant is not None:
        plant()
    orchestrator = Orchestrator.open(db)
    server = Server(orchestrator, Listening(port=port))
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    server.run()
    orchestrator.close()


def _await(port: int) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.005)


def answer_before_the_commit() -> None:
    """The planted bug: a batch is answered, and committed a moment later."""
    from orchclient.server import orchestrator
    from orchclient.server.ingest import Result, Taken

    real = orchestrator.Orchestrator.ingest

    def ingest(self: Any, batch: Sequence[Any], owner: str | None = None) -> Taken:
        def later() -> None:
            time.sleep(0.02)
            real(self, batch, owner)

        threading.Thread(target=later, daemon=True).start()
        return Taken([Result(event.id, "accepted") for event in batch])

    orchestrator.Orchestrator.ingest = ingest  # type: ignore[method-assign]


def posted(port: int, events: list[Event], timeout: float = 30) -> dict[str, str]:
    """The status of each event; raises ``OSError`` or ``HTTPException`` when no answer came."""
    import json

    with closing(HTTPConnection("127.0.0.1", port, timeout=timeout)) as connection:
        connection.request("POST", "/v1/events", body_of(events), {"Content-Type": BATCH_TYPE})
        reply = connection.getresponse()
        text = reply.read()
    if reply.status >= 500:
        raise HTTPException(f"{reply.status}: {text!r}")
    assert reply.status == 200, text
    return {result["id"]: result["status"] for result in json.loads(text)["results"]}
