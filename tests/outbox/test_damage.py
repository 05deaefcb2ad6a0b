"""Damaged files: noticed, set aside under a dated name, read as far as they can be, and recording goes on."""

from __future__ import annotations

import ctypes
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest
from click.testing import CliRunner

from orchclient.cli.app import cli
from orchclient.core.errors import OutboxError
from orchclient.outbox import asides, checkup, connection, identity, journal, past, salvage
from orchclient.outbox.connection import connect
from orchclient.outbox.outbox import Outbox
from tests.outbox.test_outbox import event, opened, places, record

PAGE = 4096


def filled(path: Path, count: int = 400) -> list[str]:
    """A closed outbox with events in its database file; their ids."""
    with closing(opened(path)) as outbox:
        made = [event(us=number) for number in range(count)]
        for each in made:
            outbox.record(each, None, False)
    return [each.id for each in made]


def overwrite(path: Path, offset: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(os.urandom(length))


def ids(outbox: Outbox) -> set[str]:
    return outbox.query(lambda con: {id_ for (id_,) in con.execute("SELECT id FROM events")})


@pytest.mark.parametrize(
    ("damage", "all_lost"),
    [
        (lambda path: overwrite(path, 0, 100), True),
        (lambda path: path.write_text("this is not a database " * 400), True),
        (lambda path: os.truncate(path, 100), True),
    ],
    ids=["header", "text", "cut to nothing"],
)
def test_a_file_that_is_no_database_any_more_is_set_aside_and_recording_goes_on(
    outbox_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], all_lost: bool
) -> None:
    filled(outbox_path)
    damage(outbox_path)
    with closing(opened(outbox_path)) as outbox:
        outbox.record(new := event(), None, False)
        assert ids(outbox) == {new.id}
    assert len(list(outbox_path.parent.glob("outbox.db.damaged-*Z"))) == 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox_path.parent.iterdir()} == {0o600}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "set aside" in caplog.text


