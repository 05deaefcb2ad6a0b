"""Recordings as files: an outbox written to one, one read line by line, and one taken into an outbox.

A recording may come from anywhere, so every line is bounded and checked before anything of it is stored. However long
it is, a few hundred lines are in memory at a time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile, mkstemp
from typing import IO, Any, Protocol, TypeVar

from attrs import define, evolve, frozen

from orchclient import __version__
from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.errors import InvalidRecording, OutboxError
from orchclient.core.recording import LINE_BYTES, Header, Hole, header_of, hole_of, redacted, stored_event
from orchclient.core.redaction import Redactor
from orchclient.core.timestamps import rfc3339
from orchclient.outbox import carrying, identity, journal
from orchclient.outbox.carrying import Arriving, Slice, Wanted
from orchclient.station import Station

T = TypeVar("T")

IN_MEMORY_BYTES = 1_048_576
HOLES_IN_A_ROW = 10_000


# --- writing ------------------------------------------------------------------------------------------------------


class Asked(Protocol):
    """Whoever answers questions of an outbox: one that is only looked at will do."""

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer, from one consistent state."""


def export(
    outbox: Asked,
    out: IO[bytes],
    redactor: Redactor,
    now_us: int,
    *,
    wanted: Wanted | None = None,
    since_us: int | None = None,
    selection: dict[str, Any] | None = None,
) -> Header:
    """Write what the outbox holds now, redacted, oldest first; what is recorded meanwhile is left out.

    ``selection`` names the filters in the header. The lines are put together before the first one is written, since the
    header counts them. Raises ``OutboxError``.
    """
    source, last = outbox.query(lambda con: (identity.identities(con).newest, journal.last_seq(con)))
    first = outbox.query(journal.first_seq) or 1
    if since_us is not None:
        first = max(first, min(outbox.query(lambda con: journal.first_since(con, since_us)), last + 1))
    header = Header(f"urn:uuid:{source}", first, last, 0, rfc3339(now_us), __version__, selection or {})
    with SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as body:
        count = 0
        for line in _lines(outbox, first - 1, last, wanted or Wanted()):
            is_event = not isinstance(line, Hole)
            text = redacted(line[1], redactor) if not isinstance(line, Hole) else line.text()
            body.write(text.encode() + b"\n")
            count += is_event
        header = evolve(header, events=count)
        out.write(header.text().encode() + b"\n")
        body.seek(0)
        while chunk := body.read(IN_MEMORY_BYTES):
            out.write(chunk)
    return header


def _lines(outbox: Asked, after_seq: int, last_seq: int, wanted: Wanted) -> Iterator[carrying.Line]:
    while after_seq < last_seq:
        place = after_seq
        lines, after_seq = outbox.query(lambda con: carrying.read_slice(con, place, last_seq, wanted))  # noqa: B023
        yield from lines


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that only its owner can read, and that is there whole or not at all: renamed when the block has ended.

    Raises ``OutboxError`` when it cannot be written.
    """
    temporary = None
    try:
        descriptor, temporary = mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutboxError(f"{path} cannot be written ({error.strerror or error}): name another file") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


# --- reading ------------------------------------------------------------------------------------------------------


@frozen
class Told:
    """One event of a recording, and the line on which it stands."""

    line: int
    event: dict[str, Any]
    recorded_us: int

    @property
    def seq(self) -> int:
        """Its place in the journal that was exported."""
        return int(self.event["sequence"])


class Reading:
    """A recording that is being read: the header, then its lines, each checked against the wire contract.

    Raises ``InvalidRecording`` with the number of the line, when it is made or while it is read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.header = header_of(_value(1, self._line(1)))

    def _line(self, number: int) -> bytes:
        line = self._file.readline(LINE_BYTES + 1)
        if len(line) > LINE_BYTES:
            raise InvalidRecording(number, f"is longer than {LINE_BYTES:,} bytes: no event is")
        return line

    def __iter__(self) -> Iterator[Told | Hole]:
        """Every event and every hole, in order. At the end it is known that none is missing."""
        number, place, count = 1, self.header.first, 0
        while line := self._line(number + 1):
            number += 1
            told = self._told(number, line, count)
            first, last = (told.first, told.last) if isinstance(told, Hole) else (told.seq, told.seq)
            count += isinstance(told, Told)
            _check_place(number, place, first, self.header)
            place = last + 1
            yield told
        if count != self.header.events:
            raise InvalidRecording(number, _cut(count, self.header))

    def _told(self, number: int, line: bytes, count: int) -> Told | Hole:
        try:
            value = _value(number, line)
        except InvalidRecording:
            if line.endswith(b"\n"):
                raise
            raise InvalidRecording(number, _cut(count, self.header)) from None
        return hole_of(value, number) if isinstance(value, dict) and "gap" in value else _told(number, line, value)


def _cut(count: int, header: Header) -> str:
    return f"the recording has {count} of the {header.events} events that its header counts: copy it again"


