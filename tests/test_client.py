"""The client as an agent sees it: what a call leaves behind, what it refuses, what it never does."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from orchclient import (
    ConfigError,
    InvalidEvent,
    NotificationPriority,
    OrchestratorClient,
    OutboxError,
    OutboxUnsafe,
    Task,
    TaskStatus,
)
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient


def stored(path: Path) -> list[dict[str, Any]]:
    """The events in a file, by a connection of its own, as another program would read them."""
    con = sqlite3.connect(path)
    try:
        rows = con.execute("SELECT body FROM events ORDER BY seq").fetchall()
    finally:
        con.close()
    return [json.loads("{" + body) for (body,) in rows]


def test_each_verb_leaves_one_event_in_the_file_and_a_true_receipt(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    assert client.update_task_status("t", TaskStatus.IN_PROGRESS, {"a": 1}, 45, "Generating Flask routes")
    assert client.request_clarification("t", ["Auth?"], NotificationPriority.MEDIUM, {"endpoint": "/api/users"})
    assert client.report_completion("t", "https://x/pull/42", {"tests_passed": 15, "tests_failed": 1}, {"files": ["a"]})
    assert client.escalate_error("t", "github_api_auth", "Authentication failed", 2, {"api": "/repos"})
    assert [event["type"].removeprefix("dev.orchclient.") for event in stored(outbox_path)] == [
        "task.status.v1",
        "clarification.requested.v1",
        "task.completed.v1",
        "error.escalated.v1",
    ]


def test_a_receipt_names_the_event_that_is_stored(make_client: MakeClient, outbox_path: Path) -> None:
    receipt = make_client().update_task_status("t", "testing")
    event = stored(outbox_path)[0]
    assert (receipt.event_id, receipt.seq) == (event["id"], 1)
    assert event["time"] == receipt.recorded_at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_recording_works_without_any_destination_and_statistics_say_so(make_client: MakeClient) -> None:
    client = make_client()
    client.update_task_status("t", "testing")
    stats = client.get_communication_stats()
    assert (stats["updates_sent"], stats["health_status"], stats["delivery"]) == (1, "inactive", {})
    assert client.health().recorded == 1


def test_statistics_survive_a_restart(make_client: MakeClient) -> None:
    first = make_client()
    first.update_task_status("t", "testing")
    first.escalate_error("t", "e", "m")
    first.close()
    stats = make_client().get_communication_stats()
    assert (stats["updates_sent"], stats["errors_escalated"]) == (1, 1)


def test_a_task_s_state_is_what_its_events_add_up_to_over_restarts(make_client: MakeClient) -> None:
    first = make_client()
    first.update_task_status("t", "in_progress", {"a": 1, "b": 1}, 10, "Reading")
    first.update_task_status("t", "in_progress", {"b": 2}, 20)
    first.close()
    state = make_client("agent-2").task_state("t")
    assert state is not None
    assert (state.status, state.progress_percentage, state.current_step) == ("in_progress", 20, "Reading")
    assert dict(state.metadata) == {"a": 1, "b": 2}


def test_what_was_recorded_without_a_destination_is_delivered_once_there_is_one(
    make_client: MakeClient, receiver: Receiver
) -> None:
    first = make_client()
    for percent in range(0, 100, 10):
        first.update_task_status("t", "in_progress", progress_percentage=percent)
    first.close()
    report = make_client(url=receiver.url).flush(10)
    assert report
    assert report.delivered == 10
    assert [event["data"]["progress_percentage"] for event in receiver.events] == list(range(0, 100, 10))


@pytest.mark.parametrize("trouble", ["hang", "down", "refuse"])
def test_a_record_call_never_waits_for_the_receiver(make_client: MakeClient, receiver: Receiver, trouble: str) -> None:
    {
        "hang": lambda: receiver.always(Fault.hang()),
        "down": receiver.stop,
        "refuse": lambda: receiver.always(Fault.status(503)),
    }[trouble]()
    client = make_client(url=receiver.url)
    client.update_task_status("t", "pending")
    assert trouble == "down" or receiver.wait_for_requests(1, 10, path="/v1/events")
    for percent in range(100):
        client.update_task_status("t", "in_progress", progress_percentage=percent)
    assert client.health().recorded == 101
    assert client.health().sinks[0].pending == 101
    assert not receiver.events


def test_an_event_reaches_the_receiver_without_a_flush(make_client: MakeClient, receiver: Receiver) -> None:
    make_client(url=receiver.url).update_task_status("t", "testing")
    assert receiver.wait_for(1, 10)


def test_a_reply_that_was_lost_leads_to_a_repeat_with_the_same_id_only(
    make_client: MakeClient, receiver: Receiver
) -> None:
    receiver.plan(Fault.lose_reply(), Fault.lose_reply(reset=False))
    client = make_client(url=receiver.url)
    for percent in range(20):
        client.update_task_status("t", "in_progress", progress_percentage=percent)
    assert wait_until_delivered(client)
    assert [event["data"]["progress_percentage"] for event in receiver.events] == list(range(20))
    assert sum(receiver.repeats.values()) >= 1
    assert not receiver.conflicts


def wait_until_delivered(client: OrchestratorClient, timeout: float = 20.0) -> bool:
    """Flush until nothing is pending: a flush tries a failing destination once."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if client.flush(timeout):
            return True
    return False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_id": "a\nb", "status": "testing"}, "task_id: contains U+000A"),
        ({"task_id": "", "status": "testing"}, "task_id: must not be empty"),
        ({"task_id": ["t"], "status": "testing"}, "task_id: must be text, not list"),
        ({"task_id": "t", "status": "testing", "metadata": {"big": "x" * 2_097_152}}, "262,144 at most"),
        ({"task_id": "t", "status": "testing", "metadata": {"f": object()}}, "metadata at $.f"),
        ({"task_id": "t", "status": "running"}, "status: is 'running'"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_loses_nothing_else(
    make_client: MakeClient, outbox_path: Path, arguments: dict[str, Any], message: str
) -> None:
    client = make_client()
    client.update_task_status("good", "testing")
    with pytest.raises(InvalidEvent) as caught:
        client.update_task_status(**arguments)
    assert message in str(caught.value)
    client.update_task_status("good", "completed")
    assert [event["data"]["status"] for event in stored(outbox_path)] == ["testing", "completed"]


def test_a_directory_that_cannot_be_written_is_refused_with_the_path_and_the_cure(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(OutboxError, match="file") as caught:
        OrchestratorClient("a", outbox=blocker / "outbox.db")
    assert "set `outbox` to a path" in str(caught.value)


def test_an_outbox_that_others_can_read_is_refused(tmp_path: Path, outbox_path: Path, make_client: MakeClient) -> None:
    make_client().close()
    outbox_path.chmod(0o644)
    with pytest.raises(OutboxUnsafe, match=r"outbox\.db"):
        OrchestratorClient("a", outbox=outbox_path)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("orchestrator", "not an http"),
        ("ftp://x", "not an http"),
        ("https://", "not an http"),
        ("https://user:secret@x", "credentials"),
        ("http://orchestrator.example", "plain http"),
        ("https://x/?a=b", "query"),
        ("https://x\n", "white space"),
        ("https://x:port", "not a URL"),
    ],
)
def test_a_url_that_is_none_is_refused_at_construction_without_repeating_it(
    outbox_path: Path, url: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        OrchestratorClient("a", outbox=outbox_path, url=url)
    assert "secret" not in str(caught.value)
    assert "url (argument)" in str(caught.value)


def test_a_member_of_ours_that_the_user_names_as_secret_is_not_stored(make_client: MakeClient) -> None:
    client = make_client(redact_keys=["current_step"])
    client.update_task_status("t", "testing", None, 5, "harmless to look at")
    state = client.task_state("t")
    assert state is not None
    assert state.current_step == "[redacted]"


def fail_in_a_transaction(client: OrchestratorClient) -> None:
    with client.transaction() as con:
        con.execute("INSERT INTO mine VALUES (2)")
        client.update_task_status("t", "failed")
        raise RuntimeError("undo")


def test_transaction_commits_the_caller_s_rows_and_the_events_together(
    make_client: MakeClient, outbox_path: Path
) -> None:
    client = make_client()
    with client.transaction() as con:
        con.execute("CREATE TABLE mine (x)")
        con.execute("INSERT INTO mine VALUES (1)")
        client.update_task_status("t", "testing")
    with pytest.raises(RuntimeError, match="undo"):
        fail_in_a_transaction(client)
    client.update_task_status("t", "completed")
    assert [event["data"]["status"] for event in stored(outbox_path)] == ["testing", "completed"]
    with client.transaction() as con:
        assert con.execute("SELECT x FROM mine").fetchall() == [(1,)]


def test_a_disabled_client_checks_arguments_and_touches_no_file(outbox_path: Path) -> None:
    with OrchestratorClient("a", outbox=outbox_path, mode="disabled") as client:
        assert client.update_task_status("t", "testing")
        with pytest.raises(InvalidEvent):
            client.update_task_status("t", "nonsense")
        assert client.get_communication_stats()["health_status"] == "inactive"
    assert not outbox_path.exists()


def test_an_offline_client_records_and_sends_nothing(make_client: MakeClient, receiver: Receiver) -> None:
    client = make_client(url=receiver.url, mode="offline")
    client.update_task_status("t", "testing")
    client.flush(1)
    assert not receiver.requests
    assert client.health().recorded == 1


def test_recording_on_a_closed_client_says_so(make_client: MakeClient) -> None:
    client = make_client()
    client.close()
    with pytest.raises(OutboxError, match="closed"):
        client.update_task_status("t", "testing")


def test_closing_while_the_receiver_is_down_costs_nothing(make_client: MakeClient, receiver: Receiver) -> None:
    receiver.stop()
    client = make_client(url=receiver.url)
    client.update_task_status("t", "testing")
    for _ in range(3):
        client.flush(5)
    began = time.monotonic()
    client.close(timeout=60)
    assert time.monotonic() - began < 30  # not a speed: it would be 60 if it waited for the receiver


def test_a_secret_reaches_neither_the_file_nor_the_log_nor_a_repr(
    make_client: MakeClient, outbox_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary-4f1d7a90c2"
    caplog.set_level(logging.DEBUG)
    client = make_client(url=receiver.url, token=canary)
    client.update_task_status(
        "t", "testing", {"password": canary, "note": f"uses {canary} here", "url": f"https://u:{canary}@x/"}
    )
    client.escalate_error("t", "e", f"failed with {canary}", context={"Authorization": f"Bearer {canary}"})
    client.flush(10)
    files = b"".join(path.read_bytes() for path in outbox_path.parent.iterdir())
    assert canary.encode() not in files
    assert canary not in caplog.text
    assert canary not in repr(client) + repr(client.__dict__)
    assert receiver.requests[-1].headers["authorization"] == f"Bearer {canary}"


def divide(task: Task) -> None:
    with task:
        task.progress(10, "Dividing")
        task.recovery_attempted("first try", "used another divisor")
        task.recovery_attempted(ValueError("second try"))
        1 / 0  # noqa: B018


def test_an_exception_that_escapes_a_task_is_escalated_with_its_traceback_and_recoveries(
    make_client: MakeClient, outbox_path: Path
) -> None:
    task = make_client().task("t")
    with pytest.raises(ZeroDivisionError):
        divide(task)
    error = stored(outbox_path)[-1]["data"]
    assert (error["error_type"], error["error_message"], error["recovery_attempts"]) == (
        "ZeroDivisionError",
        "division by zero",
        2,
    )
    assert "1 / 0" in error["traceback"]
    assert error["recovery_history"][1]["error"] == "ValueError: second try"
    assert task.snapshot().status == "failed"


def test_entering_a_task_again_counts_the_attempt(make_client: MakeClient) -> None:
    client = make_client()
    for _ in range(2):
        with client.task("t"):
            pass
    assert client.task("t").snapshot().attempt == 2


def test_an_interrupt_is_no_error_of_the_task(make_client: MakeClient, outbox_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make_client().task("t"):
        raise KeyboardInterrupt
    assert [event["type"] for event in stored(outbox_path)] == ["dev.orchclient.task.status.v1"]


def test_a_withdrawn_question_says_which(make_client: MakeClient, outbox_path: Path) -> None:
    question = make_client().request_clarification("t", "Which?")
    question.withdraw("found out")
    data = stored(outbox_path)[-1]["data"]
    assert (data["clarification_id"], data["reason"]) == (question.id, "found out")