def test_what_can_be_read_around_a_damaged_page_is_taken_over_under_a_new_source(
    outbox_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = filled(outbox_path)
    with closing(opened(outbox_path)) as outbox:
        source = outbox.query(identity.identities).newest
        leaf = outbox.query(lambda con: con.execute("PRAGMA page_count").fetchone()[0]) - 5
    overwrite(outbox_path, leaf * PAGE, PAGE)
    with closing(opened(outbox_path)) as outbox:
        for _ in range(3):  # the next event goes to the last page, which is sound: a reader finds the damage
            outbox.record(event(), None, False)
        outbox.query(lambda con: con.execute("SELECT count(crc) FROM events WHERE body > ''").fetchone())
        saved = ids(outbox) & set(made)
        assert 0.9 * len(made) < len(saved) < len(made)
        assert outbox.query(identity.identities).newest != source
        outbox.record(new := event(), None, False)
        assert new.id in ids(outbox)
        assert places(outbox) == list(range(1, len(places(outbox)) + 1))
    assert "could be read" in caplog.text


def test_a_process_that_still_writes_to_a_damaged_file_moves_to_the_new_one(outbox_path: Path) -> None:
    filled(outbox_path)
    with closing(opened(outbox_path)) as first, closing(opened(outbox_path)) as second:
        leaf = first.query(lambda con: con.execute("PRAGMA page_count").fetchone()[0]) - 5
        overwrite(outbox_path, leaf * PAGE, PAGE)
        for outbox in (first, second):
            outbox._store.connection().execute("PRAGMA cache_size=0")
        first.query(lambda con: con.execute("SELECT count(crc) FROM events WHERE body > ''").fetchone())
        second.record(new := event(), None, False)
        assert new.id in ids(first)
        assert ids(first) == ids(second)


def test_somebody_else_s_file_is_not_an_outbox_that_was_damaged(outbox_path: Path) -> None:
    outbox_path.write_text("a thesis, not a database\n" * 300)
    outbox_path.chmod(0o600)
    for _ in range(3):  # nor when it is tried again
        with pytest.raises(OutboxError, match="not an outbox"):
            opened(outbox_path)
    assert outbox_path.read_text().startswith("a thesis")


def test_one_bad_read_while_a_question_opens_its_connection_sets_nothing_aside(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, moments = connection._configured, [checkup.damage("a bad moment")]

    def configured_in_a_bad_moment(path: str, read_only: bool) -> sqlite3.Connection:
        if moments:
            raise moments.pop()
        return configured(path, read_only)

    with closing(opened(outbox_path)) as outbox:
        outbox.record(event(), None, False)
        outbox._store._readers._idle.clear()
        with monkeypatch.context() as patch:
            patch.setattr(connection, "_configured", configured_in_a_bad_moment)
            assert len(ids(outbox)) == 1
    assert not moments
    assert not set_aside(outbox_path)


# --- a process that ends in the middle --------------------------------------------------------------------------------

RECORD_AND_END = """
import os, sys
from pathlib import Path
from tests.outbox.test_outbox import event, opened
outbox = opened(Path(sys.argv[1]))
for number in range(10):
    outbox.record(made := event(us=number), None, True)
    print(made.id, flush=True)
os._exit(0)
"""

END_IN_SALVAGE = """
import os, sys
from pathlib import Path
from orchclient.outbox import owed, rescue, salvage
from orchclient.outbox.connection import connect
from tests.outbox.test_outbox import opened

def end(*args):
    os._exit(9)

def rename(old, new, real=os.rename):
    real(old, new)
    if new.endswith(sys.argv[2]):
        end()

def copied(*args, real=salvage.copy_readable):
    end(real(*args))

{
    "noted": lambda: setattr(owed, "_move", end),
    "-wal": lambda: setattr(os, "rename", rename),
    "Z": lambda: setattr(os, "rename", rename),
    "set aside": lambda: setattr(rescue.Rescue, "_take_over", end),
    "copied": lambda: setattr(salvage, "copy_readable", copied),
    "committed": lambda: setattr(owed, "settle", end),
}[sys.argv[2]]()
other = connect(sys.argv[1])  # so that nobody is the last one, who takes the -wal away
other.execute("SELECT 1 FROM events")
opened(Path(sys.argv[1]))
"""

MOMENTS = ("noted", "-wal", "Z", "set aside", "copied", "committed")


def ended(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def damaged_and_left_in_salvage(path: Path, moment: str) -> tuple[set[str], set[str]]:
    """Ids of events in a database that was damaged, and in its sound -wal. Who came to mend it ended at a moment."""
    made = filled(path)
    with closing(opened(path)) as outbox:
        leaf = outbox.query(lambda con: con.execute("PRAGMA page_count").fetchone()[0]) - 10
    in_the_wal = ended(RECORD_AND_END, str(path)).stdout.split()
    assert len(in_the_wal) == 10
    overwrite(path, leaf * PAGE, PAGE)
    done = ended(END_IN_SALVAGE, str(path), moment)
    assert done.returncode == 9, done.stderr
    return set(made), set(in_the_wal)


def set_aside(path: Path) -> list[Path]:
    return [each for each in path.parent.glob("*.damaged-*") if each.suffix == ".000000Z"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_a_process_sets_aside_when_it_ends_is_taken_over_by_the_next(
    outbox_path: Path, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    in_database, in_the_wal = damaged_and_left_in_salvage(outbox_path, moment)
    with closing(opened(outbox_path)) as outbox:
        saved = ids(outbox)
        assert in_the_wal <= saved
        assert 0.9 * len(in_database) < len(saved & in_database) < len(in_database)
        outbox.record(new := event(), None, False)
        assert new.id in ids(outbox)
    assert len(caplog.records) == 1, caplog.text
    with closing(opened(outbox_path)) as outbox:
        assert len(ids(outbox)) == len(places(outbox)) == len(saved) + 1
    assert len(caplog.records) == 1, "told twice"
    assert len(set_aside(outbox_path)) == 1
    assert not list(outbox_path.parent.glob("*.owed*"))


@pytest.mark.parametrize("moment", [moment for moment in MOMENTS if moment not in ("noted", "committed")])
def test_control_without_the_note_what_was_set_aside_stays_there(outbox_path: Path, moment: str) -> None:
    _, in_the_wal = damaged_and_left_in_salvage(outbox_path, moment)
    os.unlink(asides.note_path(str(outbox_path)))
    with closing(opened(outbox_path)) as outbox:
        assert not in_the_wal & ids(outbox)


def test_doctor_explains_a_note_that_is_left(outbox_path: Path) -> None:
    damaged_and_left_in_salvage(outbox_path, "Z")
    (aside,) = set_aside(outbox_path)

    def findings() -> list[str]:
        result = CliRunner().invoke(cli, ["--db", str(outbox_path), "doctor", "--json"])
        return [finding["what"] for finding in json.loads(result.stdout)["findings"]]

    assert any(str(aside) in what and "not taken over yet" in what for what in findings())
    with closing(opened(outbox_path)):
        pass
    assert any(str(aside) in what for what in findings())
    assert not any("not taken over yet" in what for what in findings())


@pytest.mark.parametrize("how", ["gone", "a directory", "rubbish"])
def test_a_set_aside_file_that_cannot_be_read_any_more_is_told_once_and_stops_nothing(
    outbox_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    damaged_and_left_in_salvage(outbox_path, "set aside")
    (aside,) = set_aside(outbox_path)
    aside.unlink()
    if how == "a directory":
        aside.mkdir()
    elif how == "rubbish":
        aside.write_bytes(b"rubbish " * 100_000)
    for _ in range(2):
        with closing(opened(outbox_path)) as outbox:
            outbox.record(new := event(), None, False)
            assert new.id in ids(outbox)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    # Beside rubbish the -wal of the set may still be there, and some of what it holds be readable.
    assert ("could be read from it" if how == "rubbish" else "cannot be read") in caplog.text
    assert str(aside) in caplog.text
    assert aside.exists() == (how != "gone")


@pytest.mark.parametrize("note", ["", "[", "{}", '[{"aside": "../other.damaged-1", "why": ""}]'])
def test_a_note_that_is_none_any_more_is_told_once_and_stops_nothing(
    outbox_path: Path, note: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = filled(outbox_path)
    Path(asides.note_path(str(outbox_path))).write_text(note)
    for _ in range(2):
        with closing(opened(outbox_path)) as outbox:
            assert ids(outbox) == set(made)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_process_whose_copying_fails_tries_again_with_the_same_files(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = filled(outbox_path)
    with closing(opened(outbox_path)) as outbox:
        outbox_path.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(salvage, "copy_lost", full_disk)
            for _ in range(3):
                with pytest.raises(OutboxError, match="full"):
                    outbox.record(event(), None, False)
        outbox.record(event(), None, False)
        assert ids(outbox) > set(made)
    assert len(set_aside(outbox_path)) == 1
    assert not list(outbox_path.parent.glob("*.owed*"))


def full_disk(*_: object) -> int:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


# --- however much there is --------------------------------------------------------------------------------------------

MANY, BODY = 50_000, 1_000


def resident_bytes(what: str) -> int:
    """``VmRSS``, what the process holds, or ``VmHWM``, the most that it held."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(what + ":")[1].split()[0]) * 1024


def give_back_free_memory() -> None:
    """What the C library keeps for the next allocation goes back to the system, where there is a call for it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def much(path: Path) -> None:
    """An outbox with fifty megabytes of events, none delivered."""
    with closing(opened(path)) as outbox:
        rows = ((f"id-{n}", n, crc32(body.encode()), body) for n in range(MANY) for body in ["x" * BODY])
        outbox.write(
            lambda con: con.executemany(
                "INSERT INTO events (id, task, agent, type, priority, recorded_us, crc, body) "
                "VALUES (?, 't', 'a', 'task.status.v1', 'low', ?, ?, ?)",
                rows,
            )
        )


needs_clear_refs = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")


def salvaged(into: Path, path: Path, copy: Callable[..., int]) -> tuple[int, int]:
    """How many events were copied, and how much more memory the process held meanwhile than before."""
    with closing(opened(into)) as outbox, closing(connect(str(path))) as old:
        give_back_free_memory()  # what earlier tests left free in this process would hide what is needed now
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_bytes("VmRSS")
        copied = outbox.write(lambda con: copy(old, con, "00000000-0000-4000-8000-000000000000", 0))
        most = resident_bytes("VmHWM") - before
        assert len(places(outbox)) == MANY
        return copied, most


@needs_clear_refs
@pytest.mark.parametrize("copy", [salvage.copy_undelivered, salvage.copy_readable], ids=["lost", "damaged"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing there", "all there"])
def test_a_salvage_holds_no_more_in_memory_however_much_it_copies(
    outbox_path: Path, copy: Callable[..., int], there: bool
) -> None:
    other = outbox_path.with_name("other.db")
    much(outbox_path)
    if there:
        much(other)
    copied, most = salvaged(other, outbox_path, copy)
    assert copied == (0 if there else MANY)
    assert most < MANY * BODY / 4


@needs_clear_refs
def test_control_rows_that_are_held_are_seen_in_memory(outbox_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    much(outbox_path)
    honest = salvage._copy_events
    monkeypatch.setattr(salvage, "_copy_events", lambda rows, con: honest(list(rows), con))
    assert salvaged(outbox_path.with_name("other.db"), outbox_path, salvage.copy_undelivered)[1] > MANY * BODY / 2


def meet_damage(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """SQLite calls the file malformed so often: when it is, and when the disk cannot read it."""
    note, met = past.Past.note, []

    def malformed(self: past.Past, con: sqlite3.Connection) -> None:
        if len(met) < times:
            met.append(True)
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        note(self, con)

    monkeypatch.setattr(past.Past, "note", malformed)


def ids_in(outbox: Outbox) -> set[str]:
    return {entry.id for entry in outbox.query(lambda con: list(journal.newest(con, None, 0, 10**6)))}


def test_damage_that_only_the_last_look_meets_is_damage_like_any_other(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check at the start is bounded, and the mark of what the journal holds is written after it."""
    ids = filled(outbox_path)
    monkeypatch.setattr(checkup, "AT_START_BYTES", 0)
    meet_damage(monkeypatch, 2)  # once, and once more as it is: a read error of the disk looks the same
    with closing(opened(outbox_path)) as outbox:
        assert set(ids) <= ids_in(outbox)
    assert list(outbox_path.parent.glob("outbox.db.damaged*"))


def test_a_file_that_is_sound_once_the_disk_can_read_it_stays_where_it_is(
    outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = filled(outbox_path)
    meet_damage(monkeypatch, 2)
    with closing(opened(outbox_path)) as outbox:
        record(outbox)
        assert (len(ids_in(outbox)), ids_in(outbox) >= set(ids)) == (len(ids) + 1, True)
    assert not list(outbox_path.parent.glob("outbox.db.damaged*"))


def test_a_file_that_is_called_sound_and_meets_damage_again_is_set_aside(outbox_path: Path) -> None:
    error = checkup.damage("a page that the check does not look at")
    with closing(opened(outbox_path)) as outbox:
        record(outbox)
        for is_set_aside in (False, True):
            outbox._store.recover(error, is_certain=True)
            found = list(outbox_path.parent.glob("outbox.db.damaged*"))
            assert (bool(found), len(ids_in(outbox))) == (is_set_aside, 1)
