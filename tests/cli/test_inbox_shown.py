"""How the way back fares, as the operator sees it: in ``status``, ``status --check`` and ``doctor``."""

from __future__ import annotations

import time
from pathlib import Path

from orchclient import OrchestratorClient
from orchclient.testing import INBOX_PATH, Fault, Receiver
from tests.cli.command import Command

LONG = 20.0


def troubled(outbox: Path, receiver: Receiver) -> None:
    """An agent asked, got an item that cannot be read, and is refused the inbox from then on."""
    with OrchestratorClient("me", outbox=outbox, url=receiver.url) as client:
        client.request_clarification("task-1", "Ship it?")
        receiver.put_unreadable()
        assert receiver.wait_for(lambda r: bool(r.said) and not r.inbox, LONG)
        receiver.always(Fault.status(403), on=INBOX_PATH)
        receiver.message("task-1", "ends the poll that is held")
        until = time.monotonic() + LONG
        while time.monotonic() < until:
            inbox = client.health().sinks[0].inbox
            if inbox and inbox.state == "paused":
                return
            time.sleep(0.01)
    raise AssertionError("the inbox was never paused")


def test_an_inbox_that_is_refused_is_shown_and_a_probe_hears_of_it(outbox_path: Path, receiver: Receiver) -> None:
    troubled(outbox_path, receiver)
    command = Command(outbox_path, receiver.url)
    status = command.json("status")
    (sink,) = status["sinks"]
    assert (sink["state"], sink["inbox"]["state"]) == ("delivering", "paused")
    assert (status["open_requests"], status["unreadable_items"]) == (1, 1)
    told = command("status").out
    for line in (
        "Waiting for a person: 1 request",
        "cannot be read and count for nothing: 1",
        "inbox of orchestrator is paused: HTTP 403",
    ):
        assert line in told
    check = command.json("status", "--check")
    assert [finding["code"] for finding in check["findings"]] == ["inbox"]
    doctor = command("doctor").out
    assert "orchestrator: inbox paused: HTTP 403" in doctor
    assert "break their schema and count for nothing: 1" in doctor
