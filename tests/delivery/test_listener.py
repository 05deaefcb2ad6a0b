"""What people say reaches the agent's own callbacks: once, in order, whoever stored it, and only what is for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.core.judging import ItemVerdict
from orchclient.outbox import inbox
from orchclient.outbox.inbox import Received
from orchclient.testing.receiver import Receiver
from tests.conftest import MakeClient

LONG = 20.0
Heard = SimpleQueue[Received]


def heard(queue: Heard) -> Received:
    return queue.get(timeout=LONG)


def store(client: OrchestratorClient, text: str, *, id_: str, task: str = "t") -> None:
    """What another process of the host does that polls."""
    item = {
        "specversion": "1.0",
        "id": id_,
        "source": "https://orchestrator.example/",
        "type": "dev.orchclient.task.message.v1",
        "subject": task,
        "time": "2026-11-26T03:00:00Z",
        "data": {
            "task_id": task,
            "text": text,
            "sent_by": {"kind": "human", "id": "u"},
            "sent_at": "2026-11-26T03:00:00Z",
        },
    }
    client._station.write(lambda con: inbox.keep(con, item, 2**52))  # type: ignore[union-attr]


@pytest.fixture
def make_listening(make_client: MakeClient) -> Callable[..., tuple[OrchestratorClient, Heard]]:
    def make(agent: str = "agent-1", **settings: Any) -> tuple[OrchestratorClient, Heard]:
        queue: Heard = SimpleQueue()
        hears = dict.fromkeys(("on_answer", "on_cancel", "on_message"), queue.put)
        return make_client(agent, **{**hears, "sinks": [], **settings}), queue

    return make


MakeListening = Callable[..., tuple[OrchestratorClient, Heard]]


def test_an_answer_a_word_and_a_wish_to_stop_are_told_with_who_said_it(
    make_listening: MakeListening, receiver: Receiver
) -> None:
    client, queue = make_listening(url=receiver.url, sinks=None)
    question = client.request_clarification("t", "Which colour?", options=["red", "blue"])
    receiver.answer(question, "red", by="ada")
    answer = heard(queue)
    assert (answer.verdict, answer.request) == (ItemVerdict.ACCEPTED, question.id)
    assert answer.data["responder"]["id"] == "ada"
    assert question.state == "answered"
    client.request_clarification("t", "Which size?")  # something is open, so it is polled
    receiver.message("t", "mind the gap")
    receiver.cancel("t", "superseded")
    assert [heard(queue).data.get("text"), heard(queue).data.get("reason")] == ["mind the gap", "superseded"]


def test_what_another_process_stored_is_told_once_and_in_order(make_listening: MakeListening) -> None:
    client, queue = make_listening()
    client.update_task_status("t", "in_progress")
    for number in range(250):
        store(client, f"word {number}", id_=f"m-{number}")
        store(client, f"word {number}", id_=f"m-{number}")
    assert [heard(queue).data["text"] for _ in range(250)] == [f"word {number}" for number in range(250)]
    assert queue.empty()


def test_only_what_is_for_this_agent_is_told(make_listening: MakeListening, receiver: Receiver) -> None:
    mine, queue = make_listening("mine", url=receiver.url, sinks=None)
    other, theirs = make_listening("other", url=receiver.url, sinks=None)
    questions = [each.request_clarification(f"of {each.agent_id}", "Go?") for each in (mine, other)]
    for question in questions:
        receiver.answer(question, "yes")
    assert heard(queue).request == questions[0].id
    assert heard(theirs).request == questions[1].id
    store(mine, "for the other", id_="1", task="of other")
    store(mine, "for me", id_="2", task="of mine")
    assert heard(queue).data["text"] == "for me"
    assert heard(theirs).data["text"] == "for the other"
    assert queue.empty()
    assert theirs.empty()


def test_a_callback_that_raises_is_logged_and_the_next_item_is_told(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    queue: Heard = SimpleQueue()

    def once(item: Received) -> None:
        queue.put(item)
        if item.id == "1":
            raise RuntimeError("not now")

    client = make_client(sinks=[], on_message=once)
    client.update_task_status("t", "in_progress")
    store(client, "a", id_="1")
    store(client, "b", id_="2")
    assert [heard(queue).id, heard(queue).id] == ["1", "2"]
    assert "raised for item 1" in caplog.text


def test_what_came_before_the_client_is_not_told(make_client: MakeClient, make_listening: MakeListening) -> None:
    store(make_client(sinks=[]), "early", id_="early")
    client, queue = make_listening()
    client.update_task_status("t", "in_progress")
    store(client, "new", id_="new")
    assert heard(queue).id == "new"


def test_when_the_files_were_replaced_nothing_is_told_twice_and_nothing_new_is_missed(
    make_listening: MakeListening, outbox_path: Path
) -> None:
    client, queue = make_listening()
    client.update_task_status("t", "in_progress")
    store(client, "a", id_="1")
    store(client, "b", id_="2")
    assert [heard(queue).id, heard(queue).id] == ["1", "2"]
    for file in outbox_path.parent.glob("outbox.db*"):
        file.unlink()
    client.update_task_status("t", "testing")
    store(client, "c", id_="3")
    assert heard(queue).id == "3"
    assert queue.empty()


def test_without_a_callback_there_is_no_thread_and_no_look(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "last_n", lambda con: 1 / 0)
    client = make_client(sinks=[])
    client.update_task_status("t", "in_progress")
    assert "orchclient-listener" not in {thread.name for thread in threading.enumerate()}


def test_a_close_waits_for_no_callback_that_hangs(make_client: MakeClient) -> None:
    release, entered = threading.Event(), threading.Event()

    def hang(item: Received) -> None:
        entered.set()
        release.wait(60)

    client = make_client(sinks=[], on_message=hang)
    client.update_task_status("t", "in_progress")
    store(client, "a", id_="1")
    assert entered.wait(LONG)
    client.close(0)
    release.set()
