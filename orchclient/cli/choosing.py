"""What commands are told to work on: destinations, events by the beginning of their ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchclient.cli.choices import refuse_unknown
from orchclient.cli.output import printable
from orchclient.delivery.election import is_held, lock_path
from orchclient.outbox import cursors, leadership, listing
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.leadership import Holder
from orchclient.outbox.listing import Listed
from orchclient.station import Station


def check_sinks(names: Collection[str], station: Station) -> None:
    """Refuse a destination that neither the outbox nor the settings know, with the one that was probably meant."""
    refuse_unknown("destination", names, {*(row.name for row in station.query(cursors.sinks)), *station.sink_names})


def chosen_sinks(names: Collection[str], station: Station) -> list[SinkRow]:
    """The destinations of these names, or all; raises a usage error for an unknown one."""
    check_sinks(names, station)
    return [row for row in station.query(cursors.sinks) if not names or row.name in names]


def chosen_events(prefixes: Sequence[str], station: Station) -> list[Listed]:
    """The events whose ids begin so. Raises ``UnknownEvent`` when one is not found, before anything was changed."""
    return [station.query(lambda con: listing.event(con, prefix)) for prefix in prefixes]  # noqa: B023


def deliverer(station: Station, sink: str) -> Holder | None:
    """The process that delivers to a destination right now; None when nobody does."""
    if not is_held(lock_path(station.path, sink)):
        return None
    return station.query(lambda con: leadership.last_holder(con, sink))


def what_follows(station: Station, sink: str) -> str:
    """A line for people: who delivers what is pending now, or how to have it delivered, or what keeps it from it."""
    row = station.query(lambda con: cursors.sink(con, sink))
    if row is not None and row.state in (SinkState.PAUSED, SinkState.DISABLED):
        return f"{sink} is {row.state.value}: {printable(row.reason)}. Mend that, then: orchclient flush"
    holder = deliverer(station, sink)
    if holder is None:
        return "Nobody delivers right now. Deliver: orchclient flush"
    who = printable(f"pid {holder.pid} (agent {holder.agent})")
    return f"Delivered by {who}. Wait for it: orchclient flush"
