"""The thread that polls: how soon an item arrives, what ends it, and that it leaves the delivery of events alone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.delivery.transport import HttpTransport
from orchclient.outbox import leadership
from orchclient.outbox.leadership import Holder
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing import ACK_PATH, INBOX_PATH, Fault, Receiver
from tests.delivery.inbox_bench import kept, open_question, outbox_of, stored_ids
from tests.stopwatch import Stopwatch

LONG = 10.0
SOON = 2.0
"""What must not take the length of a poll; in fact some milliseconds."""


@pytest.fixture
def client(outbox_path: Path, receiver: Receiver) -> Iterator[OrchestratorClient]:
    with client_of(outbox_path, receiver) as client:
        yield client


def client_of(outbox: Path, receiver: Receiver) -> OrchestratorClient:
    return OrchestratorClient("me", outbox=outbox, sinks=[OrchestratorSink(receiver.url, lambda: None)])


def inbox_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.endswith("-inbox")]


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + LONG
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def polls(receiver: Receiver) -> int:
    return sum(request.path == INBOX_PATH for request in receiver.requests)


class TestArriving:
    def test_an_item_is_stored_and_acknowledged_while_a_poll_is_held(
        self, client: OrchestratorClient, receiver: Receiver
    ) -> None:
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        item = receiver.message("task-1", "mind the gap")
        assert eventually(lambda: item["id"] in stored_ids(client))
        assert receiver.wait_for(lambda r: not r.inbox, LONG)

    def test_a_question_of_a_process_that_does_not_deliver_is_polled_for(
        self, client: OrchestratorClient, receiver: Receiver, outbox_path: Path
    ) -> None:
        client.update_task_status("task-1", "in_progress")
        assert receiver.wait_for(1, LONG)
        with client_of(outbox_path, receiver) as other:
            open_question(other)
            assert receiver.wait_for_requests(1, LONG, INBOX_PATH)

    def test_a_hint_in_a_reply_to_a_batch_is_followed(self, client: OrchestratorClient, receiver: Receiver) -> None:
        client.update_task_status("task-1", "in_progress")
        assert receiver.wait_for(1, LONG)
        item = receiver.cancel("task-1", "superseded")
        client.update_task_status("task-1", "testing")
        assert eventually(lambda: item["id"] in stored_ids(client))

    def test_nothing_is_asked_while_nothing_is_open(self, client: OrchestratorClient, receiver: Receiver) -> None:
        for percent in range(20):
            client.update_task_status("task-1", "in_progress", progress_percentage=percent)
        assert client.flush(LONG)
        assert polls(receiver) == 0

    def test_the_next_process_goes_on_at_once(self, receiver: Receiver, outbox_path: Path) -> None:
        with client_of(outbox_path, receiver) as first:
            open_question(first)
            assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        item = receiver.message("task-1", "while nobody was there")
        with client_of(outbox_path, receiver) as second:
            second.update_task_status("task-1", "in_progress")
            assert eventually(lambda: item["id"] in stored_ids(second))

    def test_polling_goes_on_when_the_files_were_replaced(
        self, client: OrchestratorClient, receiver: Receiver, outbox_path: Path
    ) -> None:
        question = open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        for file in outbox_path.parent.glob("outbox.db*"):
            if file.suffix in (".db", ".db-wal", ".db-shm"):
                file.unlink()
        client.update_task_status("task-1", "in_progress")
        receiver.message("task-1", "ends the poll under the old epoch")
        receiver.answer(question, "yes")
        assert eventually(lambda: "accepted" in [item.verdict for item in kept(client)])

    def test_polling_goes_on_under_a_new_epoch_when_the_old_one_is_over(
        self, client: OrchestratorClient, receiver: Receiver
    ) -> None:
        """Nothing is recorded meanwhile, so that only the poller can notice."""
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        assert client.flush(LONG)
        outbox_of(client).write(lambda con: leadership.begin_epoch(con, "orchestrator", Holder(1, "host", "other", 0)))
        item = receiver.message("task-1", "ends the poll under the old epoch")
        assert eventually(lambda: item["id"] in stored_ids(client))


class TestEnding:
    def test_closing_cuts_a_poll_at_once(self, client: OrchestratorClient, receiver: Receiver) -> None:
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        with Stopwatch() as took:
            client.close()
        assert took.s < SOON
        assert inbox_threads() == []

    def test_removing_a_destination_ends_its_polls(self, client: OrchestratorClient, receiver: Receiver) -> None:
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        with Stopwatch() as took:
            client.remove_sink("orchestrator")
        assert took.s < SOON
        assert inbox_threads() == []

    def test_without_background_the_threads_end_with_the_flush(self, receiver: Receiver, outbox_path: Path) -> None:
        sinks = [OrchestratorSink(receiver.url, lambda: None)]
        with OrchestratorClient("me", outbox=outbox_path, sinks=sinks, background=False) as client:
            open_question(client)
            assert client.flush(LONG)
            assert inbox_threads() == []

    def test_a_forked_child_leaves_the_poll_to_its_parent(self, client: OrchestratorClient, receiver: Receiver) -> None:
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        pid = os.fork()
        if not pid:
            os._exit(len(inbox_threads()))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        item = receiver.message("task-1", "to the parent")
        assert eventually(lambda: item["id"] in stored_ids(client))


class TestNeighbours:
    def test_an_inbox_in_trouble_does_not_touch_the_events(
        self, client: OrchestratorClient, receiver: Receiver
    ) -> None:
        receiver.always(Fault.status(403), on=INBOX_PATH)
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        client.update_task_status("task-1", "in_progress")
        assert receiver.wait_for(2, LONG)
        assert client.health().sinks[0].state == "delivering"

    def test_a_flush_by_hand_tries_an_inbox_that_was_refused_again(
        self, client: OrchestratorClient, receiver: Receiver
    ) -> None:
        receiver.plan(Fault.status(403), on=INBOX_PATH)
        question = open_question(client)
        assert receiver.wait_for(lambda r: any(s.path == INBOX_PATH and s.status == 403 for s in r.requests), LONG)
        receiver.answer(question, "yes")
        client.flush(LONG)
        assert eventually(lambda: len(stored_ids(client)) == 1)

    def test_events_in_trouble_do_not_touch_the_inbox(self, client: OrchestratorClient, receiver: Receiver) -> None:
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        receiver.always(Fault.status(503))
        client.update_task_status("task-1", "in_progress")
        item = receiver.message("task-1", "still here")
        assert eventually(lambda: item["id"] in stored_ids(client))

    def test_an_acknowledgement_that_hangs_does_not_hold_up_the_end(
        self, client: OrchestratorClient, receiver: Receiver
    ) -> None:
        receiver.always(Fault.hang(), on=ACK_PATH)
        open_question(client)
        assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
        receiver.message("task-1", "hello")
        assert receiver.wait_for_requests(1, LONG, ACK_PATH)
        with Stopwatch() as took:
            client.close()
        assert took.s < SOON


def test_a_transport_that_cannot_be_made_a_second_time_is_told_and_leaves_the_events_alone(
    receiver: Receiver, outbox_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[HttpTransport] = []

    def make() -> HttpTransport:
        if threading.current_thread().name.endswith("-inbox"):
            raise RuntimeError("one is enough")
        made.append(HttpTransport())
        return made[-1]

    sinks = [OrchestratorSink(receiver.url, lambda: None)]
    with OrchestratorClient("me", outbox=outbox_path, sinks=sinks, transport=make) as client:
        open_question(client)
        assert client.flush(LONG)
        assert eventually(lambda: "its inbox is not polled" in caplog.text)


def test_the_connection_of_a_held_poll_is_not_the_one_that_delivers(
    client: OrchestratorClient, receiver: Receiver
) -> None:
    open_question(client)
    assert receiver.wait_for_requests(1, LONG, INBOX_PATH)
    for percent in range(5):
        client.update_task_status("task-1", "in_progress", progress_percentage=percent)
    assert receiver.wait_for(6, SOON)
