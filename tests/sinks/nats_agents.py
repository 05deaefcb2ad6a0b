"""Agents in processes of their own that deliver to NATS, and die while they do."""

from __future__ import annotations

import os
import signal
from typing import Any

from orchclient import OrchestratorClient
from orchclient.core.batch import Batch
from orchclient.core.policy import Verdict, all_delivered
from orchclient.sinks.nats import NatsSink, access_of

WAIT_S = 60.0


def sink_of(url: str, **more: Any) -> NatsSink:
    return NatsSink(access_of("test", url), **more)


class Fatal(NatsSink):
    """Kills its process at the n-th batch, before it is published or between that and the settling."""

    def __init__(self, url: str, at: int, *, after: bool) -> None:
        super().__init__(access_of("test", url))
        self.left, self.after = at, after

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        self.left -= 1
        if self.left == 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        verdict = super().deliver(batch, deadline_s=deadline_s)
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return verdict


class TooEarly(NatsSink):
    """The planted bug: one batch counts as delivered, and the process is gone before it is published."""

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 2:
            return all_delivered(batch.ids)
        return super().deliver(batch, deadline_s=deadline_s)


def record(outbox: str, sink: NatsSink, events: int) -> None:
    with OrchestratorClient("agent", outbox=outbox, sinks=[sink], reminders="off") as client:
        for number in range(events):
            client.update_task_status(f"task-{number % 3}", "in_progress", {"n": number})
            if number % 7 == 6:
                client.flush(WAIT_S)
        assert client.flush(WAIT_S)


def killed(outbox: str, url: str, at: int, after: bool) -> None:
    record(outbox, Fatal(url, at, after=after), 30)


def too_early(outbox: str, url: str) -> None:
    record(outbox, TooEarly(access_of("test", url)), 30)


def whole(outbox: str, url: str, events: int) -> None:
    record(outbox, sink_of(url), events)


def forking(outbox: str, url: str) -> None:
    """A child delivers by itself, once its parent has closed: over a connection of its own."""
    client = OrchestratorClient("parent", outbox=outbox, sinks=[sink_of(url)], reminders="off")
    client.update_task_status("task", "in_progress", {"n": 1})
    assert client.flush(WAIT_S)
    begun, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(begun, 1)
        client.update_task_status("task", "in_progress", {"n": 2})
        os._exit(0 if client.flush(WAIT_S) else 1)
    client.update_task_status("task", "in_progress", {"n": 3})
    assert client.flush(WAIT_S)  # its connection is as good as before
    client.close()
    os.write(go, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
