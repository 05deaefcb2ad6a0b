"""How a command opens the outbox: the settings of the flags and the environment, and never a file made by looking."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchclient import config
from orchclient.core.errors import OutboxError
from orchclient.delivery.clock import SystemClock

if TYPE_CHECKING:
    from orchclient.outbox.glance import Glance
    from orchclient.outbox.outbox import Outbox
    from orchclient.station import Station

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def settings_of(ctx: click.Context) -> config.Settings:
    """The settings that hold for this command."""
    flags: dict[str, Any] = ctx.find_root().obj or {}
    return config.load(config_file=flags.get("config_file"), db=flags.get("db"))


def outbox_path(settings: config.Settings) -> Path:
    """Where the outbox is, whether it exists or not."""
    return settings.db or config.default_db()


def look_into(settings: config.Settings) -> Glance | None:
    """The outbox to look at, without what delivers; None when nothing was recorded on this host yet."""
    _refuse_disabled(settings)
    path = outbox_path(settings)
    if not path.exists():
        return None
    from orchclient.outbox.glance import Glance

    return Glance(path, lambda: open_whole(settings), allow_network=settings.allow_network_filesystem)


def open_whole(settings: config.Settings) -> Outbox:
    """The outbox as those open it who record: what is wrong with it is seen to."""
    _refuse_disabled(settings)
    from orchclient.opened import open_outbox

    return open_outbox(settings, SystemClock())


def configured_names(settings: config.Settings) -> tuple[str, ...]:
    """The destinations that a process with these settings delivers to."""
    if settings.mode != "online":
        return ()
    from orchclient import dialects

    return (*dialects.names_of(settings), *settings.sinks)


def open_existing(settings: config.Settings, only: Collection[str] = ()) -> Station | None:
    """The outbox, with all destinations or with ``only`` some, or None when nothing was recorded on this host yet."""
    _refuse_disabled(settings)
    if not outbox_path(settings).exists():
        return None
    from orchclient import destinations
    from orchclient.station import Station, open_station

    secrets, sinks = settings.known_secrets(), None
    if only:
        sinks = [sink for sink in destinations.configured(settings, secrets) if sink.name in only]
    station = open_station(settings, SystemClock(), secrets, sinks=sinks, transport=None, background=False)
    assert isinstance(station, Station)
    return station


def _refuse_disabled(settings: config.Settings) -> None:
    if settings.mode == "disabled" and outbox_path(settings).exists():
        raise OutboxError("orchclient is disabled: ORCHCLIENT_MODE=disabled keeps no outbox; unset it to look")
