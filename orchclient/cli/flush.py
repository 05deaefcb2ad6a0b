"""``orchclient flush``: deliver what is due now, or wait for the process that delivers already."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from attrs import asdict

from orchclient import config, destinations
from orchclient.cli import completion
from orchclient.cli.choices import refuse_unknown, sinks_option
from orchclient.cli.choosing import deliverer
from orchclient.cli.dry_run import Due, due
from orchclient.cli.duration import Duration
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, age, emit, number, plural, printable
from orchclient.cli.remarks import can_rewrite, has_onlooker, remark
from orchclient.core.errors import UnknownEvent
from orchclient.core.timestamps import microseconds
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.flush import Enough, Progress
from orchclient.outbox.leadership import Holder
from orchclient.reporting import Delivered, FlushReport
from orchclient.station import Station


@click.command("flush")
@sinks_option("Only this destination; may be repeated.")
@click.option("--task", metavar="ID", help="Wait for the events of one task only.", shell_complete=completion.tasks)
@click.option("--timeout", type=Duration(), default="30s", show_default=True, help="Wait at most so long.")
@click.option("--no-wait", "is_impatient", is_flag=True, help="Exit 5 when another process delivers, and do nothing.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Say what would be sent, and send nothing.")
@json_option
@click.pass_context
def flush_command(
    ctx: click.Context,
    sinks: tuple[str, ...],
    task: str | None,
    timeout: float,
    is_impatient: bool,
    is_dry: bool,
    as_json: bool,
) -> int:
    """Deliver what is due now.

    Beside a process that delivers already it asks that one to try now, and waits for it; without one it does the work,
    and brings the answers back that wait for what is open here.
    Ctrl-C ends the waiting, what is left stays in the outbox. Exit code 0: nothing that was due is left; 3: events
    are still pending, or there is no destination; 4: events became dead; 5: another process delivers (--no-wait);
    6: credentials were refused.

    \b
    Examples: orchclient flush --timeout 2m
              orchclient flush --to orchestrator --task task-123
    """
    settings = settings_of(ctx)
    station = open_existing(settings, only=sinks)
    if station is None:
        _checked(settings, sinks)
        path = str(outbox_path(settings))
        emit({"ok": True, "exists": False, "path": path}, f"Nothing to do: no outbox at {path}.", as_json=as_json)
        return ExitCode.DONE
    try:
        named = _checked(settings, sinks, station)
        if task is not None and station.task_state(task) is None:
            raise UnknownEvent(f"no events of task {task!r}; see orchclient list")
        if is_dry:
            return _told(station, settings, named, task, as_json=as_json)
        holders = {name: holder for name in named if (holder := deliverer(station, name))}
        if is_impatient and holders:
            return _busy(holders, as_json=as_json)
        return _flushed(station, settings, sinks, task, timeout, holders, as_json=as_json)
    finally:
        station.close(0)


def _checked(settings: config.Settings, names: Sequence[str], station: Station | None = None) -> tuple[str, ...]:
    """The destinations that are meant. Raises a usage error for one that nobody knows."""
    configured = [] if settings.mode != "online" else destinations.configured(settings, settings.known_secrets())
    known = {sink.name for sink in configured} | {sink.name for sink in (station.report().sinks if station else ())}
    refuse_unknown("destination", names, known)
    return tuple(names) or tuple(sorted(known))


# --- doing it -----------------------------------------------------------------------------------------------------


def _flushed(
    station: Station,
    settings: config.Settings,
    names: Sequence[str],
    task: str | None,
    timeout: float,
    holders: dict[str, Holder],
    *,
    as_json: bool,
) -> int:
    with interruption() as interrupted:
        watch = _Watch(interrupted, holders, is_shown=has_onlooker() and can_rewrite(sys.stderr) and not as_json)
        report = station.flush(timeout, names, watch, task)
        watch.clear()
    code = ExitCode.INTERRUPTED if interrupted.is_set() else exit_code(report, station.report().recorded)
    document = {"ok": code == ExitCode.DONE, "interrupted": interrupted.is_set(), **report.to_dict()}
    if interrupted.is_set() and not as_json:
        remark("Interrupted: what is left stays in the outbox")
    emit(document, _text(report, station.sink_names, settings.mode), as_json=as_json)
    return code


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Whether somebody pressed Ctrl-C; the second time it ends the process as usual."""
    interrupted, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    if before is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


SHOW_EVERY_S = 0.2


