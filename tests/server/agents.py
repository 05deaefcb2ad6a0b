"""Agents in processes of their own that deliver into a database: forked from one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from orchclient import OrchestratorClient
from orchclient.core.batch import Batch
from orchclient.core.policy import Verdict
from orchclient.server.destination import DatabaseSink
from tests.server.servers import START_S

_FORKS = multiprocessing.get_context("forkserver")
WAIT_S = 60.0


class Fatal(DatabaseSink):
    """Kills its process at the n-th batch: before it is stored, or between the commit and the settling."""

    def __init__(self, db: str, at: int, *, after_commit: bool) -> None:
        super().__init__(db)
        self._left, self._after_commit = at, after_commit

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        self._left -= 1
        if self._left == 0 and not self._after_commit:
            os.kill(os.getpid(), signal.SIGKILL)
        verdict = super().deliver(batch, deadline_s=deadline_s)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return verdict


class SaysSoTooEarly(DatabaseSink):
    """The planted bug: a batch counts as delivered before it is committed. Dies at the n-th."""

    def __init__(self, db: str, at: int) -> None:
        super().__init__(db)
        self._left = at

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        from orchclient.core.policy import all_delivered

        self._left -= 1
        if self._left == 0:
            return all_delivered(batch.ids)  # and the process dies before the commit
        return super().deliver(batch, deadline_s=deadline_s)


def agent(outbox: str, sink: Any, events: int, task: str = "task") -> None:
    """Record so many events and deliver them all, with whatever was left by an earlier life."""
    with OrchestratorClient(task, outbox=outbox, sinks=[sink], reminders="off") as client:
        for number in range(events):
            client.update_task_status(f"{task}-{number % 3}", "in_progress", {"n": number})
            if number % 7 == 6:
                client.flush(WAIT_S)
        assert client.flush(WAIT_S)


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
    agent(outbox, Fatal(db, at, after_commit=after_commit), events)


def early_agent(outbox: str, db: str, at: int) -> None:
    agent(outbox, SaysSoTooEarly(db, at), 30)


def whole_agent(outbox: str, db: str, events: int, task: str) -> None:
    agent(outbox, DatabaseSink(db), events, task)


def forking_agent(outbox: str, db: str) -> None:
    """The parent delivers, and goes on delivering, while children record and end."""
    with OrchestratorClient("parent", outbox=outbox, sinks=[DatabaseSink(db)], reminders="off") as client:
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
    """The child delivers by itself, once its parent has closed: with a connection of its own."""
    client = OrchestratorClient("parent", outbox=outbox, sinks=[DatabaseSink(db)], reminders="off")
    client.update_task_status("task", "in_progress", {"n": 1})
    assert client.flush(WAIT_S)
    begun, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(begun, 1)
        client.update_task_status("task", "in_progress", {"n": 2})
        os._exit(0 if client.flush(WAIT_S) else 1)
    client.close()
    os.write(go, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
