"""What ``orchclient doctor`` says of losses: set-aside files, a tail that is missing, an outbox that is gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchclient.cli.finding import Finding
from orchclient.core.timestamps import rfc3339
from orchclient.outbox import asides, identity, owed, salvage
from orchclient.outbox.past import mark_beside
from orchclient.outbox.wal import wal_bytes

READ_S = 2.0

_CHANGES = {
    "damaged": (
        "the file was damaged: it was set aside, and what could be read of it goes on from event {seq} on",
        "The set-aside file is named below.",
    ),
    "salvaged": (
        "its files were removed or replaced while in use: the events that were not delivered go on from event {seq} on",
        "Find out what removes them: a cleaner of temporary files, a test's teardown, a second copy of the state.",
    ),
    identity.LOST_TAIL: (
        "{reason} from its end; what was recorded since goes on from event {seq} on",
        "Its -wal or the file was removed, damaged or replaced by an older copy while nobody had it open, or the power "
        "failed within a second of progress updates. With a receiver that has them nothing is missing there.",
    ),
    "sequence conflict": (
        "the receiver held other events under its numbers: it was restored or copied, and goes on from event {seq} on",
        "Let no two hosts use copies of one outbox.",
    ),
}


def changes_of_identity(changes: list[identity.Change]) -> Iterator[Finding]:
    """Each moment from which on an outbox sends under a new source, and why."""
    for change in changes:
        kind = change.reason.partition(":")[0]
        what, cure = _CHANGES.get(kind, ("{reason}; it goes on from event {seq} on", ""))
        told = what.format(reason=change.reason, seq=change.first_seq)
        yield Finding("warning", f"{rfc3339(change.since_us)}: {told}, under a new source", cure)


def set_asides(path: str) -> Iterator[Finding]:
    """Each file that was set aside, and what can be read from it."""
    for aside in asides.set_asides(path):
        yield Finding(
            "warning",
            f"{aside} was set aside as damaged: {os.stat(aside).st_size:,} bytes, its -wal {wal_bytes(aside):,}; "
            f"{salvage.readable_events(aside, READ_S)} whole events can be read",
            "What could be read of it and was not delivered was taken over at once. Keep it, with its -wal and -shm, "
            'until nothing is missing (sqlite3 FILE ".recover" may read more), then delete it yourself.',
        )


def unfinished(path: str) -> Iterator[Finding]:
    """Each set-aside file whose events are not taken over yet."""
    with suppress(OSError):
        for entry in owed.owed(path):
            yield Finding(
                "problem",
                f"{entry.path(path)} was set aside ({entry.why}), and what can be read of it is not taken over yet: "
                "the process that did it ended in the middle, or is still at it",
                "Let nobody move it. Whoever opens the outbox next ends it: once nothing else is wrong, orchclient "
                "status is enough. If it cannot be read, that is told in the log, and the note "
                f"{asides.note_path(path)} goes.",
            )


def gone(path: Path) -> Iterator[Finding]:
    """What is left beside an outbox whose file is not there."""
    mark = mark_beside(str(path))
    if mark is not None and mark.seq:
        yield Finding(
            "problem",
            f"The outbox file {path} is gone: it held events up to {mark.seq}"
            + (f", and its -wal is still there ({wal_bytes(str(path)):,} bytes)" if wal_bytes(str(path)) else ""),
            "If it was moved, move it back before anything is recorded. The next record call makes a new one, and sets "
            "aside what is left.",
        )
    yield from set_asides(str(path))
    yield from unfinished(str(path))
