"""The lines of a recording: what ``orchclient export`` writes, ``import`` reads, and tests replay. Format 1.

JSON Lines in UTF-8. The first line is the header; then come, in the order of the journal, complete CloudEvents as
they are on the wire, and one line for each run of places that holds no event, with the reason. So a recording says
what it lacks, and one that was cut on its way is known by the header's count. Knows no files and no outbox.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from zlib import crc32

from attrs import field, frozen

from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.errors import InvalidRecording
from orchclient.core.events import Event
from orchclient.core.jsontext import encode, quote
from orchclient.core.redaction import Redactor

FORMAT: Final = 1
LINE_BYTES: Final = 2 * 1_048_576
"""Longer than any event may be (1 MiB), with room for what JSON escapes."""

HOLES: Final = ("dead", "folded", "expired", "delivered", "damaged")
"""Why a place holds no event: the reasons of ``gap.v1``, forgotten after it was delivered, or broken on that disk."""

_MOST_PLACES: Final = 2**53 - 1
_SOURCE: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


@frozen
class Header:
    """The first line: whose events these are, and which places of its journal the recording covers.

    ``selection`` holds the filters of the export; without any the recording is whole: every place from ``first`` to
    ``last`` is an event or a hole. ``source`` is the identity of the outbox at the time of the export.
    """

    source: str
    first: int
    last: int
    events: int
    recorded_at: str
    orchclient: str
    selection: dict[str, Any] = field(factory=dict)
    version: int = FORMAT

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out on purpose."""
        return not self.selection

    def text(self) -> str:
        """The line."""
        return encode(
            {
                "orchclient_recording": self.version,
                "orchclient": self.orchclient,
                "recorded_at": self.recorded_at,
                "source": self.source,
                "from": self.first,
                "to": self.last,
                "events": self.events,
                "selection": self.selection,
            }
        )


@frozen
class Hole:
    """Places from ``first`` to ``last`` that hold no event, and why."""

    first: int
    last: int
    reason: str

    def text(self) -> str:
        """The line."""
        return encode({"gap": {"from": self.first, "to": self.last, "reason": self.reason}})


def header_of(value: Any) -> Header:
    """The header that a first line is. Raises ``InvalidRecording`` with what is wrong."""
    if not isinstance(value, dict) or "orchclient_recording" not in value:
        raise InvalidRecording(1, "this is no recording: it does not begin with a header. Write one: orchclient export")
    version = value["orchclient_recording"]
    if version != FORMAT or isinstance(version, bool):
        raise InvalidRecording(1, f"format {str(version)[:20]!r} is not known here, only {FORMAT}: update orchclient")
    first, last, events = (_number(value, name) for name in ("from", "to", "events"))
    if not (_is_place(first) and _is_count(last) and _is_count(events) and first - 1 <= last):
        raise InvalidRecording(1, "from, to and events must be whole numbers, from at most one above to")
    source, selection = value.get("source"), value.get("selection", {})
    if not isinstance(source, str) or not _SOURCE.match(source):
        raise InvalidRecording(1, "source must be urn:uuid: and a UUID")
    if not isinstance(selection, dict):
        raise InvalidRecording(1, "selection must be an object")
    recorded_at, orchclient = (str(value.get(name, ""))[:64] for name in ("recorded_at", "orchclient"))
    return Header(source, first, last, events, recorded_at, orchclient, selection)


def hole_of(value: Any, line: int) -> Hole:
    """The hole that ``{"gap": ...}`` tells of. Raises ``InvalidRecording``."""
    gap = value["gap"] if isinstance(value["gap"], dict) else {}
    first, last, reason = _number(gap, "from"), _number(gap, "to"), gap.get("reason")
    if not (_is_place(first) and _is_place(last) and first <= last and reason in HOLES):
        raise InvalidRecording(line, f"a gap has from, to (not below it) and a reason: {', '.join(HOLES)}")
    return Hole(first, last, reason)


def _number(value: dict[str, Any], name: str) -> int:
    """A member that is a whole number; -1 for anything else."""
    found = value.get(name)
    return found if type(found) is int else -1


def _is_place(value: int) -> bool:
    return 1 <= value <= _MOST_PLACES


def _is_count(value: int) -> bool:
    return 0 <= value <= _MOST_PLACES


# --- events -------------------------------------------------------------------------------------------------------

_OPENING: Final = ("specversion", "source", "sequence")
_ORDER: Final = ("id", "type", "subject", "partitionkey", "agentid", "time", "priority")
_LAST: Final = ("dataschema", "data")


def stored_event(event: dict[str, Any], recorded_us: int) -> Event:
    """A CloudEvent that was checked, as a journal keeps it: its members in the order in which a record call writes."""
    others = [name for name in event if name not in (*_OPENING, *_ORDER, *_LAST)]
    members = ",".join(f"{quote(name)}:{encode(event[name])}" for name in (*_ORDER, *others, *_LAST))
    body = members + "}"
    return Event(
        event["id"],
        event["subject"],
        event["agentid"],
        event["type"].removeprefix(TYPE_PREFIX),
        event["priority"],
        recorded_us,
        crc32(body.encode()),
        body,
    )


def redacted(text: str, redactor: Redactor) -> str:
    """An event's text without what the redactor takes for a secret now: it may know more than when it was recorded."""
    if not redactor.suspects(text):
        return text
    event = json.loads(text)
    event["data"] = redactor.redact(event["data"])
    for name in ("subject", "partitionkey", "agentid"):
        event[name] = redactor.redact_text(event[name])
    if "task_id" in event["data"]:
        event["data"]["task_id"] = event["subject"]
    return encode(event)
