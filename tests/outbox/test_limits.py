"""A full outbox: what goes first, what is refused and how, and that it works again when there is room."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from attrs import astuple

from orchclient import OrchestratorClient, OutboxFull
from orchclient.core.gap import GapReason
from orchclient.outbox import compaction, cursors, files, folding, gaps, migrations, retention
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient


def filled(make_client: MakeClient, **settings: Any) -> OrchestratorClient:
    """A client whose outbox has met one of its limits."""
    client = make_client(background=False, **settings)
    with pytest.raises(OutboxFull):
        record_progress(client, 10_000)
    return client


def record_progress(client: OrchestratorClient, count: int) -> None:
    """Updates that each change the status, so that nothing is superseded."""
    for percent in range(count):
        client.update_task_status("t", ("in_progress", "testing")[percent % 2], {"pad": "x" * 500}, percent)


def record_superseded(client: OrchestratorClient, count: int) -> None:
    """Updates of three tasks of which each is told again by the next one of its task."""
    for number in range(count):
        client.update_task_status(f"t-{number % 3}", "testing", {"pad": "x" * 500}, number % 100)


def record_errors(client: OrchestratorClient, count: int) -> None:
    for _ in range(count):
        client.escalate_error("t", "disk", "full")


def test_at_the_limit_of_pending_events_progress_is_refused_and_the_reserve_takes_what_matters(
    make_client: MakeClient,
) -> None:
    client = filled(make_client, max_pending=1000)
    recorded = client.health().recorded
    assert 1000 <= recorded <= 1000 + 50
    with pytest.raises(OutboxFull, match=r"1,000.*orchclient status.*max_pending"):
        client.update_task_status("t", "failed")
    assert client.report_completion("t", None, {})
    assert client.escalate_error("t", "disk", "full")
    assert client.request_clarification("t", "Clean up?")
    assert client.health().recorded == recorded + 3


def test_the_reserve_has_an_end(make_client: MakeClient) -> None:
    client = filled(make_client, max_pending=1000)
    with pytest.raises(OutboxFull):
        record_errors(client, 200)
    assert client.health().recorded <= 1051


def test_delivering_makes_room(make_client: MakeClient, receiver: Receiver) -> None:
    client = filled(make_client, max_pending=500, url=receiver.url)
    assert client.flush(30)
    assert client.update_task_status("t", "in_progress")
    assert len(receiver.events) == client.health().recorded - 1


def test_at_the_limit_of_bytes_delivered_history_goes_first(
    make_client: MakeClient, receiver: Receiver, outbox_path: Path
) -> None:
    client = filled(make_client, max_outbox_bytes=1_048_576, url=receiver.url)
    before = client.health()
    assert before.kept == before.recorded
    assert client.flush(30)
    for _ in range(5):
        record_progress(client, 200)
        assert client.flush(30)
    assert client.health().kept < client.health().recorded
    assert outbox_path.stat().st_size < 2 * 1_048_576


def test_dead_letters_at_the_beginning_do_not_keep_history_behind_them(
    make_client: MakeClient, receiver: Receiver, outbox_path: Path
) -> None:
    receiver.reject(lambda event: event["subject"] == "dead" and event["type"].endswith(".task.status.v1"))
    client = make_client(background=False, max_outbox_bytes=2 * 1_048_576, url=receiver.url)
    for percent in range(3 * retention.SLICE):
        client.update_task_status("dead", ("in_progress", "testing")[percent % 2], None, percent % 100)
    assert not client.flush(30)
    for _ in range(10):
        record_progress(client, 300)
        client.flush(30)
    with closing(sqlite3.connect(outbox_path)) as con:
        left = con.execute("SELECT count(*) FROM events").fetchone()[0]
    health = client.health()
    assert health.sinks[0].dead == 3 * retention.SLICE < left < health.recorded


def test_a_disk_that_is_nearly_full_refuses_before_it_is_full(make_client: MakeClient) -> None:
    client = make_client(background=False, min_free_bytes=2**60)
    with pytest.raises(OutboxFull, match="must stay"):
        client.update_task_status("t", "in_progress")


def sources(receiver: Receiver, client: OrchestratorClient) -> dict[str, Any]:
    """What the receiver holds of this outbox, and what it misses."""
    answer: dict[str, Any] = requests.get(
        f"{receiver.url}/v1/sources/urn:uuid:{client.health().source}", timeout=5
    ).json()
    return answer


def test_at_a_limit_superseded_progress_is_folded_and_recording_goes_on(make_client: MakeClient) -> None:
    client = make_client(background=False, max_pending=1000)
    record_superseded(client, 5000)
    assert client.update_task_status("t-0", "completed")
    health = client.health()
    assert health.recorded > 5000
    assert health.kept <= 1050
    assert [client.task_state(f"t-{n}").progress_percentage for n in range(3)] == [98, 99, 97]  # type: ignore[union-attr]


def test_what_is_folded_is_itemised_counted_and_told_to_the_receiver(
    make_client: MakeClient, receiver: Receiver
) -> None:
    client = make_client(background=False, max_pending=1000, url=receiver.url)
    receiver.always(Fault.status(503))
    client.flush(0)  # the destination is known from here on, and has got nothing
    record_superseded(client, 3000)
    (sink,) = client.health().sinks
    assert sink.expired > 1000
    assert client.health().recorded == sink.pending + sink.delivered + sink.dead + sink.expired
    receiver.heal()
    assert client.flush(30)
    (sink,) = client.health().sinks
    assert sources(receiver, client) == {"highest": client.health().recorded, "gaps": []}
    assert (sink.pending, sink.dead, sink.delivered) == (0, 0, len(receiver.events))
    assert client.health().recorded == sink.delivered + sink.expired
    ranges = client._station.query(lambda con: list(gaps.expired(con)))
    assert sum(each.count for each in ranges) == sink.expired
    assert {each.reason for each in ranges} == {GapReason.FOLDED}


def test_a_loop_of_errors_with_one_key_is_folded_to_the_first_and_the_newest_of_them(
    make_client: MakeClient, receiver: Receiver
) -> None:
    client = make_client(background=False, max_pending=1000, url=receiver.url)
    receiver.always(Fault.status(503))
    client.flush(0)
    for _ in range(1500):
        newest = client.escalate_error("t", "network", "no route", dedup_key="k", fatal=False)
    assert newest.count == 1500
    (sink,) = client.health().sinks
    assert sink.expired >= 400
    receiver.heal()
    assert client.flush(30)
    told = [event["data"].get("count", 1) for event in receiver.events if event["type"].endswith("escalated.v1")]
    assert (told[0], told[-1]) == (1, 1500)
    assert sources(receiver, client)["gaps"] == []
    (sink,) = client.health().sinks
    assert client.health().recorded == sink.delivered + sink.expired
    assert sink.delivered == len(receiver.events)


def test_a_destination_that_comes_late_is_told_what_was_folded_before(
    make_client: MakeClient, receiver: Receiver
) -> None:
    client = make_client(background=False, max_pending=1000)
    record_superseded(client, 3000)
    client.close()
    client = make_client(background=False, url=receiver.url)
    assert client.flush(30)
    (sink,) = client.health().sinks
    assert sink.expired > 1000
    assert client.health().recorded == sink.delivered + sink.expired
    assert sources(receiver, client)["gaps"] == []


def test_a_batch_that_is_being_sent_is_not_folded(make_client: MakeClient, receiver: Receiver) -> None:
    client = make_client(max_pending=1000, url=receiver.url)
    receiver.plan(Fault.hang(60))
    client.update_task_status("t-0", "testing")
    assert receiver.wait_for(lambda receiver: len(receiver.requests) >= 1, 20)
    record_superseded(client, 3000)
    receiver.heal()
    assert client.flush(30)
    (sink,) = client.health().sinks
    assert client.health().recorded == sink.delivered + sink.expired + sink.pending
    assert sink.expired > 1000
    assert len({event["id"] for event in receiver.events}) == len(receiver.events)
    for events in receiver.by_task().values():
        places = [event["sequence"] for event in events]
        assert places == sorted(places)


def test_the_next_batch_of_every_destination_is_left_alone(make_client: MakeClient) -> None:
    client = make_client(background=False)
    record_superseded(client, 3000)
    outbox = client._station._outbox
    for name, cursor in (("far", 0), ("near", 1800)):
        outbox.write(lambda con, name=name: cursors.add_sink(con, name, "k", "", 0, from_beginning=True))
        outbox.write(lambda con, name=name, cursor=cursor: cursors.advance(con, name, 0, 0, cursor))
    place, is_last = 0, False
    while not is_last:
        outbox.write(outbox.query(lambda con: folding.fold(con, 5000)).write)
        fold = partial(compaction.fold_superseded, after_seq=place, now_us=0, new_id=outbox._store.new_event_id)
        _, place, is_last = astuple(outbox.write(fold))
    kept = set(outbox.query(lambda con: [seq for (seq,) in con.execute("SELECT seq FROM events")]))
    assert kept >= {*range(1, 501), *range(1801, 2301)}
    assert len(kept) < 1100
    far, near = client.health().sinks
    assert far.expired - near.expired == len(set(range(501, 1801)) - kept)
    for sink in (far, near):
        assert client.health().recorded == sink.delivered + sink.pending + sink.dead + sink.expired


def test_an_outbox_of_the_first_schema_is_brought_up_to_date(
    make_client: MakeClient, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_MIGRATIONS", migrations._MIGRATIONS[:1])
    monkeypatch.setattr(migrations, "VERSION", 1)
    con = sqlite3.connect(files.prepare(outbox_path), isolation_level=None)
    migrations.migrate(con, str(outbox_path))
    con.execute("INSERT INTO sinks (name, kind, start_seq, cursor, created_us) VALUES ('s', 'k', 0, 0, 0)")
    con.close()
    monkeypatch.undo()
    client = make_client(background=False)
    assert client.update_task_status("t", "testing")
    (sink,) = client.health().sinks
    assert (sink.pending, sink.expired) == (1, 0)
