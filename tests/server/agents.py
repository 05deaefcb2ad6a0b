"""Agents in processes of their own that deliver into a database: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from orchclient import OrchestratorClient
from orchclient.server.destination import DatabaseSink
from tests.server.servers import START_S
from tests.sinks import lives
from tests.sinks.lives import WAIT_S, DiesAt, SaysSoTooEarly, record_and_deliver

_FORKS = multiprocessing.get_context("forkserver")


class Fatal(DiesAt, DatabaseSink):
    def __init__(self, db: str, at: int, *, after_commit: bool) -> None:
        super().__init__(db)
        self.dies_at, self.after = at, after_commit


class Early(SaysSoTooEarly, DatabaseSink):
    def __init__(self, db: str, at: int) -> None:
        super().__init__(db)
        self.lies_at = at


def run(target: Any, *arguments: Any) -> BaseProcess:
    """Start a process."""
    process = _FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def ended(processes: Sequence[BaseProcess]) -> list[int | None]:
    """Wait for their ends; how they ended."""
    for process in processes:
        process.join(WAIT_S + START_S)
    return [process.exitcode for process in processes]


def killed_agent(outbox: str, db: str, at: int, after_commit: bool, events: int) -> None:
    record_and_deliver(outbox, Fatal(db, at, after_commit=after_commit), events)


def early_agent(outbox: str, db: str, at: int) -> None:
    record_and_deliver(outbox, Early(db, at), 30)


def whole_agent(outbox: str, db: str, events: int, task: str) -> None:
    record_and_deliver(outbox, DatabaseSink(db), events, task, task)


def forking_agent(outbox: str, db: str) -> None:
    """The parent delivers, and goes on delivering, while children record and end."""
    with OrchestratorClient(
        "parent", outbox=outbox, sinks=[DatabaseSink(db)], reminders="off", heartbeat="off"
    ) as client:
        for number in range(5):
            client.update_task_status("parents", "in_progress", {"n": number})
            pid = os.fork()
            if pid == 0:
                client.update_task_status("childs", "in_progress", {"n": number})
                os._exit(0 if client.flush(WAIT_S) else 1)
            client.update_task_status("parents", "testing", {"n": number})
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert client.flush(WAIT_S)


def heir(outbox: str, db: str) -> None:
    lives.heir(outbox, DatabaseSink(db))
