"""``orchclient verify``: what counts as delivered against what the orchestrator says it holds, and the repair."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeGuard

import click
from attrs import asdict, evolve, frozen

from orchclient import config, destinations
from orchclient.cli.choices import sinks_option
from orchclient.cli.choosing import check_sinks
from orchclient.cli.duration import Duration
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, number, plural, printable
from orchclient.core.errors import ConfigError, OrchClientError
from orchclient.core.http import HttpReply
from orchclient.core.ids import uuid7
from orchclient.core.ranges import Range, difference, intersection, size
from orchclient.core.source_report import ENDLESS, SourceReport, source_report
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.transport import Transport
from orchclient.outbox import cursors, identity, redelivery
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.sinks.sink import AnySink, Reporting
from orchclient.station import Station, http_transport

Ask = Callable[[str], SourceReport]
"""Asks for the report of a source."""


class _Held(Reporting, Protocol):
    name: str


Verifiable = OrchestratorSink | _Held
"""A destination that can say what it holds."""


class Unanswered(Exception):
    """The orchestrator gave no report: why, and how the command ends."""

    def __init__(self, why: str, code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(why)
        self.code = code


@frozen
class Found:
    """Places that count as delivered and are missing: kept here, or pruned here as well."""

    missing: tuple[Range, ...] = ()
    lost: tuple[Range, ...] = ()
    is_partial: bool = False


@frozen
class Verified:
    """What was found out about one orchestrator, in events. ``error`` says why nothing was."""

    held: int = 0
    pending: int = 0
    missing: int = 0
    lost: int = 0
    sent_again: int = 0
    is_partial: bool = False
    error: str = ""
    code: int = ExitCode.DONE


@click.command("verify")
@click.option("--repair", is_flag=True, help="Send again what is missing, and verify again.")
@sinks_option("Only this orchestrator; may be repeated.")
@click.option(
    "--timeout", type=Duration(), default="60s", show_default=True, help="With --repair: wait for delivery so long."
)
@json_option
@click.pass_context
def verify_command(ctx: click.Context, repair: bool, sinks: tuple[str, ...], timeout: float, as_json: bool) -> int:
    """Ask each orchestrator what it holds, and compare: an orchestrator restored from a backup lacks what came later.

    Pending events are not missing, dead and expired ones are explained. With --repair exactly what is missing is sent
    again; what is pruned here as well is lost for good: it counts as expired then, and the orchestrator is told.
    Exit code 0: everything is held; 1: events are missing, or there was no answer; 3: repairs are pending;
    4: events are lost for good; 6: credentials were refused.

    \b
    Example: orchclient verify --repair
    """
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        text = f"Nothing to verify: no outbox yet at {outbox_path(settings)}."
        emit({"ok": True, "exists": False, "destinations": {}}, text, as_json=as_json)
        return ExitCode.DONE
    transport = http_transport(settings)
    try:
        check_sinks(sinks, station)
        done = {
            sink.name: _verified(station, sink, transport, settings, timeout if repair else None)
            for sink in _orchestrators(settings, sinks)
        }
    finally:
        transport.close()
        station.close(0)
    code = max((each.code for each in done.values()), default=ExitCode.DONE)
    document = {
        "ok": code == ExitCode.DONE,
        "exists": True,
        "repair": repair,
        "destinations": {name: asdict(each) for name, each in done.items()},
    }
    text = "\n".join(line for name, each in done.items() for line in _lines(name, each, repair=repair))
    emit(document, text, as_json=as_json)
    return code


def _orchestrators(settings: config.Settings, names: Sequence[str]) -> list[Verifiable]:
    given = destinations.configured(settings, settings.known_secrets())
    found = [sink for sink in given if _is_verifiable(sink) and (not names or sink.name in names)]
    if not found:
        raise ConfigError(
            f"{', '.join(names)}: no orchestrator of that name is configured here"
            if names
            else "no orchestrator is configured here: set ORCHCLIENT_URL"
        )
    return found


def _is_verifiable(sink: AnySink) -> TypeGuard[Verifiable]:
    return isinstance(sink, OrchestratorSink | Reporting)


def _verified(
    station: Station,
    sink: Verifiable,
    transport: Transport,
    settings: config.Settings,
    repair_s: float | None,
) -> Verified:
    def ask(source: str) -> SourceReport:
        return _asked(sink, transport, source, settings.request_timeout)

    try:
        if repair_s is None:
            return _compared(station, sink.name, ask)
        return _repaired(station, sink.name, ask, repair_s, settings.max_pending // 2)
    except Unanswered as error:
        return Verified(error=str(error), code=error.code)


def _asked(sink: Verifiable, transport: Transport, source: str, deadline_s: float) -> SourceReport:
    if not isinstance(sink, OrchestratorSink):
        return _held(sink, source, deadline_s)
    outcome = transport.send(sink.report_request(source), deadline_s=deadline_s)
    if not isinstance(outcome, HttpReply):
        raise Unanswered(f"does not answer: {outcome.reason} {outcome.detail}".rstrip())
    if outcome.status in (401, 403, 407):
        raise Unanswered(f"refuses the credentials (HTTP {outcome.status})", ExitCode.REFUSED)
    if outcome.status == 404:
        raise Unanswered("has no source report (HTTP 404), so it cannot be verified")
    report = source_report(outcome.body) if outcome.status == 200 else None
    if report is None:
        raise Unanswered(f"gave no source report (HTTP {outcome.status})")
    return report


def _held(sink: _Held, source: str, deadline_s: float) -> SourceReport:
    try:
        return sink.source_report(source, deadline_s=deadline_s)
    except OrchClientError as error:
        raise Unanswered(f"does not answer: {error}") from error


# --- comparing ----------------------------------------------------------------------------------------------------


def _compared(station: Station, name: str, ask: Ask) -> Verified:
    found = _found(station, name, ask)
    missing, lost = size(found.missing), size(found.lost)
    code = ExitCode.DEAD if lost else ExitCode.ERROR if missing else ExitCode.DONE
    return evolve(_counted(station, name, found), missing=missing, lost=lost, code=code)


def _found(station: Station, name: str, ask: Ask) -> Found:
    """What every identity of this outbox lacks there."""
    sources = station.query(identity.identities)
    ends = [*(first - 1 for first in sources.firsts[1:]), ENDLESS]
    missing: list[Range] = []
    is_partial = False
    for first, last, source in zip(sources.firsts, ends, sources.sources, strict=True):
        report = ask(source)
        suspects = _delivered(station, name, report.missing(first, last))
        if suspects:  # asked again: what was delivered since the report was made is not missing
            missing += intersection(suspects, ask(source).missing(first, last))
        is_partial = is_partial or report.is_partial
    kept = station.query(lambda con: redelivery.kept_within(con, missing))
    return Found(tuple(kept), tuple(difference(missing, kept)), is_partial)


def _delivered(station: Station, name: str, ranges: Sequence[Range]) -> list[Range]:
    row = station.query(lambda con: cursors.sink(con, name))
    return station.query(lambda con: redelivery.delivered_within(con, row, ranges)) if row else []


def _counted(station: Station, name: str, found: Found) -> Verified:
    sink = next((each for each in station.report().sinks if each.name == name), None)
    if sink is None:
        return Verified()
    held = sink.delivered - size(found.missing) - size(found.lost)
    return Verified(max(held, 0), sink.pending, is_partial=found.is_partial)


# --- repairing ----------------------------------------------------------------------------------------------------


def _repaired(station: Station, name: str, ask: Ask, timeout_s: float, room: int) -> Verified:
    """Send again, wait, ask again: a report names at most 1,000 gaps at a time."""
    until = time.monotonic() + timeout_s
    sent_again = lost = 0
    before: tuple[Range, ...] | None = None
    while True:
        found = _found(station, name, ask)
        if not found.missing and not found.lost:
            break
        if found.missing == before:
            break  # it took them, and says that it does not hold them
        before, now_us = found.missing, SystemClock.now_us()
        lost += redelivery.write_off_lost(station, name, found.lost, now_us, _new_id)
        sent_again += redelivery.resend(station, name, found.missing, now_us, None, room).events
        report = station.flush(max(until - time.monotonic(), 0.0), [name])
        if report.pending or time.monotonic() >= until:
            break
    left = size(found.missing)
    code = ExitCode.DEAD if lost else ExitCode.PENDING if left else ExitCode.DONE
    return evolve(_counted(station, name, found), missing=left, lost=lost, sent_again=sent_again, code=code)


def _new_id() -> str:
    return uuid7(SystemClock.now_us() // 1000, SystemClock.randomness())


# --- telling ------------------------------------------------------------------------------------------------------


def _lines(name: str, each: Verified, *, repair: bool) -> list[str]:
    if each.error:
        return [f"{name}  {printable(each.error)}"]
    more = " at least" if each.is_partial else ""
    lines = [f"{name}  {number(each.held)} held, {number(each.pending)} pending"]
    if each.sent_again:
        lines.append(f"{name}  {plural(each.sent_again, 'event')} sent again")
    if each.missing and repair:
        lines.append(f"{name}  {plural(each.missing, 'event')} missing still. Wait for it: orchclient flush")
    elif each.missing:
        lines.append(
            f"{name}  {plural(each.missing, 'event')}{more} missing there. Send again: orchclient verify --repair"
        )
    if each.lost:
        told = ": pruned here, expired now" if repair else ": pruned here, and missing there"
        lines.append(f"{name}  {plural(each.lost, 'event')} lost for good{told}")
    return lines