def _check_place(number: int, place: int, first: int, header: Header) -> None:
    if first < place:
        raise InvalidRecording(number, f"place {first} stands behind {place - 1}: the lines are not in their order")
    if header.is_whole and first > place:
        raise InvalidRecording(number, f"nothing is said of the places from {place} to {first - 1}: a line is missing")


def _value(number: int, line: bytes) -> Any:
    if not line:
        raise InvalidRecording(number, "the file is empty. Write a recording: orchclient export")
    if line.startswith(b"SQLite format 3"):
        raise InvalidRecording(
            number, "this is an outbox itself. Write a recording of it: orchclient --db FILE export -o NEW"
        )
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRecording(number, f"is no JSON ({error.msg}, at character {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRecording(number, f"is no JSON ({str(error)[:120]})") from None


def _told(number: int, line: bytes, event: Any) -> Told:
    from orchclient.server import reading  # the checks of the wire contract; knows no web framework

    try:
        (found,) = reading.read_batch(line, reading.SINGLE_TYPE, "", reading.Limits(1, LINE_BYTES))
    except reading.Refused as refused:
        raise InvalidRecording(number, str(refused)) from None
    if isinstance(found, reading.Spoiled):
        raise InvalidRecording(number, f"event {found.id} breaks the wire contract: {found.detail}")
    if not found.type.startswith(TYPE_PREFIX):
        raise InvalidRecording(number, f"event {found.id} has a type that no agent records: {found.type[:80]!r}")
    return Told(number, event, found.time_us)


# --- taking in ----------------------------------------------------------------------------------------------------


@define
class Taken:
    """What became of a recording: events that are new here, and those that the outbox had already."""

    events: int = 0
    imported: int = 0

    @property
    def known(self) -> int:
        """How many it had."""
        return self.events - self.imported


def import_into(station: Station | None, file: IO[bytes], now_us: int, *, is_dry: bool = False) -> tuple[Header, Taken]:
    """Take a whole recording in; ``file`` can be read twice. Again, it changes nothing.

    All of it is checked before anything is stored. Then it is stored slice by slice, each durable against power loss:
    after a crash the same call goes on. ``station`` None: an outbox that does not exist yet, for a dry run. Raises
    ``InvalidRecording``, and ``OutboxError`` when the disk cannot store or a limit is reached.
    """
    header = _examined(station, file)
    if is_dry or station is None:
        return header, _dry(station, file)
    taken = Taken()
    for part in _slices(file):
        work: Callable[[Any], int] = lambda con: carrying.take_in(con, part, station.new_source, now_us)  # noqa: B023, E731
        taken.events += len(part.events)
        taken.imported += station.take_in(work)
    return header, taken


def _examined(station: Station | None, file: IO[bytes]) -> Header:
    """Look at every line; of the outbox, whether the places are free or hold these events."""
    file.seek(0)
    header = Reading(file).header
    if not header.is_whole:
        names = ", ".join(header.selection)
        raise InvalidRecording(
            1, f"this is a selection (by {names}), for tests: what it lacks could never be filled in. Export the whole"
        )
    last_seq = station.query(journal.last_seq) if station is not None else 0
    for number, part in enumerate(_slices(file)):
        if station is not None and (number == 0 or part.first_seq <= last_seq):
            station.query(lambda con: carrying.missing_of(con, part))  # noqa: B023
    return header


def _dry(station: Station | None, file: IO[bytes]) -> Taken:
    last_seq = station.query(journal.last_seq) if station is not None else 0
    taken = Taken()
    for part in _slices(file):
        taken.events += len(part.events)
        taken.imported += sum(each.seq > last_seq for each in part.events)
    return taken


def _slices(file: IO[bytes]) -> Iterator[Slice]:
    file.seek(0)
    reading = Reading(file)
    first_seq = reading.header.first
    events: list[Arriving] = []
    holes: list[Hole] = []
    for told in reading:
        if isinstance(told, Hole):
            holes.append(told)
            if len(holes) > HOLES_IN_A_ROW:
                raise InvalidRecording(0, f"more than {HOLES_IN_A_ROW:,} gaps without an event between them")
            continue
        event = stored_event(told.event, told.recorded_us)
        source = told.event["source"].removeprefix("urn:uuid:")
        events.append(Arriving(told.line, source, told.seq, event))
        if len(events) == carrying.SLICE or len(holes) > carrying.SLICE:
            yield Slice(first_seq, events, holes)
            first_seq, events, holes = told.seq + 1, [], []
    if events:
        yield Slice(first_seq, events, holes)


def events_of(file: IO[bytes]) -> tuple[Header, Sequence[dict[str, Any]]]:
    """The header and all events of a recording, for tests: in memory."""
    reading = Reading(file)
    return reading.header, [told.event for told in reading if isinstance(told, Told)]


def recording_text(header: Header, events: Iterable[dict[str, Any]]) -> str:
    """A recording of events, for tests: one line each, members in the order of the wire."""
    lines = [header.text(), *(json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events)]
    return "\n".join(lines) + "\n"
