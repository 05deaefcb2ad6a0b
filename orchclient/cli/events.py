"""``orchclient list`` and ``orchclient show``: the events, and what became of each at every destination."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import click
from attrs import asdict

from orchclient.cli import completion
from orchclient.cli.choices import OneOf, refuse_unknown, sink_option
from orchclient.cli.duration import Since
from orchclient.cli.opening import configured_names, json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import ExitCode, age, cut, emit, fitting, plural, printable, room, table
from orchclient.core.errors import UnknownEvent
from orchclient.core.event_message import message_of
from orchclient.core.events import EventType
from orchclient.core.plain_message import plain_text
from orchclient.core.timestamps import rfc3339
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import attempts, cursors, gaps, listing
from orchclient.outbox.attempts import Attempt
from orchclient.outbox.gaps import Expired
from orchclient.outbox.listing import Fate, Listed

TYPES = tuple(value.removesuffix(".v1") for name, value in vars(EventType).items() if name.isupper())


@click.command("list")
@click.option("--state", "states", multiple=True, type=OneOf(listing.STATES), help="Only these; may be repeated.")
@click.option("--task", metavar="ID", help="Only one task.", shell_complete=completion.tasks)
@click.option("--agent", metavar="ID", help="Only what one agent recorded.")
@sink_option("Only what goes to one destination.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these, such as task.status; repeatable.")
@click.option("--since", type=Since(), metavar="WHEN", help="Recorded since then: 2h, 3d, or 2026-11-25T03:00.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print one line of JSON for each.")
@click.option("--no-header", is_flag=True, help="Print the lines of the table only.")
@json_option
@click.pass_context
def list_command(
    ctx: click.Context,
    states: tuple[str, ...],
    task: str | None,
    agent: str | None,
    sink: str | None,
    types: tuple[str, ...],
    since: int | None,
    limit: int,
    as_lines: bool,
    no_header: bool,
    as_json: bool,
) -> None:
    """Recorded events, newest first. An id may be shortened to any unique beginning, as the commands take it.

    Heartbeats are shown when a type or a state is named.

    \b
    Examples: orchclient list --state dead --to orchestrator
              orchclient list --task build-42 --type error.escalated --since 2h
              orchclient list --state dead --jsonl | jq -r .task | sort | uniq -c
    """
    if as_lines and as_json:
        raise click.UsageError("either --json or --jsonl", ctx)
    refuse_unknown("event type", [name.removesuffix(".v1") for name in types], TYPES)
    settings = settings_of(ctx)
    outbox = look_into(settings)
    if outbox is None:
        text = "" if as_lines or no_header else f"No outbox yet at {outbox_path(settings)}."
        _told({"ok": True, "exists": False, "events": []}, text, as_json=as_json, as_lines=as_lines)
        return
    try:
        known = {*(row.name for row in outbox.query(cursors.sinks)), *configured_names(settings)}
        refuse_unknown("destination", [sink] if sink else [], known)
        if states == (listing.EXPIRED,):
            ranges = outbox.query(lambda con: list(islice(gaps.expired(con, sink), limit)))
            _told(_expired_document(ranges), _expired_table(ranges, no_header), as_json=as_json, as_lines=as_lines)
            return
        found = outbox.query(
            lambda con: listing.events(
                con, limit=limit, task=task, agent=agent, states=states, sink=sink, types=types, since_us=since
            )
        )
    finally:
        outbox.close()
    document = {"ok": True, "exists": True, "events": [_document(each) for each in found]}
    _told(document, _table(found, states, sink, no_header), as_json=as_json, as_lines=as_lines)


def _told(document: dict[str, Any], text: str, *, as_json: bool, as_lines: bool) -> None:
    """The document, a line for each thing in it, or the text for people, which is empty for nothing to list."""
    if as_lines:
        text = "\n".join(json.dumps(each, ensure_ascii=False) for each in document.get("expired", document["events"]))
    if as_json or text:
        emit(document, text, as_json=as_json)


def _expired_document(ranges: list[Expired]) -> dict[str, Any]:
    """What some destination will not get: ranges of the journal, since the events themselves are gone."""
    documents = [
        {
            "destination": each.sink,
            "first_seq": each.first_seq,
            "last_seq": each.last_seq,
            "count": each.count,
            "reason": each.reason.value,
            "since": rfc3339(each.since_us),
        }
        for each in ranges
    ]
    return {"ok": True, "exists": True, "events": [], "expired": documents}


def _expired_table(ranges: list[Expired], no_header: bool) -> str:
    rows = [
        (each.sink, f"{each.first_seq}-{each.last_seq}", str(each.count), each.reason.value, rfc3339(each.since_us))
        for each in ranges
    ]
    return _lines(("DESTINATION", "PLACES", "EVENTS", "REASON", "SINCE"), rows, no_header, right=(2,))


def _lines(headers: Sequence[str], rows: Sequence[Sequence[str]], no_header: bool, **how: Sequence[int]) -> str:
    """A table with its header or without; words in the place of one without lines, or nothing."""
    if not rows:
        return "" if no_header else "No such events."
    text = table(headers, rows, **how)
    return text.partition("\n")[2] if no_header else text


ID_SHOWN = 18
"""Of an id on a narrow terminal: its milliseconds and the digits that tell apart what was recorded in one of them."""


def _table(found: list[Listed], states: tuple[str, ...], sink: str | None, no_header: bool) -> str:
    now_us, shown = SystemClock.now_us(), 36 if room() >= 110 else ID_SHOWN
    if states == ("dead",):
        return _dead_table(found, sink, shown, no_header)
    rows = [
        (
            each.entry.id[:shown],
            age((now_us - each.entry.recorded_us) / 1e6),
            each.state,
            each.entry.type,
            each.entry.task,
        )
        for each in found
    ]
    headers = ("ID", "AGE", "STATE", "TYPE", "TASK")
    kept = fitting(headers, [(*row[:-1], cut(printable(row[-1]), 20)) for row in rows], spare=(1, 3))
    right, states_at = (tuple(kept.index(n) for n in (column,) if n in kept) for column in (1, 2))
    few, *lines = ([row[n] for n in kept] for row in (headers, *rows))
    return _lines(few, lines, no_header, right=right, states=states_at)


def _dead_table(found: list[Listed], sink: str | None, shown: int, no_header: bool) -> str:
    """One line for each destination that refused an event; the reason last, since it is cut where the terminal ends."""
    rows = [
        (each.entry.id[:shown], cut(printable(each.entry.task), 20), name, str(fate.attempts), fate.reason)
        for each in found
        for name, fate in each.fates.items()
        if fate.state == "dead" and sink in (None, name)
    ]
    text = _lines(("ID", "TASK", "DESTINATION", "TRIES", "REASON"), rows, no_header, right=(3,))
    return text if no_header or not rows else f"{text}\n\n{_DEAD_HINTS}"


_DEAD_HINTS = """\
Look at one: orchclient show ID   Send it again: orchclient retry ID
Give up old ones: orchclient prune --dead"""


def _document(each: Listed) -> dict[str, Any]:
    entry = each.entry
    return {
        "id": entry.id,
        "seq": entry.seq,
        "type": entry.type,
        "task": entry.task,
        "priority": entry.priority,
        "recorded_at": rfc3339(entry.recorded_us),
        "state": each.state,
        "destinations": {name: _fate_document(fate) for name, fate in each.fates.items()},
    }


def _fate_document(fate: Fate) -> dict[str, Any]:
    since = None if fate.since_us is None else rfc3339(fate.since_us)
    return {"state": fate.state, "reason": fate.reason, "attempts": fate.attempts, "since": since}


@click.command("show")
@click.argument("event_id", metavar="ID", shell_complete=completion.events)
@json_option
@click.pass_context
def show_command(ctx: click.Context, event_id: str, as_json: bool) -> int:
    """One event: what it says, how people are told of it, and every attempt to deliver it.

    Any unique beginning of its id will do.

    \b
    Example: orchclient show 01a20631
    """
    outbox = look_into(settings_of(ctx))
    if outbox is None:
        raise UnknownEvent(f"no event {event_id!r}: there is no outbox yet at {outbox_path(settings_of(ctx))}")
    try:
        each = outbox.query(lambda con: listing.event(con, event_id))
        tried = outbox.query(lambda con: attempts.of_event(con, each.entry.seq))
    finally:
        outbox.close()
    envelope = _envelope(each)
    message = message_of(envelope, settings_of(ctx).public_url or "")
    told = plain_text(message) if message else None
    document = {
        "ok": True,
        **_document(each),
        "event": envelope,
        "message": told,
        "attempts": [asdict(attempt) for attempt in tried],
    }
    emit(document, _text(each, envelope, told, tried), as_json=as_json)
    return ExitCode.DONE


def _envelope(each: Listed) -> Any:
    try:
        return json.loads("{" + each.entry.body)
    except ValueError:
        return {"damaged": each.entry.body}


def _text(each: Listed, envelope: dict[str, Any], told: str | None, tried: list[Attempt]) -> str:
    entry = each.entry
    lines = [
        f"Event     {entry.id}",
        f"Type      {entry.type}, priority {entry.priority}",
        f"Task      {printable(entry.task)}",
        f"Agent     {printable(str(envelope.get('agentid', '?')))}",
        f"Recorded  {rfc3339(entry.recorded_us)}, place {entry.seq} in the journal",
    ]
    data = json.dumps(envelope.get("data", envelope), indent=2, ensure_ascii=False)
    lines += ["Data", *("  " + printable(line) for line in data.splitlines())]
    if told is not None:
        lines += ["Told as", *("  " + line for line in told.splitlines())]
    for name, fate in each.fates.items():
        lines.append(f"{name}: {_fate_line(fate)}")
        lines += [_attempt_line(attempt) for attempt in tried if attempt.sink == name]
        if fate.state == "dead":
            lines.append(f"  Mend what it was refused for, then: orchclient retry {entry.id[:ID_SHOWN]} --to {name}")
    if not each.fates:
        lines.append("No destination gets it yet: it waits in the outbox.")
    return "\n".join(lines)


def _fate_line(fate: Fate) -> str:
    words = fate.state
    if fate.state == "dead":
        words += f" after {plural(fate.attempts, 'attempt')}"
    if fate.since_us is not None:
        words += f", since {rfc3339(fate.since_us)}"
    return words + (f": {printable(fate.reason)}" if fate.reason else "")


def _attempt_line(attempt: Attempt) -> str:
    status = "no answer" if attempt.status is None else str(attempt.status)
    reason = printable(attempt.reason)
    return f"  {rfc3339(attempt.at_us)}  {status:>9}  {attempt.took_ms:6.0f} ms  {attempt.action}  {reason}".rstrip()
