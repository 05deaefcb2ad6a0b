"""Many events in one row: the same as one by one, whatever the rows hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient import OrchestratorClient
from orchclient.core.batching import BatchLimit
from orchclient.outbox import bulk, journal

EVENTS = 300


@pytest.fixture
def journal_of(outbox_path: Path) -> Iterator[sqlite3.Connection]:
    """A journal of many events of some tasks, of all sizes and scripts, to be changed by the test."""
    with OrchestratorClient("agent", outbox=outbox_path, mode="offline", background=False) as client:
        for number in range(EVENTS):
            client.update_task_status(
                f"tâche {number % 7}", "testing", {"ключ": "é\n\x00😀" * (number % 50)}, number % 101, "step"
            )
    with closing(sqlite3.connect(outbox_path, isolation_level=None)) as con:
        yield con


def one_by_one(con: sqlite3.Connection, after_seq: int, events: int) -> list[bulk.Row]:
    return con.execute(
        "SELECT seq, task, crc, CAST(body AS BLOB) FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, events)
    ).fetchall()


def told_one_by_one(con: sqlite3.Connection, after_seq: int, up_to_seq: int) -> list[bulk.Told]:
    return [
        (entry.seq, entry.task, entry.agent, entry.type, entry.recorded_us, bulk.data_of(entry.body))
        for entry in journal.read_range(con, after_seq, up_to_seq)
    ]


PLACES = [(0, 500), (0, 1), (17, 100), (EVENTS - 1, 10), (EVENTS, 10)]
DAMAGED = 20


def assert_the_same(con: sqlite3.Connection) -> None:
    for after_seq, events in PLACES:
        expected = one_by_one(con, after_seq, events)
        assert bulk.read_next(con, after_seq, BatchLimit(events)) == expected
        assert bulk.read_next(con, after_seq, BatchLimit(events), one_by_one=True) == expected


def assert_the_same_is_told(con: sqlite3.Connection, but: int = 0) -> None:
    """Of an event that is damaged as much may be told as can still be read."""
    for after_seq, events in PLACES:
        told = list(bulk.told_between(con, after_seq, after_seq + events))
        expected = told_one_by_one(con, after_seq, after_seq + events)
        assert [each for each in told if each[0] != but] == [each for each in expected if each[0] != but]
        assert [each[:-1] for each in told] == [each[:-1] for each in expected]
        assert all(isinstance(each[-1], dict) for each in told)


def test_a_sound_journal_reads_the_same_in_a_few_statements(journal_of: sqlite3.Connection) -> None:
    assert_the_same(journal_of)
    assert_the_same_is_told(journal_of)
    statements: list[str] = []
    journal_of.set_trace_callback(statements.append)
    assert len(bulk.read_next(journal_of, 0, BatchLimit(500))) == EVENTS
    assert len(statements) <= 4
    assert not [each for each in statements if "group_concat" not in each]


DAMAGE: dict[str, str] = {
    "a place is missing": "DELETE FROM events WHERE seq IN (2, 30, 299)",
    "only one is left": "DELETE FROM events WHERE seq <> 40",
    "a text with a line feed": "UPDATE events SET body = body || char(10) WHERE seq = 20",
    "a text that is no JSON": "UPDATE events SET body = replace(body, '}', '{') WHERE seq = 20",
    "a text without data": "UPDATE events SET body = 'x' WHERE seq = 20",
    "an empty text": "UPDATE events SET body = '' WHERE seq = 20",
    "two objects in the data's place": """UPDATE events SET body = '"data":1},{"more":2}' WHERE seq = 20""",
    "data that is no object": """UPDATE events SET body = '"id":"1","data":[1]}' WHERE seq = 20""",
    "no UTF-8": "UPDATE events SET body = CAST(x'22ff22' AS TEXT) WHERE seq = 20",
    "a checksum that is no number": "UPDATE events SET crc = 'x,1' WHERE seq = 20",
    "a checksum with a fraction": "UPDATE events SET crc = 1.5 WHERE seq = 20",
    "a task with a line feed": "UPDATE events SET task = 'a' || char(10) || 'b' WHERE seq = 20",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_reads_as_it_does_one_by_one(damage: str, journal_of: sqlite3.Connection) -> None:
    journal_of.execute(damage)
    journal_of.text_factory = lambda raw: raw.decode(errors="replace")  # to see what is there
    assert_the_same(journal_of)
    assert_the_same_is_told(journal_of, but=DAMAGED)


def test_a_control_that_leaves_out_the_look_at_the_count_is_found(
    journal_of: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows that are taken apart without a look at how many there are, a line feed moves every text behind it."""

    def planted(places: range, tasks: str, checksums: str, bodies: bytes) -> list[bulk.Row]:
        return list(zip(places, tasks.split("\n"), map(int, checksums.split(",")), bodies.split(b"\n"), strict=False))

    monkeypatch.setattr(bulk, "_apart", planted)
    journal_of.execute(DAMAGE["a text with a line feed"])
    with pytest.raises(AssertionError):
        assert_the_same(journal_of)


@given(
    sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=60),
    events=st.integers(1, 60),
    room=st.integers(1, 40_000),
)
@settings(max_examples=60)
def test_a_batch_is_as_many_events_as_fit_and_at_least_one(sizes: list[int], events: int, room: int) -> None:
    rows: list[bulk.Row] = [(seq, "task", 0, b"x" * size) for seq, size in enumerate(sizes, 1)]

    def more(taken: list[bulk.Row], at_most: int) -> list[bulk.Row]:
        return rows[len(taken) :][:at_most]

    taken = bulk._taken(more, BatchLimit(events, room))
    expected, left = 0, room - 2
    for size in sizes[:events]:
        left -= size + bulk.OPENING_BYTES
        if left < 0 and expected:
            break
        expected += 1
        if left < 0:
            break
    assert len(taken) == expected
