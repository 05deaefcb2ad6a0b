"""Whether there is colour, and which words have one. Every coloured word is a word: colour alone tells nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

CHOICES = ("auto", "always", "never")

_GOOD, _SOON, _BAD = {"fg": "green"}, {"fg": "yellow"}, {"fg": "red", "bold": True}

STYLES: Mapping[str, Mapping[str, Any]] = {
    "ok": _GOOD,
    "delivering": _GOOD,
    "delivered": {},
    "WARNING": _SOON,
    "waiting": _SOON,
    "throttled": _SOON,
    "parked": _SOON,
    "expired": _SOON,
    "paused": _BAD,
    "disabled": _BAD,
    "dead": _BAD,
    "PROBLEM": _BAD,
}


def wanted(choice: str, environ: Mapping[str, str] = os.environ) -> bool | None:
    """Yes, no, or None: on a terminal only. The flag counts, then NO_COLOR, FORCE_COLOR, and a dumb terminal.

    See no-color.org and force-color.org: a variable that is not empty counts, whatever it says.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return False if environ.get("TERM") == "dumb" else None


def styled(word: str, padded: str | None = None) -> str:
    """A word in its colour, in the place that it has; another one as it is. What is no terminal gets none of it."""
    style = STYLES.get(word.strip())
    text = word if padded is None else padded
    if not style:
        return text
    import click

    return click.style(text, **style)
