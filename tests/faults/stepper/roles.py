"""The two processes of the race: one records through the real client, one checkpoints with the real store.

Run as ``python -m tests.faults.stepper.roles ADDRESS gated|ungated``; takes orders through a socket, one at a time.
``ungated`` is the negative control: neither commits nor checkpoints take the lock of the gate.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

from orchclient import OrchestratorClient
from orchclient.outbox import gate
from orchclient.outbox.store import Origin, Store

PADDING = "x" * 600  # a few events a page, as real ones have


class Recorder:
    """Records events on one outbox after another and tells the ids that were acknowledged."""

    def __init__(self) -> None:
        self._client: OrchestratorClient | None = None

    def open(self, path: str) -> None:
        self._client = OrchestratorClient("race", outbox=path, mode="offline", background=False)

    def record(self, count: int) -> list[str]:
        assert self._client is not None
        verb = self._client.update_task_status
        return [verb("task", "testing", {"padding": PADDING}, number).event_id for number in range(count)]

    def checkpoint(self, wait: bool) -> bool:
        assert self._client is not None
        outbox: Any = self._client._station._outbox  # type: ignore[union-attr]
        held: bool = outbox._store.checkpoint(wait=wait)
        return held

    def close(self) -> None:
        if self._client is not None:
            self._client.close(0)


class Checkpointer:
    """Checkpoints one outbox after another."""

    def __init__(self) -> None:
        self._store: Store | None = None

    def open(self, path: str) -> None:
        self._store = Store(Origin(Path(path), lambda: str(uuid.uuid4()), lambda: time.time_ns() // 1000))
        self._store.open()

    def checkpoint(self, wait: bool) -> bool:
        assert self._store is not None
        return self._store.checkpoint(wait=wait)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


ROLES: dict[str, Callable[[], Any]] = {"recorder": Recorder, "checkpointer": Checkpointer}


def main(address: str, role: str, is_gated: bool) -> None:
    """Do what is asked until nobody asks any more. The answer is the result, or the exception that came instead."""
    if not is_gated:
        gate.flock = lambda fd, operation: None
    me = ROLES[role]()
    with Client(address) as line:
        while True:
            try:
                verb, arguments = line.recv()
            except EOFError:
                return
            try:
                answer = getattr(me, verb)(*arguments)
            except Exception as error:
                answer = error
            line.send(answer)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] == "gated")
