"""Durations and instants as arguments of commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from orchclient import config
from orchclient.core.timestamps import microseconds
from orchclient.delivery.clock import SystemClock


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Text as seconds."""
        try:
            return config.seconds(str(value))
        except ValueError:
            near = ". Its value is attached: --wait=10m, --flush=5s" if _takes_attached(param) else ""
            self.fail(f"{value!r} is not a duration such as 90, 90s, 15m, 2h or 7d{near}", param, ctx)


def _takes_attached(param: click.Parameter | None) -> bool:
    """Whether a duration may be left out, so that what follows was taken for one."""
    return isinstance(param, click.Option) and isinstance(param.flag_value, str)


class Since(click.ParamType[int]):
    """UTC microseconds: a duration before now, or a point in time."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Text as an instant; a time without a zone is one of this machine's."""
        text = str(value)
        try:
            return max(SystemClock.now_us() - int(config.seconds(text) * 1e6), 0)
        except ValueError:
            pass
        try:
            return microseconds(datetime.fromisoformat(text).astimezone(UTC))
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither a duration such as 2h nor a time such as 2026-11-25T03:00", param, ctx)


class Until(click.ParamType[datetime]):
    """A moment to come: a duration from now, or a point in time."""

    name = "until"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Text as an aware instant; a time without a zone is one of this machine's."""
        text = str(value)
        try:
            return datetime.fromtimestamp(SystemClock.now_us() / 1e6 + config.seconds(text), UTC)
        except (ValueError, OverflowError, OSError):
            pass
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither a duration such as 2h nor a time such as 2026-11-25T17:00", param, ctx)
