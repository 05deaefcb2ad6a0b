"""``orchclient doctor``: each finding with its cure. Looks at file, store and destinations; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import click
from attrs import asdict

from orchclient import config
from orchclient.cli import losses
from orchclient.cli.finding import Finding
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, printable, size
from orchclient.cli.send_test import sent
from orchclient.core.errors import OutboxError
from orchclient.core.http import HttpReply
from orchclient.delivery.election import is_held, lock_path
from orchclient.destinations import configured
from orchclient.outbox import checkup, identity
from orchclient.reporting import OutboxReport, SinkReport
from orchclient.sinks.sink import AnySink, Checkable, speaks_http
from orchclient.station import Station, http_transport

CHECK_S = 5.0


@click.command("doctor")
@click.option("--send-test", is_flag=True, help="Send one harmless message to each chat destination and webhook.")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, send_test: bool, as_json: bool) -> int:
    """Check the outbox, its file and the destinations. Exit code 1 when there is a problem.

    \b
    Example: orchclient doctor --json
             orchclient doctor --send-test
    """
    settings = settings_of(ctx)
    findings = [*_sqlite(), *_outbox(settings), *_destinations(settings)]
    if send_test:
        findings += sent(settings, _sinks(settings))
    is_well = all(finding.level != "problem" for finding in findings)
    document = {"ok": is_well, "findings": [asdict(finding) for finding in findings]}
    emit(document, "\n".join(map(_line, findings)), as_json=as_json)
    return ExitCode.DONE if is_well else ExitCode.ERROR


def _line(finding: Finding) -> str:
    mark = {"ok": "ok       ", "warning": "WARNING  ", "problem": "PROBLEM  "}[finding.level]
    return mark + printable(finding.what) + (f"\n         {printable(finding.cure)}" if finding.cure else "")


def _sqlite() -> Iterator[Finding]:
    if checkup.has_wal_reset_bug():
        yield Finding(
            "ok",
            f"SQLite {checkup.sqlite_version()} has the WAL-reset bug; orchclient's gate keeps it away",
            "Let no other program write to the outbox file, or use a Python with SQLite 3.51.3 or later.",
        )
    else:
        yield Finding("ok", f"SQLite {checkup.sqlite_version()}")


def _outbox(settings: config.Settings) -> Iterator[Finding]:
    path = outbox_path(settings)
    try:
        station = open_existing(settings)
    except OutboxError as error:
        yield Finding("problem", str(error))
        yield from losses.unfinished(str(path))
        return
    if station is None:
        remains = [*losses.gone(path)]
        yield from remains or [Finding("ok", f"No outbox yet at {path}: the first record call makes it")]
        return
    try:
        report = station.report()
        yield Finding("ok", f"Outbox {report.path}: {report.recorded} events recorded, {report.kept} kept")
        yield _integrity(station)
        yield from losses.changes_of_identity(station.query(identity.changes))
        yield from losses.set_asides(report.path)
        yield from losses.unfinished(report.path)
        yield from _wal(report)
        yield from _delivery(report)
    finally:
        station.close(0)


def _integrity(station: Station) -> Finding:
    try:
        said = station.query(lambda con: checkup.quick_check(con, CHECK_S))
    except OutboxError as error:
        said = str(error)
    if said == "ok":
        return Finding("ok", "The file is sound (quick_check)")
    if said == checkup.TOO_LONG:
        return Finding("ok", f"The file is too large to be checked within {CHECK_S:.0f} s")
    return Finding("problem", f"The file is damaged: {said}", "Copy it away together with its -wal, then ask for help.")


def _wal(report: OutboxReport) -> Iterator[Finding]:
    wal = report.wal
    if wal.bytes > wal.limit:
        cure = "Let the readers named below end; the next commits then cut it." if wal.held_by else ""
        yield Finding("problem", f"The -wal has grown to {size(wal.bytes)}, its limit is {size(wal.limit)}", cure)
    for holder in wal.held_by:
        yield Finding("problem", f"{holder} the outbox", f"Let it go on, or end it: kill {holder.pid}")


def _delivery(report: OutboxReport) -> Iterator[Finding]:
    for sink in report.sinks:
        counts = f"{sink.name}: {sink.delivered} delivered, {sink.pending} pending, {sink.dead} dead"
        if sink.state == "delivering":
            yield Finding("ok", counts)
        else:
            yield Finding("warning", f"{counts}; {sink.state}: {sink.reason}", "After mending it: orchclient flush")
        if sink.pending and not is_held(lock_path(report.path, sink.name)):
            yield Finding("warning", f"{sink.name}: nobody delivers right now", "Run: orchclient flush")
        if sink.dead:
            yield Finding("warning", f"{sink.name}: {sink.dead} dead events", "Look: orchclient list --state dead")
        yield from _inbox(sink)
    if report.unreadable_items:
        what = f"Items of the inbox that break their schema and count for nothing: {report.unreadable_items}"
        yield Finding("warning", what, "Tell whoever runs the orchestrator.")


def _inbox(sink: SinkReport) -> Iterator[Finding]:
    if sink.inbox is None:
        return
    if sink.inbox.state in ("polling", "absent"):
        yield Finding("ok", f"{sink.name}: inbox {sink.inbox.state}")
    else:
        yield Finding(
            "warning", f"{sink.name}: inbox {sink.inbox.state}: {sink.inbox.reason}", "Answers wait meanwhile."
        )


def _sinks(settings: config.Settings) -> list[AnySink]:
    return configured(settings, settings.known_secrets()) if settings.mode == "online" else []


def _destinations(settings: config.Settings) -> Iterator[Finding]:
    sinks = _sinks(settings)
    if not sinks:
        yield Finding("warning", "No destination is configured: events wait in the outbox", "Set ORCHCLIENT_URL.")
    for sink in sinks:
        if isinstance(sink, Checkable):
            yield _checked(sink.name, sink.trouble(min(settings.request_timeout, CHECK_S)))
        greeting = sink.greeting() if speaks_http(sink) else None
        if greeting is None:
            continue
        transport = http_transport(settings)
        outcome = transport.send(greeting, deadline_s=min(settings.request_timeout, CHECK_S))
        transport.close()
        if not isinstance(outcome, HttpReply):
            yield Finding(
                "problem",
                f"{sink.name} does not answer: {outcome.reason} {outcome.detail}",
                "Check the URL and the network.",
            )
        elif outcome.status in (401, 403):
            yield Finding("problem", f"{sink.name} refuses the token (HTTP {outcome.status})", "Set ORCHCLIENT_TOKEN.")
        else:
            yield Finding("ok", f"{sink.name} answers (HTTP {outcome.status} in {outcome.took_ms:.0f} ms)")


def _checked(name: str, trouble: str) -> Finding:
    if trouble:
        return Finding("problem", f"{name} does not answer: {trouble}", "Check its address and the network.")
    return Finding("ok", f"{name} answers")
