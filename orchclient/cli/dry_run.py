"""What ``orchclient flush --dry-run`` would send, destination by destination."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from attrs import frozen

from orchclient import config, destinations
from orchclient.outbox import cursors, desk, journal
from orchclient.station import Station


@frozen
class Due:
    """Events that a destination would get, seconds since the oldest was recorded, and how it fares."""

    name: str
    pending: int
    oldest_age_s: float | None = None
    state: str = "delivering"
    reason: str = ""


def due(station: Station, settings: config.Settings, names: Sequence[str], task: str | None) -> list[Due]:
    """What each destination would get now, of one task or of all."""
    reports = {sink.name: sink for sink in station.report().sinks}
    found = []
    for name in names:
        sink = reports.get(name)
        if sink is None:
            found.append(Due(name, _first_time(station, settings, name, task)))
        elif task is None:
            found.append(Due(name, sink.pending, sink.oldest_age_s, sink.state, sink.reason))
        else:
            pending = station.query(lambda con: _of_task(con, name, task))  # noqa: B023
            found.append(Due(name, pending, None, sink.state, sink.reason))
    return found


def _of_task(con: sqlite3.Connection, name: str, task: str) -> int:
    row = cursors.sink(con, name)
    if row is None:
        return 0
    return journal.count_of_task(con, task, row.cursor, journal.MAX_SEQ) + desk.parked_of_task(con, name, task)


def _first_time(station: Station, settings: config.Settings, name: str, task: str | None) -> int:
    """For a destination that was never served: everything kept, or nothing yet."""
    configured = destinations.configured(settings, settings.known_secrets())
    if not any(sink.name == name and sink.from_beginning for sink in configured):
        return 0
    if task is None:
        return station.report().kept
    return station.query(lambda con: journal.count_of_task(con, task, 0, journal.MAX_SEQ))
