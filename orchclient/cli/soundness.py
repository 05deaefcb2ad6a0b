"""What ``orchclient doctor`` says of SQLite, the file, where it lies, and whether it is whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orchclient import config
from orchclient.cli.finding import Finding
from orchclient.cli.output import age, plural, size
from orchclient.core.errors import OutboxError
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import checkup, files, filesystems, journal
from orchclient.outbox.outbox import Outbox

CHECK_S = 5.0
AHEAD_S = 60.0


def sqlite() -> Iterator[Finding]:
    """The linked library, and what follows from its version."""
    if checkup.has_wal_reset_bug():
        yield Finding(
            "ok",
            f"orchclient's gate keeps the WAL-reset bug of SQLite {checkup.sqlite_version()} away (a checkpoint that "
            "meets a commit could corrupt the file)",
            "Let no other program write to the outbox file, or use a Python with SQLite 3.51.3 or later.",
        )
    else:
        yield Finding("ok", f"SQLite {checkup.sqlite_version()}, without the WAL-reset bug")


def file(settings: config.Settings, path: str) -> Iterator[Finding]:
    """Who may read it, what it lies on, and how much room is left."""
    yield _permissions(path)
    yield _file_system(path)
    free = files.free_bytes(Path(path))
    if free < settings.min_free_bytes:
        yield Finding(
            "problem",
            f"{size(free)} are free on its file system, less than min_free_bytes ({size(settings.min_free_bytes)}): "
            "status updates are refused",
            "Make room on the disk, or: orchclient prune",
            "space",
        )
    else:
        yield Finding("ok", f"{size(free)} are free on its file system", check="space")


def _permissions(path: str) -> Finding:
    """Opening refuses what others could write to; what they could read is told here as well."""
    modes = {
        name: stat.S_IMODE(os.stat(name).st_mode) for name in (path, os.path.dirname(path)) if os.path.exists(name)
    }
    shown = ", ".join(f"{mode:04o}" for mode in modes.values())
    if any(mode & 0o077 for mode in modes.values()):
        cure = f"chmod 600 {path}; chmod 700 {os.path.dirname(path)}"
        return Finding("problem", f"Others can reach the outbox (file and directory have {shown})", cure, "permissions")
    return Finding("ok", f"Only you can reach it (file and directory have {shown})", check="permissions")


def _file_system(path: str) -> Finding:
    kind = filesystems.kind_at(path)
    if kind and filesystems.is_remote(kind):
        return Finding(
            "warning",
            f"It lies on {kind}, on which SQLite's WAL is not safe (allow_network_filesystem is set)",
            "Move it to a local disk, and name that in ORCHCLIENT_DB.",
            "file_system",
        )
    return Finding("ok", f"It lies on {kind or 'a file system whose type cannot be told'}", check="file_system")


def integrity(outbox: Outbox) -> Iterator[Finding]:
    """Whether the file is sound, the newest events are what was recorded, and their time has come."""
    yield _quick_check(outbox)
    if spoiled := outbox.query(checkup.spoiled):
        what = f"{plural(spoiled, 'event')} of the newest {checkup.NEWEST} do not fit their checksum"
        yield Finding("problem", what, "They become dead letters. Look for a failing disk.")
    newest_us = outbox.query(lambda con: journal.recorded_us(con, journal.last_seq(con)))
    ahead_s = ((newest_us or 0) - SystemClock.now_us()) / 1e6
    if ahead_s > AHEAD_S:
        yield Finding(
            "warning",
            f"The newest event is dated {age(ahead_s)} ahead: the clock was set back since",
            "Order goes by sequence, so nothing is lost. See to the clock: timedatectl",
        )


def _quick_check(outbox: Outbox) -> Finding:
    try:
        said = outbox.query(lambda con: checkup.quick_check(con, CHECK_S))
    except OutboxError as error:
        said = str(error)
    if said == "ok":
        return Finding("ok", "The file is sound (quick_check)")
    if said == checkup.TOO_LONG:
        return Finding("ok", f"The file is too large to be checked within {CHECK_S:.0f} s")
    return Finding("problem", f"The file is damaged: {said}", "Copy it away together with its -wal, then ask for help.")
