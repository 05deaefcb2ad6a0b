"""``orchclient status``: what waits, what was delivered, what is dead, and why. Reads counters, never the events."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime
from typing import Any

import click
from attrs import asdict

from orchclient import config
from orchclient.cli.check import Thresholds, Trouble, set_aside, troubles
from orchclient.cli.duration import Duration
from orchclient.cli.opening import configured_names, json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import ExitCode, age, emit, fitting, number, plural, printable, size, table
from orchclient.cli.remarks import can_rewrite
from orchclient.core.timestamps import microseconds
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.election import is_held, lock_path
from orchclient.outbox.past import mark_beside
from orchclient.reporting import OutboxReport, SinkReport, whole_report


@click.command("status")
@click.option(
    "--check", "is_check", is_flag=True, help="Exit code 1 with a line for each finding; for cron and probes."
)
@click.option(
    "--max-age", type=Duration(), default="5m", show_default=True, help="With --check: how long an event may wait."
)
@click.option("--max-pending", type=click.IntRange(0), metavar="N", help="With --check: how many events may wait.")
@click.option(
    "--watch",
    "every_s",
    is_flag=False,
    flag_value="2s",
    type=Duration(),
    metavar="[=DURATION]",
    help="Look again and again, every two seconds or so; Ctrl-C ends it.",
)
@json_option
@click.pass_context
def status_command(
    ctx: click.Context, is_check: bool, max_age: float, max_pending: int | None, every_s: float | None, as_json: bool
) -> ExitCode:
    """What waits, what was delivered, what is dead, and why.

    With --check: whether somebody should look. A destination that is paused or disabled, dead letters, an event that
    waits for longer than --max-age, and events that wait while nobody delivers are each a line, and exit code 1.

    \b
    Examples: orchclient status
              orchclient status --watch=5s
              orchclient status --check --max-age 15m --max-pending 10000
    """
    settings = settings_of(ctx)
    if every_s is not None:
        if is_check or as_json:
            raise click.UsageError("--watch goes with neither --check nor --json: those end", ctx)
        return _watched(settings, max(every_s, LEAST_S))
    return _looked(settings, Thresholds(max_age, max_pending) if is_check else None, as_json=as_json)


LEAST_S = 0.1


def _watched(settings: config.Settings, every_s: float) -> ExitCode:
    """Until somebody has enough. On a terminal each look takes the place of the one before."""
    try:
        while True:
            if can_rewrite(sys.stdout):
                click.echo("\x1b[H\x1b[2J\x1b[3J", nl=False)
            click.echo(f"{datetime.now().astimezone():%H:%M:%S}, every {every_s:g} s\n")
            _looked(settings, None, as_json=False)
            if not can_rewrite(sys.stdout):
                click.echo("")
            time.sleep(every_s)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def _looked(settings: config.Settings, thresholds: Thresholds | None, *, as_json: bool) -> ExitCode:
    outbox = look_into(settings)
    if outbox is None:
        return _looked_in_vain(str(outbox_path(settings)), is_check=thresholds is not None, as_json=as_json)
    try:
        report = whole_report(outbox.query, outbox.path, SystemClock.now_us())
        configured = configured_names(settings)
    finally:
        outbox.close()
    if thresholds is not None:
        return _checked(report, thresholds, as_json=as_json)
    document = {"ok": True, "exists": True, "mode": settings.mode, "configured": configured, **asdict(report)}
    emit(document, _text(report, settings, configured), as_json=as_json)
    return ExitCode.DONE


def _looked_in_vain(path: str, *, is_check: bool, as_json: bool) -> ExitCode:
    """No file: nothing was recorded yet, or it was taken away, which only the mark beside it tells."""
    mark = mark_beside(path)
    is_gone = mark is not None and mark.seq > 0
    text = f"No outbox yet at {path}: nothing was recorded on this host."
    if mark is not None and is_gone:
        text = f"The outbox {path} is gone: it held events up to {mark.seq}. Look: orchclient doctor"
    document: dict[str, Any] = {"ok": not (is_gone and is_check), "exists": False, "path": path}
    if is_check:
        document["findings"] = [asdict(Trouble("gone", "", text))] if is_gone else []
    emit(document, text, as_json=as_json)
    return ExitCode.DONE if document["ok"] else ExitCode.ERROR


def _checked(report: OutboxReport, thresholds: Thresholds, *, as_json: bool) -> ExitCode:
    found = troubles(report, thresholds, lambda name: is_held(lock_path(report.path, name)))
    document = {
        "ok": not found,
        "exists": True,
        "path": report.path,
        "findings": [asdict(each) for each in found],
        "destinations": {sink.name: {"pending": sink.pending, "dead": sink.dead} for sink in report.sinks},
    }
    pending = sum(sink.pending for sink in report.sinks)
    text = "\n".join(each.message for each in found) or f"ok: {number(pending)} pending, 0 dead"
    emit(document, text, as_json=as_json)
    return ExitCode.ERROR if found else ExitCode.DONE


def _text(report: OutboxReport, settings: config.Settings, configured: tuple[str, ...]) -> str:
    parts = [_head(report, settings)]
    if report.sinks:
        parts.append(_destinations(report))
    parts += _advice(report, settings, configured)
    return "\n\n".join(parts)


def _head(report: OutboxReport, settings: config.Settings) -> str:
    beats = f" ({plural(report.heartbeats, 'heartbeat')})" if report.heartbeats else ""
    kept = f"{plural(report.recorded, 'event')} recorded{beats}, {number(report.kept)} kept{_last(report)}"
    lines = [f"Outbox   {report.path}   {size(os.stat(report.path).st_size + report.wal.bytes)}, {kept}"]
    lines.append(f"Mode     {settings.mode}{_delivered_by(report)}")
    return "\n".join(lines)


def _last(report: OutboxReport) -> str:
    """Whether the agents of this host still speak."""
    if report.last_recorded_at is None:
        return ""
    at_us = microseconds(datetime.fromisoformat(report.last_recorded_at))
    return f", the last {age((SystemClock.now_us() - at_us) / 1e6)} ago"


def _delivered_by(report: OutboxReport) -> str:
    alive = {_holder(sink) for sink in report.sinks if sink.holder and is_held(lock_path(report.path, sink.name))}
    return f", delivered by {', '.join(sorted(alive))}" if alive else ", nobody delivers right now"


def _holder(sink: SinkReport) -> str:
    holder = sink.holder or {}
    return printable(f"pid {holder.get('pid')} (agent {holder.get('agent')})")


NUMBERS, STATE = (1, 2, 3, 4, 5), 6
SPARE = (3, 5, 4)
"""What a narrow terminal shows last: EXPIRED, OLDEST, DELIVERED."""


def _destinations(report: OutboxReport) -> str:
    headers = ("DESTINATION", "PENDING", "DEAD", "EXPIRED", "DELIVERED", "OLDEST", "STATE", "NEXT TRY")
    rows = [
        (
            sink.name,
            number(sink.pending),
            number(sink.dead),
            number(sink.expired),
            number(sink.delivered),
            age(sink.oldest_age_s),
            sink.state,
            _next_try(sink),
        )
        for sink in report.sinks
    ]
    shown = fitting(headers, rows, SPARE)
    right, states = (tuple(shown.index(n) for n in kind if n in shown) for kind in (NUMBERS, (STATE,)))
    lines = ([row[n] for n in shown] for row in (headers, *rows))
    return table(next(lines), list(lines), right=right, states=states)


def _next_try(sink: SinkReport) -> str:
    if sink.state == "disabled":
        return "when it is configured again"
    if not sink.pending:
        return "-"
    is_held = sink.held == sink.pending and sink.next_try_at is None
    due_at = sink.turn_at if is_held else sink.next_try_at
    if due_at is None:
        return "now"
    left_s = (microseconds(datetime.fromisoformat(due_at)) - SystemClock.now_us()) / 1e6
    return f"in {age(left_s)}{', held back' if is_held else ''}" if left_s > 0 else "now"


def _advice(report: OutboxReport, settings: config.Settings, configured: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    if report.set_aside:
        lines.append(f"{set_aside(report)}. Look: orchclient doctor")
    waits = bool(report.recorded) if not report.sinks else any(sink.pending for sink in report.sinks)
    if waits and not configured and settings.mode == "online":
        lines.append("No destination is configured here: events wait in the outbox. Set ORCHCLIENT_URL.")
    if waits and settings.mode == "offline":
        lines.append("Mode is offline: events wait in the outbox. Unset ORCHCLIENT_MODE to deliver.")
    for sink in report.sinks:
        lines += _trouble(sink)
    if report.open_requests:
        lines.append(f"Waiting for a person: {plural(report.open_requests, 'request')}. Look: orchclient answer")
    if report.unreadable_items:
        lines.append(f"Items of the inbox that cannot be read and count for nothing: {report.unreadable_items}")
    lines += _held(report)
    return ["\n".join(lines)] if lines else []


def _held(report: OutboxReport) -> list[str]:
    """Who keeps the -wal from shrinking, and who is stopped while others wait for it."""
    wal = report.wal
    lines = [f"{printable(str(holder))} the outbox: let it go on, or end it" for holder in wal.held_by]
    if wal.bytes > wal.limit:
        who = "" if lines else "; nobody who reads it can be seen right now"
        lines.insert(0, f"The -wal has grown to {size(wal.bytes)}, its limit is {size(wal.limit)}{who}")
    return lines


def _trouble(sink: SinkReport) -> list[str]:
    lines: list[str] = []
    if sink.state != "delivering":
        lines.append(f"{sink.name} is {sink.state}: {printable(sink.reason)}")
    if sink.dead:
        lines.append(f"{plural(sink.dead, 'dead event')} for {sink.name}. Look: orchclient list --state dead")
    if sink.expired:
        expired = plural(sink.expired, "expired event")
        lines.append(f"{expired} will not reach {sink.name}. Why: orchclient list --state expired")
    if sink.inbox and sink.inbox.state in ("waiting", "paused"):
        lines.append(f"The inbox of {sink.name} is {sink.inbox.state}: {printable(sink.inbox.reason)}")
    return lines
