"""The CloudEvents 1.0 JSON text of an event, written once when it is recorded and only joined afterwards.

What the journal keeps is the text from ``"id"`` to the closing brace. The opening (version, source, sequence) is
put in front when it is read, because the sequence is known only after the INSERT and the source belongs to the
outbox. Parsing and writing JSON again would cost the flusher a factor of three.
Attributes: https://github.com/cloudevents/spec, version 1.0.2, with its extensions Sequence and Partitioning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from orchclient.core.jsontext import quote
from orchclient.core.timestamps import rfc3339

TYPE_PREFIX = "dev.orchclient."
SCHEMA_BASE = "https://orchclient.dev/schemas/"


class Lane(NamedTuple):
    """What is the same for every event of one agent's task: attributes, and the first member of the data."""

    attributes: str
    task_member: str


def lane_of(task: str, agent: str) -> Lane:
    """The constant texts of one agent's task."""
    subject = quote(task)
    return Lane(f'"subject":{subject},"partitionkey":{subject},"agentid":{quote(agent)}', f'"task_id":{subject}')


def body_text(
    event_id: str, type_: str, lane: Lane, priority: str, recorded_us: int, members: str, traceparent: str | None = None
) -> str:
    """The text that the journal keeps. ``members`` is JSON text that follows the first member of the data."""
    attributes, task_member = lane
    trace = f',"traceparent":{quote(traceparent)}' if traceparent else ""
    return (
        f'"id":"{event_id}","type":"{TYPE_PREFIX}{type_}",{attributes},"time":"{rfc3339(recorded_us)}",'
        f'"priority":"{priority}"{trace},"dataschema":"{SCHEMA_BASE}{type_}.json","data":{{{task_member}{members}}}}}'
    )


def opening(source: str) -> str:
    """What stands in front of every event of ``source`` (a UUID), up to its 20 digits of sequence."""
    return f'{{"specversion":"1.0","source":"urn:uuid:{source}","sequence":"'


def event_text(opening_: str, seq: int, body: str) -> str:
    """One complete CloudEvent: the opening, the sequence and the stored body."""
    return f'{opening_}{seq:020d}",{body}'


def attributes_of(body: bytes) -> dict[str, Any]:
    """The attributes of a stored event, without those of the opening; what it tells (``data``) is not read.

    The first bare ``,"data":{`` is the one: in a text every quotation mark has a backslash before it.
    """
    attributes: dict[str, Any] = json.loads(b"{" + body.partition(b',"data":{')[0] + b"}")
    return attributes


_ASKING = (b'"type":"dev.orchclient.clarification.requested.v1"', b'"review":true')


def may_ask(encoded: Sequence[bytes]) -> bool:
    """Whether a person may have to answer one of these events. A guess: true for what looks like it."""
    return any(sign in event for event in encoded for sign in _ASKING)


def data_text(body: str) -> str:
    """The JSON text of what a stored event tells, the last member of its body."""
    return body.partition(',"data":')[2][:-1]


def encoded_events(source: str, rows: Iterable[tuple[int, str, int, bytes]]) -> list[bytes]:
    """Complete CloudEvents out of (sequence, task, checksum, stored body), all at once, as a flush needs them."""
    start = f'{opening(source)}%020d",'.encode()
    return [start % seq + body for seq, _, _, body in rows]


def batch_body(events: Sequence[bytes]) -> bytes:
    """A body of ``application/cloudevents-batch+json``."""
    if not events:
        return b"[]"
    # The brackets go into the first and the last text: around the whole they would cost two more copies of it.
    bracketed = list(events)
    bracketed[0] = b"[" + bracketed[0]
    bracketed[-1] += b"]"
    return b",".join(bracketed)
