"""What an outbox is known to have held, kept beside it: so that a loss is noticed which SQLite cannot see.

A -wal that is deleted, cut, zeroed or has one bit flipped looks to SQLite like one that ends earlier, and an older copy
of the database looks like any database. So the file ``.mark`` says, outside SQLite, which source the outbox had, how
far its journal reached and what its database file looked like. It is written at checkpoints, by the housekeeping, at
every fiftieth record and at the end, never for a single record, and not synced: a mark that is behind notices less, and
one that does not fit its checksum is as good as none.

Everybody who has the outbox open holds the file locked shared. So the first one knows that nobody else is there, and
that a -wal, or a database that changed, was left by somebody who did not end: then the file is worth a check.
See docs/decisions/0013-what-is-noticed.md.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from threading import Lock
from zlib import crc32

from attrs import evolve, frozen

from orchclient.outbox import identity, journal
from orchclient.outbox.files import create_lock_file
from orchclient.outbox.patience import Patience
from orchclient.outbox.wal import wal_bytes

_LENGTH = 256
_ENTER_TOTAL_S = 0.5


@frozen
class Mark:
    """What was known at a moment: the source and the last place, and the database file as it was then."""

    source: str
    seq: int
    size: int = -1
    mtime_ns: int = -1
    ino: int = -1

    def text(self) -> bytes:
        """One line of a fixed length, with a checksum."""
        line = f"orchclient-mark 1 {self.source} {self.seq} {self.size} {self.mtime_ns} {self.ino}"
        return f"{line} {crc32(line.encode()):08x}".ljust(_LENGTH - 1).encode() + b"\n"


def mark_of(text: bytes) -> Mark | None:
    """The mark that a text is; None when it is none, or not whole."""
    line, _, checksum = text.decode(errors="replace").rstrip().rpartition(" ")
    fields = line.split(" ")
    if len(fields) != 7 or fields[:2] != ["orchclient-mark", "1"] or f"{crc32(line.encode()):08x}" != checksum:
        return None
    source, *numbers = fields[2:]
    return Mark(source, *map(int, numbers))


class Past:
    """The mark of one outbox, open in one process. Looked at before SQLite opens the files."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = create_lock_file(Path(path + ".mark"))
        self._known = mark_of(os.pread(self._fd, _LENGTH, 0))
        self._at_work = Lock()  # else one thread could write to a descriptor that another one closed: any file by then
        self._source: str | None = None  # the newest that was seen; one that was renewed since names the same file
        self.is_first = self._enter()  # nobody else has the outbox open
        self.ended_well = not wal_bytes(path) and self._known in (None, self._as_it_is(self._known))

    def _enter(self) -> bool:
        is_first = self._is_alone()
        patience = Patience.of(_ENTER_TOTAL_S)
        while True:
            with suppress(BlockingIOError):  # somebody else looks whether he is the first, or the last
                flock(self._fd, LOCK_SH | LOCK_NB)
                return is_first
            if not patience.pause():
                return False

    def _is_alone(self) -> bool:
        with suppress(BlockingIOError):
            flock(self._fd, LOCK_EX | LOCK_NB)
            return True
        return False

    def missing(self, con: sqlite3.Connection) -> int | None:
        """How many events are known to be missing at the end; None when the journal is what it was, or goes on.

        All of them when the file does not know their source: it is another outbox, or older than that source.
        """
        known = self._known
        if known is None or not known.seq:
            return None
        if known.source not in identity.identities(con).sources:
            return known.seq
        return known.seq - last_seq if (last_seq := journal.last_seq(con)) < known.seq else None

    def note(self, con: sqlite3.Connection) -> None:
        """Write down what the journal holds now. What cannot be written is left: the mark is a help, no promise."""
        self._source = identity.identities(con).newest
        self._note_place(self._source, journal.last_seq(con))

    def note_place(self, seq: int) -> bool:
        """The same, of a journal that is known to reach up to ``seq``, without a question; False if one is needed."""
        if self._source is not None:
            self._note_place(self._source, seq)
        return self._source is not None

    def _note_place(self, source: str, seq: int) -> None:
        mark = self._as_it_is(Mark(source, seq))
        if mark is not None and mark != self._known:
            self._write(mark)

    def leave(self) -> None:
        """After the connections are closed: the last one writes down how it leaves the file. Ends this object."""
        try:
            with suppress(OSError):  # a disk with a bad moment: the next one checks the file, which does no harm
                is_open = self._fd >= 0  # not after an opening that failed
                if is_open and self._known is not None and self._is_alone() and not wal_bytes(self._path):
                    self._write(self._as_it_is(self._known))
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptor without unlocking: in a forked child an unlock would free the parent's lock."""
        with self._at_work:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def start_anew(self) -> None:
        """In a forked child: whoever was writing in the parent is not here to end it."""
        self._at_work = Lock()

    def _as_it_is(self, mark: Mark | None) -> Mark | None:
        """The mark with the database file as it is now."""
        if mark is None:
            return None
        try:
            info = os.stat(self._path)
        except OSError:
            return None
        return evolve(mark, size=info.st_size, mtime_ns=info.st_mtime_ns, ino=info.st_ino)

    def _write(self, mark: Mark | None) -> None:
        if mark is None:
            return
        text = mark.text()
        with self._at_work, suppress(OSError):
            if self._fd >= 0:
                os.pwrite(self._fd, text, 0)
                self._known = mark


def mark_beside(path: str) -> Mark | None:
    """The mark of the outbox at ``path``, for people; None when there is none."""
    try:
        return mark_of(Path(path + ".mark").read_bytes())
    except OSError:
        return None
