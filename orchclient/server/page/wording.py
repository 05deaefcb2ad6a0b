"""How values read on the page: ages, instants, states, and whatever an agent put into its data. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from orchclient.core.jsontext import encode
from orchclient.core.message import web_address
from orchclient.core.texts import seen
from orchclient.core.timestamps import instant, rfc3339

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_MOST_SHOWN: Final = 4_000

OUTCOMES: Final[Mapping[str, str]] = {
    "answered": "answered",
    "approved": "approved",
    "changes_requested": "asked for changes",
    "rejected": "rejected",
    "declined": "did not want to decide",
    "expired": "ran out of time",
}


def shown(text: object) -> str:
    """Text as a person sees it: nothing invisible in it, no change of direction."""
    return seen(str(text))


def brief(text: object, most: int = 160) -> str:
    """The beginning, on one line."""
    line = " ".join(shown(text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def words(name: object) -> str:
    """A name of a state or a member, as words."""
    return shown(name).replace("_", " ")


def duration(seconds: float) -> str:
    """How long, in one unit."""
    if seconds < _MINUTE:
        return f"{max(seconds, 0):.0f} s"
    for least, unit, name in ((2 * _DAY, _DAY, "days"), (2 * _HOUR, _HOUR, "h")):
        if seconds >= least:
            return f"{seconds // unit:.0f} {name}"
    return f"{seconds // _MINUTE:.0f} min"


def ago(us: int, now_us: int) -> str:
    """How long ago; what is less than a minute old is new."""
    seconds = (now_us - us) / 1e6
    return "just now" if seconds < _MINUTE else f"{duration(seconds)} ago"


def until(us: int, now_us: int) -> str:
    """How long there is."""
    seconds = (us - now_us) / 1e6
    return f"in {duration(seconds)}" if seconds > 0 else "passed"


def moment(us: int) -> str:
    """An instant for people: the day and the second."""
    return instant(us).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(us: int, now_us: int) -> str:
    """The time of an instant; with its day when that is not today."""
    at = instant(us)
    return at.strftime("%H:%M:%S UTC" if at.date() == instant(now_us).date() else "%Y-%m-%d %H:%M UTC")


def deadline(us: int, now_us: int) -> str:
    """An instant to the minute; with its day when that is not today."""
    at = instant(us)
    return at.strftime("%H:%M UTC" if at.date() == instant(now_us).date() else "%Y-%m-%d %H:%M UTC")


def number(value: float) -> str:
    """A number without needless digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def plain(value: Any) -> str:
    """Any JSON value as text; a long one is cut, and says so."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return number(value) if abs(value) < 1e15 else encode(value)
    text = shown(value if isinstance(value, str) else _inside(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… (+{len(text) - _MOST_SHOWN:,} characters)"


def _inside(value: Any) -> str:
    """A list of simple things a line each, anything else as JSON."""
    if isinstance(value, list) and not any(isinstance(each, list | dict) for each in value):
        return "\n".join(plain(each) for each in value) or "none"
    return json.dumps(value, ensure_ascii=False, indent=2)


def person(responder: Mapping[str, Any]) -> str:
    """Who decided."""
    if responder.get("kind") == "timeout":
        return "the deadline"
    name = responder.get("display") or responder.get("id")
    return brief(name, 80) if name else "a rule"


FILTERS: Final = {
    "shown": shown,
    "brief": brief,
    "words": words,
    "duration": duration,
    "moment": moment,
    "number": number,
    "plain": plain,
    "person": person,
    "web": lambda text: web_address(text) if isinstance(text, str) else "",
    "iso": rfc3339,
    "outcome": lambda name: OUTCOMES.get(name, words(name)),
}
"""For the templates, by name."""
