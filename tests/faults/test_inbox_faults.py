"""The way back on a bad network, and in a process that is killed between storing a page and acknowledging it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.testing import ACK_PATH, INBOX_PATH, Fault, Receiver
from tests.delivery.inbox_bench import kept, stored_ids

LONG = 20.0

AGENT = """
import sys, time
from orchclient import OrchestratorClient
client = OrchestratorClient("me", outbox=sys.argv[1], url=sys.argv[2])
print(client.request_clarification("task-1", "Ship it?", key="ship").id, flush=True)
time.sleep(60)
"""

PASSING = {
    "no answer, reset": Fault.lose_reply(),
    "no answer, ended": Fault.lose_reply(reset=False),
    "a dripping answer": Fault.drip(0.0005),
    "no HTTP": Fault.garbage(),
    "a bomb": Fault.gzip_bomb(),
    "a huge body": Fault.huge_body(1),
    "headers without end": Fault.endless_headers(),
    "a captive portal": Fault.not_json(),
    "an empty answer": Fault.empty_ok(),
    "an outage": Fault.status(503),
    "too many requests": Fault.status(429, retry_after="1"),
    "silence for a moment": Fault.hang(0.2),
}
LASTING = {
    "no inbox": (Fault.status(404), "absent"),
    "refused": (Fault.status(403), "paused"),
    "elsewhere": (Fault.redirect("https://x.test/"), "paused"),
}


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + LONG
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


BELIEVED = {"a captive portal", "an empty answer"}
"""A 2xx to an acknowledgement: the contract has it that its body is not read. The next one makes up for it."""


@pytest.mark.parametrize(
    ("path", "name"),
    [*((INBOX_PATH, name) for name in PASSING), *((ACK_PATH, name) for name in PASSING if name not in BELIEVED)],
)
def test_after_a_fault_that_passes_the_answer_is_there_once(
    outbox_path: Path, receiver: Receiver, path: str, name: str
) -> None:
    receiver.plan(PASSING[name], on=path)
    receiver.answer_each("yes")
    with OrchestratorClient("me", outbox=outbox_path, url=receiver.url) as client:
        client.request_clarification("task-1", "Ship it?")
        assert eventually(lambda: len(stored_ids(client)) == 1)
        assert receiver.wait_for(lambda r: not r.inbox, LONG)
        client.update_task_status("task-1", "in_progress")
        assert client.flush(LONG)
        assert [item.verdict.value for item in kept(client)] == ["accepted"]


@pytest.mark.parametrize(("fault", "state"), list(LASTING.values()), ids=LASTING)
def test_a_fault_that_lasts_is_told_and_leaves_the_events_alone(
    outbox_path: Path, receiver: Receiver, fault: Fault, state: str
) -> None:
    receiver.always(fault, on=INBOX_PATH)
    with OrchestratorClient("me", outbox=outbox_path, url=receiver.url) as client:
        client.request_clarification("task-1", "Ship it?")

        def told() -> bool:
            inbox = client.health().sinks[0].inbox if client.health().sinks else None
            return inbox is not None and inbox.state == state

        assert eventually(told)
        client.update_task_status("task-1", "in_progress")
        assert client.flush(LONG)
        assert client.health().sinks[0].state == "delivering"
        assert client.health().open_requests == 1
        assert sum(request.path == INBOX_PATH for request in receiver.requests) == 1


def test_killed_between_storing_and_acknowledging_it_only_repeats(outbox_path: Path, receiver: Receiver) -> None:
    receiver.always(Fault.hang(), on=ACK_PATH)
    command = [sys.executable, "-c", AGENT, str(outbox_path), receiver.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        question = agent.stdout.readline().strip()
        receiver.answer(question, "yes")
        assert receiver.wait_for_requests(1, LONG, ACK_PATH)
        agent.send_signal(signal.SIGKILL)
    receiver.heal()
    assert len(receiver.inbox) == 1
    with OrchestratorClient("me", outbox=outbox_path, url=receiver.url) as client:
        assert [item.verdict.value for item in kept(client)] == ["accepted"]
        again = receiver.message("task-1", "after the crash")
        client.update_task_status("task-1", "in_progress")  # its reply says that items wait
        assert eventually(lambda: again["id"] in stored_ids(client))
        assert receiver.wait_for(lambda r: not r.inbox, LONG)
        assert len(kept(client)) == 2
        assert client.request_clarification("task-1", "Ship it?", key="ship").id == question