class _Watch:
    """Ends the waiting when it was interrupted; on a terminal, one line on stderr that rewrites itself."""

    def __init__(self, interrupted: threading.Event, holders: dict[str, Holder], *, is_shown: bool) -> None:
        self._interrupted = interrupted
        self._is_shown = is_shown
        pids = {holder.pid: holder for holder in holders.values() if holder.pid != os.getpid()}
        self._who = printable("".join(f", delivered by {_name(holder)}" for holder in pids.values()))
        self._next_at = 0.0  # until the first line is shown

    def __call__(self, progress: Progress) -> None:
        if self._interrupted.is_set():
            raise Enough
        if self._is_shown and progress.working and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + SHOW_EVERY_S
            left = sum(max(progress.mark.last_seq - row.cursor, 0) + row.parked for row in progress.rows)
            remark(f"\r\x1b[K{number(left)} left{self._who}", nl=False)

    def clear(self) -> None:
        """Take the line away."""
        if self._next_at:
            remark("\r\x1b[K", nl=False)


def _name(holder: Holder) -> str:
    return printable(f"pid {holder.pid} (agent {holder.agent})")


def exit_code(report: FlushReport, recorded: int) -> ExitCode:
    """The worst of what happened: refused credentials, then dead events, then pending ones, also without a receiver."""
    if any(_is_refused(each) for each in report.destinations.values()):
        return ExitCode.REFUSED
    if report.dead:
        return ExitCode.DEAD
    waits = report.due or (recorded and not report.destinations)
    return ExitCode.PENDING if waits else ExitCode.DONE


def _is_refused(each: Delivered) -> bool:
    return each.state == "paused" and any(code in each.reason for code in ("HTTP 401", "HTTP 403", "HTTP 407"))


# --- not doing it -------------------------------------------------------------------------------------------------


def _busy(holders: dict[str, Holder], *, as_json: bool) -> int:
    lines = [f"{name} is being delivered by {_name(holder)}" for name, holder in holders.items()]
    message = "; ".join(lines)
    if as_json:
        error = {"code": "busy", "message": message, "hint": "Without --no-wait: waits for it"}
        emit({"ok": False, "error": error}, "", as_json=True)
    else:
        click.echo(f"Busy: {message}. Without --no-wait, flush waits for it.", err=True)
    return ExitCode.BUSY


def _told(station: Station, settings: config.Settings, names: Sequence[str], task: str | None, *, as_json: bool) -> int:
    found = due(station, settings, names, task)
    document = {"ok": True, "dry_run": True, "destinations": {each.name: asdict(each) for each in found}}
    lines = [f"{each.name}  {_due_line(each)}" for each in found]
    if settings.mode == "offline":
        lines.append(_OFFLINE)
    emit(document, "\n".join(lines) or "No destination is configured: set ORCHCLIENT_URL.", as_json=as_json)
    return ExitCode.DONE


def _due_line(each: Due) -> str:
    line = f"{plural(each.pending, 'event')} would be sent"
    if each.oldest_age_s is not None:
        line += f", the oldest recorded {age(each.oldest_age_s)} ago"
    return line if each.state == "delivering" else f"{line}; {each.state}: {printable(each.reason)}"


# --- telling ------------------------------------------------------------------------------------------------------


def _text(report: FlushReport, configured: Sequence[str], mode: str) -> str:
    lines = [f"{name}  {_outcome(each)}" for name, each in report.destinations.items()]
    if not lines:
        return (
            _OFFLINE
            if mode == "offline"
            else "No destination is configured: events wait in the outbox. Set ORCHCLIENT_URL."
        )
    if len(lines) > 1:
        lines.append(
            f"{number(report.delivered)} delivered, {number(report.pending)} pending, {number(report.dead)} dead"
        )
    lines[-1] += f" in {report.seconds:.1f} s"
    if not configured and report.due:
        nobody = "No destination is configured here, and no other process delivers. Set ORCHCLIENT_URL."
        lines.append(_OFFLINE if mode == "offline" else nobody)
    if report.heard:
        lines.append(f"{plural(report.heard, 'item')} of the inbox came back")
    if report.dead:
        lines.append("Look: orchclient list --state dead")
    return "\n".join(lines)


_OFFLINE = "Mode is offline: events wait in the outbox. Unset ORCHCLIENT_MODE to deliver."


def _outcome(each: Delivered) -> str:
    parts = [f"{number(each.delivered)} delivered"]
    if each.dead:
        parts.append(f"{number(each.dead)} became dead")
    if each.pending > each.held:
        parts.append(f"{number(each.pending - each.held)} left ({_why(each)})")
    if each.held:
        parts.append(f"{number(each.held)} held back by its noise rules")
    return ", ".join(parts)


def _why(each: Delivered) -> str:
    reason = printable(each.reason) or each.state
    if each.next_try_at is None:
        return reason
    from datetime import datetime

    left_s = (microseconds(datetime.fromisoformat(each.next_try_at)) - SystemClock.now_us()) / 1e6
    return f"{each.state}: {reason}, next try {'in ' + age(left_s) if left_s > 0 else 'now'}"
