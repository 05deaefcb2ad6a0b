"""``orchclient resend``: what counts as delivered is sent again, because the receiver lost it."""

from __future__ import annotations

import sqlite3

import click
from attrs import frozen

from orchclient.cli import completion
from orchclient.cli.choosing import check_sinks, chosen_events, what_follows
from orchclient.cli.duration import Since
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, plural
from orchclient.core.errors import OutboxError
from orchclient.core.ranges import Range, ranges_of
from orchclient.core.timestamps import rfc3339
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import cursors, journal, leadership, redelivery
from orchclient.outbox.redelivery import Resent
from orchclient.station import Station


@frozen
class Reach:
    """The places that are meant, and how many delivered events of them, or older ones, are pruned."""

    ranges: tuple[Range, ...]
    pruned: int
    older: int


@click.command("resend")
@click.argument("event_ids", nargs=-1, metavar="[ID]...", shell_complete=completion.events)
@click.option("--to", "sink", metavar="NAME", required=True, help="The destination that gets them again.")
@click.option("--since", type=Since(), metavar="WHEN", help="Recorded since then: 2h, 3d, or 2026-11-25T03:00.")
@click.option("--task", metavar="ID", help="Only events of one task.", shell_complete=completion.tasks)
@click.option("--dry-run", "is_dry", is_flag=True, help="Count, and change nothing.")
@json_option
@click.pass_context
def resend_command(
    ctx: click.Context,
    event_ids: tuple[str, ...],
    sink: str,
    since: int | None,
    task: str | None,
    is_dry: bool,
    as_json: bool,
) -> int:
    """Send again what was delivered, because the receiver lost it.

    The events count as pending until they are delivered again; a receiver that still has some drops those by their
    ids. Pruned events cannot be sent again, dead ones are sent by retry. Exit code 1: nothing was meant by it;
    3: so much at once would leave agents no room; it says how to go on.

    \b
    Examples: orchclient resend --to orchestrator --since 2026-11-25T03:00
              orchclient resend --to orchestrator --task task-123
    """
    if not (event_ids or since is not None or task):
        raise click.UsageError("say which events: ids, --since or --task", ctx)
    if event_ids and (since is not None or task):
        raise click.UsageError("either ids, or --since and --task", ctx)
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        raise OutboxError(f"nothing to resend: there is no outbox yet at {outbox_path(settings)}")
    try:
        check_sinks([sink], station)
        seqs = sorted({each.entry.seq for each in chosen_events(event_ids, station)})
        reach = station.query(lambda con: _named(seqs) if seqs else _since(con, sink, since, task))
        if is_dry:
            return _told(station, sink, reach, task, as_json=as_json)
        room = settings.max_pending // 2
        resent = redelivery.resend(station, sink, reach.ranges, SystemClock.now_us(), task, room)
        go_on = station.query(lambda con: journal.recorded_us(con, resent.first_left_seq or 0)) if resent.left else None
        if resent.events:
            station.write(leadership.nudge)
        text = _text(sink, resent, reach, go_on, what_follows(station, sink))
    finally:
        station.close(0)
    if not resent.events and not resent.left:
        raise OutboxError(f"nothing to send to {sink} again: no delivered events were meant{_unable(reach)}")
    code = ExitCode.PENDING if resent.left else ExitCode.DONE
    document = {
        "ok": code == ExitCode.DONE,
        "dry_run": False,
        "destination": sink,
        "resent": resent.events,
        "left": resent.left,
        "go_on_since": None if go_on is None else rfc3339(go_on),
        "pruned": reach.pruned,
        "older_pruned": reach.older,
    }
    emit(document, text, as_json=as_json)
    return code


def _told(station: Station, sink: str, reach: Reach, task: str | None, *, as_json: bool) -> ExitCode:
    """What would be sent again, in as many steps as it takes."""
    count = redelivery.count(station, sink, reach.ranges, task)
    document = {
        "ok": True,
        "dry_run": True,
        "destination": sink,
        "resent": count,
        "left": 0,
        "go_on_since": None,
        "pruned": reach.pruned,
        "older_pruned": reach.older,
    }
    text = f"{sink}  {plural(count, 'event')} would be pending again{_unable(reach)}"
    emit(document, text, as_json=as_json)
    return ExitCode.DONE


def _named(seqs: list[int]) -> Reach:
    return Reach(tuple(ranges_of(seqs)), 0, 0)


def _since(con: sqlite3.Connection, sink: str, since: int | None, task: str | None) -> Reach:
    row = cursors.sink(con, sink)
    if row is None:
        return Reach((), 0, 0)
    oldest = journal.first_seq(con)
    first = max(journal.first_since(con, since) if since is not None else oldest, row.start_seq + 1)
    ranges = ((first, row.cursor),) if first <= row.cursor else ()
    pruned = 0 if task else redelivery.pruned_count(con, row, first, row.cursor)
    older = redelivery.pruned_count(con, row, row.start_seq + 1, oldest - 1) if first <= oldest else 0
    return Reach(ranges, pruned, older)


def _text(sink: str, resent: Resent, reach: Reach, go_on: int | None, follows: str) -> str:
    lines = [f"{sink}  {plural(resent.events, 'event')} pending again"]
    if reach.pruned or reach.older:
        lines.append(f"{sink}  not sent again{_unable(reach).replace(';', ':', 1)}")
    if go_on is not None:
        later = f"when these are delivered, go on with --since {rfc3339(go_on)}"
        lines.append(f"{sink}  {plural(resent.left, 'event')} left, to leave agents room: {later}")
    return "\n".join([*lines, follows])


def _unable(reach: Reach) -> str:
    parts = []
    if reach.pruned:
        parts.append(f"{plural(reach.pruned, 'event')} among them pruned")
    if reach.older:
        parts.append(f"{plural(reach.older, 'older event')} pruned")
    return f"; {', '.join(parts)}" if parts else ""
