"""How the values of an event's data read in a message: whatever an agent put there, short and on one line. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchclient.core.texts import counted, fitted, line

VALUE_CHARS = 200


def worded(value: object) -> str:
    """A value of any kind; never empty."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}: {_inner(inner)}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(_inner, value))
    return fitted(line(str(value)), VALUE_CHARS) or "-"


def _inner(value: object) -> str:
    return (
        counted(len(value), "entry").replace("entrys", "entries") if isinstance(value, Mapping | list) else str(value)
    )


def listed(value: object) -> Sequence[Any]:
    """A list, empty for anything else."""
    return value if isinstance(value, list | tuple) else ()


def text_of(value: object) -> str:
    """A text, empty for anything else."""
    return value if isinstance(value, str) else ""


def number_of(value: object) -> float | None:
    """A number that can be read; None for anything else, NaN included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None


def plain(number: float | None) -> str:
    """``3``, ``85.5``."""
    return "0" if number is None else f"{number:,.1f}".removesuffix(".0")


def percent(number: float) -> str:
    """``40 %``."""
    return f"{plain(number)} %"


def minute(instant: str) -> str:
    """``2026-11-26 14:00 UTC`` of an instant of the wire."""
    return f"{line(instant)[:10]} {line(instant)[11:16]} UTC" if len(instant) >= 16 else ""


def duration(seconds: float) -> str:
    """``2 h``: one unit says enough."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
