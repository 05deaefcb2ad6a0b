"""Damage done to the files of an outbox while nobody has it open, or under a live client.

Each kind of damage changes the files of a directory at seeded places. What an outbox looks like before: an agent was
killed, 300 of its 400 events are in the database and the last hundred only in the -wal; or it ended well.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from orchclient import OrchestratorClient
from orchclient.delivery import settlement
from orchclient.outbox import outbox, salvage, store
from orchclient.outbox.past import Past
from tests.faults.preload import REPOSITORY, command

PAGE = 4096
IN_DATABASE, IN_ALL = 300, 400
LIVE_WAL = (IN_ALL - IN_DATABASE) * (24 + PAGE)
"""Bytes of the -wal that count for sure: what is behind them may be left from before the last checkpoint."""


@frozen
class Files:
    """The files of one outbox."""

    directory: Path

    @property
    def database(self) -> Path:
        """The database file."""
        return self.directory / "outbox.db"

    @property
    def wal(self) -> Path:
        """Its -wal."""
        return self.directory / "outbox.db-wal"

    @property
    def shm(self) -> Path:
        """Its -shm."""
        return self.directory / "outbox.db-shm"


Damage = Callable[[Files, random.Random], None]


def _poke(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def _flip_bit(path: Path, place: int, rng: random.Random) -> None:
    was = path.read_bytes()[place]
    _poke(path, place, bytes([was ^ 1 << rng.randrange(8)]))


def wal_deleted(files: Files, rng: random.Random) -> None:
    files.wal.unlink()


def wal_zeroed(files: Files, rng: random.Random) -> None:
    _poke(files.wal, 0, bytes(files.wal.stat().st_size))


def wal_cut(files: Files, rng: random.Random) -> None:
    os.truncate(files.wal, rng.randrange(LIVE_WAL))


def wal_bit(files: Files, rng: random.Random) -> None:
    _flip_bit(files.wal, rng.randrange(32, LIVE_WAL), rng)


def shm_deleted(files: Files, rng: random.Random) -> None:
    files.shm.unlink()


def shm_garbage(files: Files, rng: random.Random) -> None:
    _poke(files.shm, 0, rng.randbytes(32_768))


def database_deleted(files: Files, rng: random.Random) -> None:
    files.database.unlink()


def database_emptied(files: Files, rng: random.Random) -> None:
    os.truncate(files.database, 0)


def database_cut(files: Files, rng: random.Random) -> None:
    os.truncate(files.database, rng.randrange(PAGE, files.database.stat().st_size - PAGE))


def database_zeroed(files: Files, rng: random.Random) -> None:
    _poke(files.database, 0, bytes(files.database.stat().st_size))


def header_zeroed(files: Files, rng: random.Random) -> None:
    _poke(files.database, 0, bytes(100))


def text_over_the_start(files: Files, rng: random.Random) -> None:
    _poke(files.database, 0, b"this is not a database, it is a text\n" * 200)


def page_overwritten(files: Files, rng: random.Random) -> None:
    pages = files.database.stat().st_size // PAGE
    _poke(files.database, PAGE * rng.randrange(2, pages), rng.randbytes(PAGE))


def set_deleted(files: Files, rng: random.Random) -> None:
    for path in (files.wal, files.shm, files.database):
        path.unlink(missing_ok=True)


def older_copy(files: Files, rng: random.Random) -> None:
    """A backup is put back: what an agent left a hundred events ago, without its -wal."""
    set_deleted(files, rng)
    shutil.copy2(files.directory / "older.db", files.database)


def older_copy_under_the_wal(files: Files, rng: random.Random) -> None:
    """Only the database is put back, beside a -wal that belongs to another state of it."""
    shutil.copy2(files.directory / "older.db", files.database)


def somebody_elses_outbox(files: Files, rng: random.Random) -> None:
    set_deleted(files, rng)
    shutil.copy2(files.directory / "stranger.db", files.database)


def payload_bit(files: Files, rng: random.Random) -> None:
    """One bit of the text of an event in the database."""
    text = b'"current_step":"call %d of many' % rng.randrange(100, 280)
    _flip_bit(files.database, files.database.read_bytes().index(text) + rng.randrange(16, 30), rng)


# --- agents ---------------------------------------------------------------------------------------------------------


def leave(directory: Path, *, how: str) -> list[str]:
    """Let an agent record and end, ``killed`` or ``closed``, in a process of its own; the ids of its events."""
    done = subprocess.run(
        command("damage_trials", directory, how), cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    ids: list[str] = json.loads(done.stdout)
    return ids


def main(directory: str, how: str) -> None:
    """Record as ``leave`` says."""
    outbox.CHECKPOINT_AFTER = outbox.CHECKPOINT_MYSELF_AFTER = sys.maxsize
    path = Path(directory) / "outbox.db"
    client = OrchestratorClient("a", outbox=path, mode="offline", background=False, min_free_bytes=1)
    box: Any = client._station._outbox  # type: ignore[union-attr]
    ids = []
    for number in range(IN_ALL):
        step = f"call {number} of many " + "x" * 300
        ids.append(client.update_task_status(f"t{number % 3}", "testing", current_step=step).event_id)
        if number == 200:
            box._store.checkpoint()
            shutil.copy2(path, Path(directory) / "older.db")
        if number == IN_DATABASE - 1:
            box._store.checkpoint()
    print(json.dumps(ids), flush=True)
    if how == "closed":
        client.close(0)
    os.kill(os.getpid(), signal.SIGKILL)


# --- builds with a planted bug --------------------------------------------------------------------------------------


def keeps_no_mark(patch: Any) -> None:
    """Nothing is known beside the file."""
    patch.setattr(Past, "missing", lambda self, con: None)


def checks_nothing_at_start(patch: Any) -> None:
    """An end that was no end is taken for one."""
    patch.setattr(store.Store, "_face_past", lambda self, con: None)


def believes_every_row(patch: Any) -> None:
    """Checksums are not compared."""
    patch.setattr(settlement, "damaged_among", lambda rows: [])


def salvages_nothing(patch: Any) -> None:
    """What can be read of damaged files is left in them."""
    patch.setattr(salvage, "copy_readable", lambda damaged, con, source, now_us: 0)


def lets_sqlite_have_the_wal(patch: Any) -> None:
    """An empty database is opened although its -wal is not."""
    patch.setattr(store.Store, "refuse_lone_wal", lambda self: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
