"""Instants as integer UTC microseconds, and their RFC 3339 text. Never asks what time it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000
MIN_US = -62_135_596_800 * SECOND_US
MAX_US = 253_402_300_799 * SECOND_US


def rfc3339(us: int) -> str:
    """The instant as RFC 3339 text in UTC with microseconds, such as ``2026-11-23T01:02:03.000004Z``."""
    seconds, micros = divmod(us, SECOND_US)
    return f"{_to_the_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    # Events come in bursts within a second: formatting the calendar part once a second halves the cost.
    return instant(seconds * SECOND_US).strftime("%Y-%m-%dT%H:%M:%S")


def instant(us: int) -> datetime:
    """The instant as an aware ``datetime``; a clock beyond the calendar is shown at the calendar's end."""
    return EPOCH + timedelta(microseconds=min(max(us, MIN_US), MAX_US))


def microseconds_of(text: str) -> int | None:
    """The integer microseconds of an RFC 3339 text; None when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return microseconds(moment) if moment.tzinfo else None


def microseconds(moment: datetime) -> int:
    """The integer microseconds of an aware ``datetime``."""
    return (moment - EPOCH) // timedelta(microseconds=1)
