"""``orchclient doctor``: each finding with its cure. Looks at everything, changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click
from attrs import asdict

from orchclient import config
from orchclient.cli import losses
from orchclient.cli.ailing import delivery, wal
from orchclient.cli.colour import styled
from orchclient.cli.config import strangers
from orchclient.cli.finding import Finding, of
from orchclient.cli.opening import json_option, look_into, open_whole, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, number, printable
from orchclient.cli.reaching import answers, sinks_of
from orchclient.cli.send_test import sent
from orchclient.cli.soundness import file, integrity, sqlite
from orchclient.core.errors import ConfigError, OutboxError
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import identity
from orchclient.outbox.outbox import Outbox
from orchclient.reporting import whole_report


@click.command("doctor")
@click.option("--send-test", is_flag=True, help="Send one harmless message to each chat destination and webhook.")
@click.option("--strict", is_flag=True, help="Exit code 1 for a warning, too.")
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, send_test: bool, strict: bool, as_json: bool) -> int:
    """Check everything: settings, the outbox and its file, SQLite, the clock, the destinations, who delivers.

    Each finding comes with its cure. Changes nothing, and sends nothing but a greeting to the orchestrator, unless
    with --send-test. Exit code 0: all is well, or there are warnings; 1: there is a problem.

    \b
    Examples: orchclient doctor
              orchclient doctor --send-test
              orchclient doctor --json --strict
    """
    findings = list(_found(ctx, send_test))
    bad = {"problem", "warning"} if strict else {"problem"}
    is_well = not any(finding.level in bad for finding in findings)
    document = {"ok": is_well, "findings": [asdict(finding) for finding in findings]}
    emit(document, "\n".join(map(_line, findings)), as_json=as_json)
    return ExitCode.DONE if is_well else ExitCode.ERROR


def _line(finding: Finding) -> str:
    word = "ok" if finding.level == "ok" else finding.level.upper()
    cure = f"\n{'':9}{printable(finding.cure)}" if finding.cure else ""
    return styled(word, f"{word:9}") + printable(finding.what) + cure


def _found(ctx: click.Context, send_test: bool) -> Iterator[Finding]:
    try:
        settings = settings_of(ctx)
        sinks = sinks_of(settings)
    except ConfigError as error:
        yield Finding(
            "problem", str(error), "Without usable settings no agent starts. See: orchclient config", "settings"
        )
        yield from of("sqlite", sqlite())
        return
    yield from of("settings", _settings(settings))
    yield from of("sqlite", sqlite())
    yield from _outbox(settings)
    yield from answers(settings, sinks)
    if send_test:
        yield from of("send_test", sent(settings, sinks))


def _settings(settings: config.Settings) -> Iterator[Finding]:
    for each in strangers(settings, os.environ):
        yield Finding(
            "warning",
            f"{each['name']} is no setting, and nobody reads it",
            f"{each['hint'][0].upper()}{each['hint'][1:]}",
        )
    if settings.mode != "online":
        yield Finding("warning", f"Mode is {settings.mode}: nothing is sent", "Unset ORCHCLIENT_MODE to deliver.")


def _outbox(settings: config.Settings) -> Iterator[Finding]:
    path = outbox_path(settings)
    try:
        outbox = open_whole(settings) if path.exists() else None
    except OutboxError as error:
        yield Finding("problem", str(error), _rescue(settings), check="file")
        yield from of("losses", losses.unfinished(str(path)))
        return
    if outbox is None:
        remains = [*of("losses", losses.gone(path))]
        yield from remains or [Finding("ok", f"No outbox yet at {path}: the first record call makes it", check="file")]
        return
    try:
        yield from _opened(settings, outbox)
    finally:
        outbox.close()


def _rescue(settings: config.Settings) -> str:
    """What can still be done with an outbox that nobody can record into: where it can be looked at, it can be saved."""
    try:
        outbox = look_into(settings)
    except OutboxError:
        return ""
    if outbox is None:
        return ""
    outbox.close()
    return "What it holds can be read: orchclient list. Carry it away: orchclient export -o FILE"


def _opened(settings: config.Settings, outbox: Outbox) -> Iterator[Finding]:
    report = whole_report(outbox.query, outbox.path, SystemClock.now_us())
    counts = f"{number(report.recorded)} events recorded, {number(report.kept)} kept"
    yield Finding("ok", f"Outbox {report.path}: {counts}", check="file")
    yield from file(settings, report.path)
    yield from of("integrity", integrity(outbox))
    yield from of("losses", losses.changes_of_identity(outbox.query(identity.changes)))
    yield from of("losses", losses.set_asides(report.path))
    yield from of("losses", losses.unfinished(report.path))
    yield from of("readers", wal(report))
    yield from delivery(report)
