"""How a command opens the outbox: the settings of the flags and the environment, and never a file made by looking."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from orchclient import config, destinations
from orchclient.core.errors import OutboxError
from orchclient.delivery.clock import SystemClock
from orchclient.station import Station, SwitchedOff, open_station

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def settings_of(ctx: click.Context) -> config.Settings:
    """The settings that hold for this command."""
    flags: dict[str, Any] = ctx.find_root().obj or {}
    return config.load(config_file=flags.get("config_file"), db=flags.get("db"))


def outbox_path(settings: config.Settings) -> Path:
    """Where the outbox is, whether it exists or not."""
    return settings.db or config.default_db()


def open_existing(settings: config.Settings, only: Collection[str] = ()) -> Station | None:
    """The outbox, with all destinations or with ``only`` some, or None when nothing was recorded on this host yet."""
    if not outbox_path(settings).exists():
        return None
    secrets, sinks = settings.known_secrets(), None
    if only:
        sinks = [sink for sink in destinations.configured(settings, secrets) if sink.name in only]
    station = open_station(settings, SystemClock(), secrets, sinks=sinks, transport=None, background=False)
    if isinstance(station, SwitchedOff):
        raise OutboxError("orchclient is disabled: ORCHCLIENT_MODE=disabled keeps no outbox; unset it to look")
    return station
