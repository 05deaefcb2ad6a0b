"""Reads the journal that the disk shim wrote: what was asked of the disk, and the notes of the program in between."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_HEAD = struct.Struct("<IIIIQQQ")
_MAGIC = 0x314B5344

CREATE, MAKE_DIRECTORY, WRITE, TRUNCATE, SYNC, SYNC_DIRECTORY = "C", "K", "W", "T", "S", "D"
FAILED_SYNC, UNLINK, RENAME, LINK, MAPPED, LOCK, NOTE = "F", "U", "R", "L", "M", "G", "A"


class Record(NamedTuple):
    """One operation, after it was done. ``data`` is what was written, the second name, or the text of a note.

    Of a lock, ``offset`` is the operation of flock(2), and above its lowest eight bits the descriptor.
    """

    what: str
    pid: int
    inode: int
    offset: int
    path: str
    data: bytes
    monotonic_s: float

    @property
    def note(self) -> dict[str, Any]:
        """The note that the program wrote into the journal."""
        note: dict[str, Any] = json.loads(self.data)
        return note


def records(journal: Path) -> list[Record]:
    """All records of a journal, in order."""
    return list(_parsed(journal.read_bytes()))


def _parsed(text: bytes) -> Iterator[Record]:
    at = 0
    while at < len(text):
        magic, path_length, data_length, who, inode, offset, ns = _HEAD.unpack_from(text, at)
        assert magic == _MAGIC, f"the journal is broken at byte {at}"
        at += _HEAD.size
        middle, end = at + path_length, at + path_length + data_length
        path, data = text[at:middle].decode(), text[middle:end]
        yield Record(chr(who & 0xFF), who >> 8, inode, offset, path, data, ns / 1e9)
        at = end
