"""Errors with one key are one incident: counted, closed once, opened anew, in threads, processes, and lost files."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient import InvalidEvent, OrchestratorClient, OutboxError
from orchclient.aio import OrchestratorClient as AioClient
from orchclient.core.schedule import Schedule
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.reminding import Reminding
from orchclient.outbox import incidents
from tests.conftest import MakeClient
from tests.docs.test_examples import envelope_validator
from tests.test_client import stored


def errors(path: Path) -> list[tuple[int, str | None]]:
    """How many-th error of its incident each is, and which was the first."""
    told = [event["data"] for event in stored(path) if event["type"].endswith("error.escalated.v1")]
    return [(data.get("count", 1), data.get("first_id")) for data in told]


def resolutions(path: Path) -> list[dict[str, Any]]:
    return [event["data"] for event in stored(path) if event["type"].endswith("error.resolved.v1")]


def escalate(client: OrchestratorClient, task: str = "t", key: str | None = "k") -> Any:
    return client.escalate_error(task, "network", "no route", dedup_key=key, fatal=False)


def test_errors_with_a_key_are_counted_and_name_the_first(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    first, second, third = (escalate(client) for _ in range(3))
    assert (first.count, second.count, third.count) == (1, 2, 3)
    assert errors(outbox_path) == [(1, None), (2, first.event_id), (3, first.event_id)]


def test_tasks_keys_and_errors_without_a_key_are_kept_apart(make_client: MakeClient) -> None:
    client = make_client()
    for task, key in (("a", "k"), ("b", "k"), ("a", "l"), ("a", None), ("a", None)):
        assert escalate(client, task, key).count == 1


def test_an_incident_is_counted_on_by_another_process_and_after_a_restart(
    make_client: MakeClient, outbox_path: Path
) -> None:
    first = make_client("agent-1")
    escalate(first)
    assert escalate(make_client("agent-2")).count == 2
    first.close()
    assert escalate(make_client("agent-3")).count == 3


def test_a_resolved_incident_is_told_once_and_the_next_error_opens_another(
    make_client: MakeClient, outbox_path: Path
) -> None:
    client = make_client()
    first = escalate(client)
    second = escalate(client)
    assert client.resolve_error("t", "k", "the cable was out")
    assert client.resolve_error("t", "k") is None
    assert second.resolve() is None
    assert resolutions(outbox_path) == [
        {"task_id": "t", "error_id": first.event_id, "count": 2, "dedup_key": "k", "note": "the cable was out"}
    ]
    assert escalate(client).count == 1
    assert escalate(client).resolve("again").seq == 6
    assert [each["count"] for each in resolutions(outbox_path)] == [2, 2]


def test_an_error_without_a_key_is_resolved_by_its_handle_once(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    one, other = escalate(client, key=None), escalate(client, key=None)
    assert one.resolve()
    assert one.resolve() is None
    assert other.resolve()
    assert [each["error_id"] for each in resolutions(outbox_path)] == [one.event_id, other.event_id]


def test_what_does_not_exist_is_not_resolved_and_bad_arguments_are_named(make_client: MakeClient) -> None:
    client = make_client()
    assert client.resolve_error("t", "k") is None
    with pytest.raises(InvalidEvent, match="dedup_key"):
        client.resolve_error("t", "")
    escalation = escalate(client)
    with pytest.raises(InvalidEvent, match="note"):
        escalation.resolve(7)
    assert escalation.resolve("now")


def test_threads_and_processes_count_every_error_once(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for _ in range(25):
                escalate(client)
            code = 0
        finally:
            os._exit(code)
    threads = [threading.Thread(target=lambda: [escalate(client) for _ in range(25)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [count for count, _ in errors(outbox_path)] == list(range(1, 101))
    assert len({first for _, first in errors(outbox_path)[1:]}) == 1


def test_threads_that_resolve_at_once_tell_it_once(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    escalation = escalate(client)
    threads = [threading.Thread(target=escalation.resolve) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(resolutions(outbox_path)) == 1


def test_a_rolled_back_transaction_counts_nothing(make_client: MakeClient) -> None:
    client = make_client()

    def fails() -> None:
        with client.transaction():
            assert escalate(client).count == 1
            assert escalate(client).count == 2
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert escalate(client).count == 1


def test_a_fatal_repeat_fails_its_task_and_is_valid_by_the_contract(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    for _ in range(2):
        client.escalate_error("t", "network", "no route", dedup_key="k")
    client.resolve_error("t", "k", "note")
    state = client.task_state("t")
    assert state is not None
    assert state.status == "failed"
    validator = envelope_validator()
    opening = {
        "specversion": "1.0",
        "source": "urn:uuid:8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31",
        "sequence": "0" * 19 + "1",
    }
    for event in stored(outbox_path):
        assert [error.message for error in validator.iter_errors(opening | event)] == []


def test_an_incident_survives_the_loss_of_its_files(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client()
    first = escalate(client)
    outbox_path.unlink()
    assert escalate(client).count == 2
    assert errors(outbox_path)[-1] == (2, first.event_id)


def test_a_secret_in_a_repeat_is_redacted_and_too_large_an_error_is_refused(
    make_client: MakeClient, outbox_path: Path
) -> None:
    client = make_client(token="orch-canary-token-1234567890", url="https://x.example")
    for _ in range(2):
        client.escalate_error("t", "x", "with orch-canary-token-1234567890", dedup_key="k")
    assert "canary" not in outbox_path.read_bytes().decode(errors="replace")
    with pytest.raises(InvalidEvent, match="context"):
        client.escalate_error("t", "x", "m", context={"a": "x" * 300_000}, dedup_key="k")
    assert client.escalate_error("t", "x", "m", dedup_key="k").count == 3


def test_a_key_that_is_a_secret_is_kept_nowhere_and_still_names_its_incident(
    make_client: MakeClient, outbox_path: Path
) -> None:
    secret = "orch-canary-token-1234567890"
    client = make_client(token=secret, url="https://x.example")
    for _ in range(2):
        escalate(client, key=secret)
    assert client.resolve_error("t", secret)
    kept = b"".join(path.read_bytes() for path in outbox_path.parent.glob("outbox.db*"))
    assert secret.encode() not in kept
    assert [count for count, _ in errors(outbox_path)] == [1, 2]


def test_a_closed_outbox_and_a_disabled_client_behave_as_for_other_verbs(make_client: MakeClient) -> None:
    client = make_client()
    escalation = escalate(client)
    client.close()
    with pytest.raises(OutboxError):
        escalation.resolve()
    off = make_client(mode="disabled")
    assert escalate(off).count == 1
    assert off.resolve_error("t", "k") is None
    assert escalate(off).resolve() is None


def test_the_asynchronous_client_counts_and_resolves_too(outbox_path: Path) -> None:
    async def main() -> None:
        async with AioClient("a", outbox=outbox_path) as client:
            task = client.task("t")
            await task.escalate("network", "x", dedup_key="k")
            again = await client.escalate_error("t", "network", "x", dedup_key="k")
            assert again.count == 2
            assert await again.resolve()
            assert await task.resolve_error("k") is None

    asyncio.run(main())


def test_open_incidents_with_ever_new_keys_are_bounded_and_what_is_critical_stays(make_client: MakeClient) -> None:
    client = make_client(background=False)
    client.escalate_error("t", "database_connection", "down", dedup_key="critical", fatal=False)
    for number in range(30):
        escalate(client, key=f"key-{number}")
    escalate(client, key="key-3")  # the newest now
    station = client._station
    Reminding(station._outbox, SystemClock(), Schedule()).look()
    assert station.write(lambda con: incidents.forget_oldest_open(con, 10)) == 20
    assert station.write(lambda con: incidents.forget_oldest_open(con, 10)) == 0
    assert client.resolve_error("t", "critical")
    assert client.resolve_error("t", "key-29")
    assert client.resolve_error("t", "key-3")
    assert client.resolve_error("t", "key-4") is None
    assert escalate(client, key="key-4").count == 1


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["error", "resolve", "restart"])), max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_counts_are_those_of_a_simple_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("model") / "outbox.db"
    client = OrchestratorClient("a", outbox=path, background=False)
    open_counts: dict[str, int] = {}
    for key, step in steps:
        if step == "error":
            open_counts[key] = open_counts.get(key, 0) + 1
            assert escalate(client, key=key).count == open_counts[key]
        elif step == "resolve":
            assert bool(client.resolve_error("t", key)) == (open_counts.pop(key, 0) > 0)
        else:
            client.close()
            client = OrchestratorClient("a", outbox=path, background=False)
    client.close()


def test_an_escalation_is_found_by_its_id_after_a_restart(make_client: MakeClient, outbox_path: Path) -> None:
    first = make_client()
    events = [escalate(first, key=None), escalate(first), escalate(first)]
    receipt = first.update_task_status("t", "testing")
    first.close()
    later = make_client()
    found = [later.escalation(each.event_id) for each in events]
    assert [(each.receipt, each.priority, each.count) for each in found if each] == [
        (each.receipt, each.priority, each.count) for each in events
    ]
    assert [later.escalation(each) for each in (receipt.event_id, events[0].event_id[:20], "ffff")] == [None] * 3
    assert [each.resolve() is not None for each in found if each] == [True, True, False]
    assert [data["error_id"] for data in resolutions(outbox_path)] == [events[0].event_id, events[1].event_id]
