"""A look into an outbox: it makes and changes nothing, sees what was committed, and leaves what is wrong to others."""

from __future__ import annotations

import ctypes
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchclient.core.errors import OutboxError
from orchclient.delivery.election import Election, lock_path
from orchclient.outbox import asides, journal
from orchclient.outbox.glance import Glance
from orchclient.outbox.outbox import Outbox
from tests.outbox.test_outbox import event, opened


def nobody() -> Outbox:
    raise AssertionError("it was opened whole")


def filled(path: Path, count: int = 3) -> None:
    with closing(opened(path)) as outbox:
        for number in range(count):
            outbox.record(event(us=number), None, False)


def left_by_a_crash(path: Path, at: Path) -> Path:
    """A copy of an outbox with events in its -wal that nobody has open."""
    at.mkdir(mode=0o700)
    with closing(opened(path)) as outbox:
        outbox.record(event(us=9), None, True)
        for ending in ("", "-wal", ".gate", ".mark"):
            shutil.copy2(str(path) + ending, at / (path.name + ending))
    return at / path.name


def listing(directory: Path) -> dict[str, tuple[int, int]]:
    return {each.name: (each.stat().st_size, each.stat().st_mtime_ns) for each in directory.iterdir()}


def test_a_file_at_rest_is_read_without_a_trace(outbox_path: Path) -> None:
    filled(outbox_path)
    before = listing(outbox_path.parent)
    with closing(Glance(outbox_path, nobody)) as glance:
        assert glance.query(journal.last_seq) == 3
        assert listing(outbox_path.parent) == before
    assert listing(outbox_path.parent) == before


def test_an_answer_from_a_file_that_changed_meanwhile_does_not_count(outbox_path: Path) -> None:
    filled(outbox_path)
    asked: list[int] = []

    def question(con: sqlite3.Connection) -> int:
        asked.append(journal.last_seq(con))
        if len(asked) == 1:
            filled(outbox_path, 2)
        return asked[-1]

    with closing(Glance(outbox_path, lambda: opened(outbox_path))) as glance:
        assert glance.query(question) == 5
    assert asked == [3, 5]


def test_beside_a_process_that_delivers_the_newest_events_are_seen(outbox_path: Path) -> None:
    election = Election(lock_path(str(outbox_path), "orchestrator"))
    with closing(opened(outbox_path)) as outbox:
        outbox.record(event(us=1), None, False)
        assert election.stand()
        with closing(Glance(outbox_path, nobody)) as glance:
            for number in range(2, 5):
                outbox.record(event(us=number), None, False)
                assert glance.query(journal.last_seq) == number
        election.resign()


def test_beside_one_that_only_records_it_is_opened_whole(outbox_path: Path) -> None:
    with closing(opened(outbox_path)) as outbox:
        outbox.record(event(us=1), None, False)
        with closing(Glance(outbox_path, lambda: opened(outbox_path))) as glance:
            assert glance.query(journal.last_seq) == 1


def older_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version=1")


def damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)
    info = path.stat()  # as it would be after bits flipped on the disk, which change no date
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def noted(path: Path) -> None:
    Path(asides.note_path(str(path))).write_text("[]")


@pytest.mark.parametrize("harm", [older_schema, damaged, noted])
def test_what_needs_somebody_who_repairs_is_opened_whole(outbox_path: Path, harm: Callable[[Path], None]) -> None:
    filled(outbox_path)
    harm(outbox_path)
    with pytest.raises(AssertionError, match="opened whole"):
        Glance(outbox_path, nobody)


def test_what_a_crash_left_is_opened_whole(outbox_path: Path, tmp_path: Path) -> None:
    copy = left_by_a_crash(outbox_path, tmp_path / "crashed")
    with pytest.raises(AssertionError, match="opened whole"):
        Glance(copy, nobody)
    with closing(Glance(copy, lambda: opened(copy))) as glance:
        assert glance.query(journal.last_seq) == 1


def test_damage_that_a_question_meets_is_left_to_the_whole_outbox(outbox_path: Path) -> None:
    filled(outbox_path)

    def question(con: sqlite3.Connection) -> int:
        if con.execute("PRAGMA query_only").fetchone()[0] == 0:  # the connection to a file at rest
            raise sqlite3.DatabaseError("database disk image is malformed")
        return journal.last_seq(con)

    with closing(Glance(outbox_path, lambda: opened(outbox_path))) as glance:
        assert glance.query(question) == 3


@pytest.mark.parametrize("mode", [0o644, 0o400])
def test_a_file_that_is_not_safe_is_refused_as_by_those_who_record(outbox_path: Path, mode: int) -> None:
    filled(outbox_path)
    outbox_path.chmod(mode)
    with pytest.raises(OutboxError, match="chmod 600"):
        Glance(outbox_path, nobody)


def without_power() -> None:
    """In a child of root: permissions count for it as for everybody else."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux has them")
@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "--check"),
        ("list",),
        ("show", "0"),
        ("answer",),
        ("export",),
        ("report", "t", "-o", "-"),
    ],
)
def test_an_outbox_in_a_directory_that_cannot_be_written_can_be_looked_at(
    outbox_path: Path, words: tuple[str, ...]
) -> None:
    filled(outbox_path, 1)
    done = looked_where_nothing_can_be_written(outbox_path, words)
    assert (done.stderr, "t" in done.stdout) == ("", True)


def looked_where_nothing_can_be_written(path: Path, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    before = listing(path.parent)
    path.parent.chmod(0o500)
    try:
        return subprocess.run(
            [sys.executable, "-m", "orchclient", "--db", str(path), *words],
            preexec_fn=without_power,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        path.parent.chmod(0o700)
        assert listing(path.parent) == before


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux has them")
def test_doctor_says_that_it_can_be_saved(outbox_path: Path) -> None:
    filled(outbox_path, 1)
    done = looked_where_nothing_can_be_written(outbox_path, ("doctor",))
    assert (done.returncode, "Carry it away: orchclient export" in done.stdout) == (1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="drops capabilities as Linux has them")
@pytest.mark.parametrize("words", [("status",), ("export",)])
def test_so_can_one_whose_process_was_killed_before(outbox_path: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    copy = left_by_a_crash(outbox_path, tmp_path / "crashed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(elsewhere))
        done = looked_where_nothing_can_be_written(copy, words)
    assert done.stderr == ""
    assert {"status": "1 event recorded", "export": '"status":"testing"'}[words[0]] in done.stdout
    assert list(elsewhere.iterdir()) == []
