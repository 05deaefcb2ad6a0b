"""``orchclient export`` and ``orchclient import``: an outbox as a file that is carried, read, or replayed in tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import click
from attrs import asdict

from orchclient import recordings
from orchclient.cli.choices import OneOf
from orchclient.cli.duration import Since
from orchclient.cli.opening import json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import emit, plural, written
from orchclient.config import Settings
from orchclient.core.errors import InvalidRecording, OutboxError
from orchclient.core.recording import Header
from orchclient.core.secret import KnownSecrets
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import listing
from orchclient.outbox.carrying import Wanted
from orchclient.recordings import Taken
from orchclient.station import SwitchedOff, open_station


@click.command("export")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="A file instead of stdout.")
@click.option("--task", metavar="ID", help="Only one task.")
@click.option("--agent", metavar="ID", help="Only one agent.")
@click.option("--since", "since_us", type=Since(), metavar="WHEN", help="Recorded since: 2h, or a time.")
@click.option("--state", "states", multiple=True, type=OneOf(listing.STATES), help="Only these; may be repeated.")
@json_option
@click.pass_context
def export_command(
    ctx: click.Context,
    output: Path | None,
    task: str | None,
    agent: str | None,
    since_us: int | None,
    states: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write the outbox as a recording: one line of JSON for each event, oldest first, without secrets.

    Carry it to a host that has a network (orchclient import), look at it, or replay it in a test. The file can be
    read by its owner only and is there whole or not at all. Nothing changes in the outbox. With a filter by task, agent
    or state it is a selection, for tests.

    \b
    Example: orchclient export -o carried.jsonl
    """
    if as_json and output is None:
        raise click.UsageError("--json tells of the file that --output names: on stdout is the recording itself", ctx)
    settings = settings_of(ctx)
    outbox = look_into(settings)
    if outbox is None:
        raise OutboxError(f"there is nothing to export: no outbox yet at {outbox_path(settings)}")
    given = {"task": task, "agent": agent, "states": list(states)}
    selection = {name: value for name, value in given.items() if value}
    try:
        with _out(output) as file:
            header = recordings.export(
                outbox,
                file,
                settings.known_secrets().redactor,
                SystemClock.now_us(),
                wanted=Wanted(task, agent, states),
                since_us=since_us,
                selection=selection,
            )
    finally:
        outbox.close()
    if output is not None:
        emit({"ok": True, "file": str(output), **_told(header)}, _exported(header, output), as_json=as_json)


def _exported(header: Header, output: Path) -> str:
    return f"{plural(header.events, 'event')} written to {output}"


@contextmanager
def _out(output: Path | None) -> Iterator[IO[bytes]]:
    if output is not None:
        with recordings.private_file(output) as file:
            yield file
        return
    with written():
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def _told(header: Header) -> dict[str, Any]:
    return {
        "source": header.source,
        "events": header.events,
        "from": header.first,
        "to": header.last,
        "selection": header.selection,
    }


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--dry-run", "is_dry", is_flag=True, help="Check every line and count, and change nothing.")
@json_option
@click.pass_context
def import_command(ctx: click.Context, file: Path, is_dry: bool, as_json: bool) -> None:
    """Take a recording of another host's outbox in, to deliver it from here. FILE may be - for stdin.

    Every line is checked before anything is stored; then all of it is stored durably, or, after a crash, by the same
    command again. Events keep their ids, their source and their places, so that the orchestrator knows each of them
    again, whichever host delivers it first. So each host's events need an outbox of their own: name one by --db.

    \b
    Examples: orchclient import carried.jsonl --dry-run
              orchclient --db carried/build-7.db import carried.jsonl
    """
    settings = settings_of(ctx)
    try:
        with _rewound(file) as lines:
            header, taken = _taken_in(settings, lines, is_dry=is_dry)
    except InvalidRecording as error:
        where = "" if str(file) in error.problem else f" ({file})"
        raise InvalidRecording(error.line, f"{error.problem}{where}") from None
    document = {
        "ok": True,
        "dry_run": is_dry,
        "outbox": str(outbox_path(settings)),
        **_told(header),
        **asdict(taken),
        "known": taken.known,
    }
    emit(document, _imported(header, taken, is_dry=is_dry), as_json=as_json)


def _taken_in(settings: Settings, lines: IO[bytes], *, is_dry: bool) -> tuple[Header, Taken]:
    now_us = SystemClock.now_us()
    if not outbox_path(settings).exists():  # a recording that is refused leaves no empty outbox behind
        checked = recordings.import_into(None, lines, now_us, is_dry=True)
        if is_dry:
            return checked
    station = open_station(settings, SystemClock(), KnownSecrets(), sinks=(), transport=None, background=False)
    if isinstance(station, SwitchedOff):
        raise OutboxError("orchclient is disabled: ORCHCLIENT_MODE=disabled keeps no outbox; unset it to import")
    try:
        return recordings.import_into(station, lines, now_us, is_dry=is_dry)
    finally:
        station.close(0)


@contextmanager
def _rewound(file: Path) -> Iterator[IO[bytes]]:
    """The recording as a file that can be read twice: stdin and pipes are kept beside meanwhile."""
    with SpooledTemporaryFile(max_size=recordings.IN_MEMORY_BYTES) as spool:
        if str(file) == "-":
            if sys.stdin is None:
                raise click.UsageError("FILE is -, and stdin is closed: there is nothing to read")
            copyfileobj(sys.stdin.buffer, spool)
            spool.seek(0)
            yield spool
            return
        try:
            opened = file.open("rb")
        except OSError as error:
            raise InvalidRecording(0, f"{file} cannot be read ({error.strerror or error})") from error
        with opened:
            if opened.seekable():
                yield opened
                return
            copyfileobj(opened, spool)
            spool.seek(0)
            yield spool


def _imported(header: Header, taken: Taken, *, is_dry: bool) -> str:
    would = "would be " if is_dry else ""
    known = f", {plural(taken.known, 'event')} known already" if taken.known else ""
    lines = [f"{plural(taken.imported, 'event')} {would}taken in{known} ({header.source}, of {header.recorded_at})"]
    if taken.imported and not is_dry:
        lines.append("Deliver: orchclient flush, with the same --db")
    return "\n".join(lines)
