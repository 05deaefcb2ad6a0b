"""``orchclient flush``: deliver what is due now, or wait for the process that delivers already."""

from __future__ import annotations

import sys

import click

from orchclient.cli.choosing import Duration
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, age, emit, number, printable
from orchclient.core.timestamps import microseconds
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.flush import Progress
from orchclient.reporting import Delivered, FlushReport


@click.command("flush")
@click.option("--timeout", type=Duration(), default="30s", show_default=True, help="Wait at most so long.")
@json_option
@click.pass_context
def flush_command(ctx: click.Context, timeout: float, as_json: bool) -> int:
    """Deliver what is due now.

    Beside a process that delivers already it asks that one to try now, and waits for it. Exit code 0: nothing that was
    due is left; 3: events are still pending; 4: events became dead; 6: credentials were refused.

    \b
    Example: orchclient flush --timeout 2m
    """
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        path = str(outbox_path(settings))
        emit(
            {"ok": True, "exists": False, "path": path},
            f"Nothing to do: no outbox at {path}.",
            as_json=as_json,
        )
        return ExitCode.DONE
    try:
        report = station.flush(timeout, watch=_Progress(as_json))
        configured = station.sink_names
    finally:
        station.close(0)
    code = exit_code(report)
    emit({"ok": code == ExitCode.DONE, **report.to_dict()}, _text(report, configured), as_json=as_json)
    return code


class _Progress:
    """One line that rewrites itself, on stderr and only when that is a terminal."""

    def __init__(self, as_json: bool) -> None:
        self._is_shown = sys.stderr.isatty() and not as_json

    def __call__(self, progress: Progress) -> None:
        if not self._is_shown:
            return
        left = sum(max(progress.mark.last_seq - row.cursor, 0) + row.parked for row in progress.rows)
        click.echo(f"\r\x1b[K{number(left)} left" if progress.working else "\r\x1b[K", nl=False, err=True)


def exit_code(report: FlushReport) -> ExitCode:
    """The worst of what happened: refused credentials, then dead events, then pending ones."""
    if any(_is_refused(each) for each in report.destinations.values()):
        return ExitCode.REFUSED
    if report.dead:
        return ExitCode.DEAD
    return ExitCode.PENDING if report.pending else ExitCode.DONE


def _is_refused(each: Delivered) -> bool:
    return each.state == "paused" and any(code in each.reason for code in ("HTTP 401", "HTTP 403", "HTTP 407"))


def _text(report: FlushReport, configured: tuple[str, ...]) -> str:
    lines = [f"{name}  {_outcome(each)}" for name, each in report.destinations.items()]
    if not report.destinations:
        lines.append("No destination is configured: events wait in the outbox. Set ORCHCLIENT_URL.")
    elif not configured and report.pending:
        lines.append("No destination is configured here, and no other process delivers. Set ORCHCLIENT_URL.")
    totals = f"{number(report.delivered)} delivered, {number(report.pending)} pending, {number(report.dead)} dead"
    return "\n".join([*lines, f"{totals} in {report.seconds:.1f} s"])


def _outcome(each: Delivered) -> str:
    parts = [f"{number(each.delivered)} delivered"]
    if each.dead:
        parts.append(f"{number(each.dead)} became dead")
    if each.pending:
        parts.append(f"{number(each.pending)} left ({_why(each)})")
    return ", ".join(parts)


def _why(each: Delivered) -> str:
    reason = printable(each.reason) or each.state
    if each.next_try_at is None:
        return reason
    from datetime import datetime

    left_s = (microseconds(datetime.fromisoformat(each.next_try_at)) - SystemClock.now_us()) / 1e6
    return f"{each.state}: {reason}, next try {'in ' + age(left_s) if left_s > 0 else 'now'}"
