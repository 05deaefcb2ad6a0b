"""``orchclient status``: what waits, what was delivered, what is dead, and why. Reads counters, never the events."""

from __future__ import annotations

import os
from datetime import datetime

import click
from attrs import asdict

from orchclient import config
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import age, emit, number, plural, printable, size, table
from orchclient.core.timestamps import microseconds
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.election import is_held, lock_path
from orchclient.reporting import OutboxReport, SinkReport


@click.command("status")
@json_option
@click.pass_context
def status_command(ctx: click.Context, as_json: bool) -> None:
    """What waits, what was delivered, what is dead, and why.

    \b
    Example: orchclient status --json
    """
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        path = str(outbox_path(settings))
        text = f"No outbox yet at {path}: nothing was recorded on this host."
        emit({"ok": True, "exists": False, "path": path}, text, as_json=as_json)
        return
    try:
        report = station.report()
        configured = station.sink_names
    finally:
        station.close(0)
    document = {"ok": True, "exists": True, "mode": settings.mode, "configured": configured, **asdict(report)}
    emit(document, _text(report, settings, configured), as_json=as_json)


def _text(report: OutboxReport, settings: config.Settings, configured: tuple[str, ...]) -> str:
    parts = [_head(report, settings)]
    if report.sinks:
        parts.append(_destinations(report))
    parts += _advice(report, settings, configured)
    return "\n\n".join(parts)


def _head(report: OutboxReport, settings: config.Settings) -> str:
    kept = f"{plural(report.recorded, 'event')} recorded, {number(report.kept)} kept"
    lines = [f"Outbox   {report.path}   {size(os.stat(report.path).st_size)}, {kept}"]
    lines.append(f"Mode     {settings.mode}{_delivered_by(report)}")
    return "\n".join(lines)


def _delivered_by(report: OutboxReport) -> str:
    alive = {_holder(sink) for sink in report.sinks if sink.holder and is_held(lock_path(report.path, sink.name))}
    return f", delivered by {', '.join(sorted(alive))}" if alive else ", nobody delivers right now"


def _holder(sink: SinkReport) -> str:
    holder = sink.holder or {}
    return printable(f"pid {holder.get('pid')} (agent {holder.get('agent')})")


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
    return table(headers, rows, right=(1, 2, 3, 4, 5))


def _next_try(sink: SinkReport) -> str:
    if sink.state == "disabled":
        return "when it is configured again"
    if not sink.pending:
        return "-"
    if sink.next_try_at is None:
        return "now"
    due_us = microseconds(datetime.fromisoformat(sink.next_try_at))
    left_s = (due_us - SystemClock.now_us()) / 1e6
    return f"in {age(left_s)}" if left_s > 0 else "now"


def _advice(report: OutboxReport, settings: config.Settings, configured: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    waits = bool(report.recorded) if not report.sinks else any(sink.pending for sink in report.sinks)
    if waits and not configured and settings.mode == "online":
        lines.append("No destination is configured here: events wait in the outbox. Set ORCHCLIENT_URL.")
    if waits and settings.mode == "offline":
        lines.append("Mode is offline: events wait in the outbox. Unset ORCHCLIENT_MODE to deliver.")
    for sink in report.sinks:
        lines += _trouble(sink)
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
    return lines
