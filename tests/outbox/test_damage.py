"""Damaged files: noticed, set aside under a dated name, read as far as they can be, and recording goes on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchclient.core.errors import OutboxError
from orchclient.outbox import identity
from orchclient.outbox.outbox import Outbox
from tests.outbox.test_outbox import event, opened, places

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
    with pytest.raises(OutboxError, match="not an outbox"):
        opened(outbox_path)
    assert outbox_path.read_text().startswith("a thesis")
