"""A note beside the outbox that names what was set aside, until its events are in the file at the path.

A process can end, or the power fail, between the renaming of damaged files and the commit of what could be read of
them. So the note is on the disk before the first file is renamed and goes after the commit; whoever opens an outbox
with a note ends first what was begun. All here is called under the salvage lock, or to tell people.
Must not know what is inside the files.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from attrs import asdict, evolve, frozen

from orchclient.outbox.asides import is_noted, note_path
from orchclient.outbox.files import sync_directory

log = logging.getLogger("orchclient")

_COMPANIONS = ("-wal", "-shm")
ENDINGS = (*_COMPANIONS, "")
PAGE = 4096


@frozen
class Owed:
    """A set of files that goes, or went, to a name of its own, and why."""

    aside: str  # the name of its database, beside the outbox
    why: str
    is_moved: bool = False

    def path(self, outbox: str) -> str:
        """Where its database is."""
        return os.path.join(os.path.dirname(outbox), self.aside)


def owed(path: str) -> list[Owed]:
    """What the note names, oldest first; nothing when it is no note any more. Raises ``OSError``."""
    with suppress(FileNotFoundError, ValueError, TypeError), open(note_path(path), opener=_not_a_link) as file:
        return [_checked(path, Owed(**each)) for each in json.load(file)]
    return []


def _not_a_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _checked(path: str, entry: Owed) -> Owed:
    if os.path.basename(entry.aside) != entry.aside or not entry.aside.startswith(f"{os.path.basename(path)}.damaged-"):
        raise ValueError(entry.aside)
    return entry


def move_aside(path: str, entry: Owed) -> None:
    """Rename the files at the path together; the note survives power loss before the first is renamed."""
    _write(path, [*owed(path), entry])
    _move(path, entry)


def end_moves(path: str) -> None:
    """Rename what a process, or the power, left at the path in the middle. A note that is none is told, and goes."""
    entries = owed(path)
    for entry in entries:
        if not entry.is_moved:
            _move(path, entry)
    if is_noted(path) and not entries:
        log.error(
            "outbox %s: %s is damaged: what files that were set aside held may not have been taken over. Recording "
            "goes on. Run orchclient doctor, which names them.",
            path,
            note_path(path),
        )
        _write(path, [])


def _move(path: str, entry: Owed) -> None:
    """The database goes last, behind a sync: once it has its new name, what stands at the path is something else."""
    aside, directory = entry.path(path), os.path.dirname(path)
    if not os.path.lexists(aside):
        for ending in _COMPANIONS:
            _rename(path + ending, aside + ending)
        sync_directory(directory)
        _rename(path, aside)
    _pad(aside)
    sync_directory(directory)
    _write(path, [evolve(each, is_moved=True) if each == entry else each for each in owed(path)])


def _rename(old: str, new: str) -> None:
    with suppress(FileNotFoundError):
        os.rename(old, new)


def _pad(aside: str) -> None:
    """Beside a database that is empty or gone, SQLite deletes the -wal instead of reading it: so it gets zeros."""
    if _size(aside + "-wal") and not _size(aside):
        if not os.path.lexists(aside):
            os.close(_new_file(aside))
        os.truncate(aside, PAGE)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def settle(path: str, entry: Owed) -> None:
    """Its events are committed, or it was told that they cannot be had. The files themselves stay."""
    _write(path, [each for each in owed(path) if each.aside != entry.aside])


def _write(path: str, entries: Iterable[Owed]) -> None:
    text = json.dumps([asdict(each) for each in entries])
    if text == "[]":
        Path(note_path(path)).unlink(missing_ok=True)
    else:
        _write_whole(note_path(path), text)
    sync_directory(os.path.dirname(path))


def _write_whole(name: str, text: str) -> None:
    new = name + ".new"
    with suppress(FileNotFoundError):
        os.unlink(new)  # of a process that ended here
    with open(_new_file(new), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, name)


def _new_file(name: str) -> int:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(file, 0o600)  # whatever the umask
    return file
