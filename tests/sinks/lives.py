"""Lives of agents that deliver by a wire of their own: whole, cut short (``class Fatal(DiesAt, Sink)``), forked."""

from __future__ import annotations

import os
import signal
from typing import Any

from orchclient import OrchestratorClient
from orchclient.core.batch import Batch
from orchclient.core.policy import Verdict, all_delivered

WAIT_S = 60.0


class DiesAt:
    """Kills its process at batch ``dies_at``: before it is stored, or between that and the settling."""

    dies_at: int
    after: bool

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        self.dies_at -= 1
        if self.dies_at == 0 and not self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        verdict: Verdict = super().deliver(batch, deadline_s=deadline_s)  # type: ignore[misc]
        if self.dies_at == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return verdict


class SaysSoTooEarly:
    """The planted bug: batch ``lies_at`` counts as delivered, and the process is gone before it is stored."""

    lies_at: int

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        self.lies_at -= 1
        if self.lies_at == 0:
            return all_delivered(batch.ids)
        verdict: Verdict = super().deliver(batch, deadline_s=deadline_s)  # type: ignore[misc]
        return verdict


def record_and_deliver(outbox: str, sink: Any, events: int, agent: str = "agent", task: str = "task") -> None:
    """Record so many events of three tasks and deliver them all, with whatever was left by an earlier life."""
    with OrchestratorClient(agent, outbox=outbox, sinks=[sink], reminders="off", heartbeat="off") as client:
        for number in range(events):
            client.update_task_status(f"{task}-{number % 3}", "in_progress", {"n": number})
            if number % 7 == 6:
                client.flush(WAIT_S)
        assert client.flush(WAIT_S)


def heir(outbox: str, sink: Any) -> None:
    """A child delivers by itself, once its parent has closed: over a connection of its own."""
    client = OrchestratorClient("parent", outbox=outbox, sinks=[sink], reminders="off", heartbeat="off")
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
