"""Text of agents made fit for people's screens: nothing invisible in it, cut to a size that says what was left out.

Knows no destination: how many characters there may be, and what has to be escaped, comes in as arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Escape = Callable[[str], str]

_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0e-\x1f\x7f-\x9f"  # control characters; line breaks and tabs have been dealt with
    "\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"  # direction, and what has no width
    "\ufff0-\uffff\ufdd0-\ufdef\ud800-\udfff"  # no characters, or halves of some
    "\U000e0000-\U000e0fff"  # tags: a second text that only machines read
    "]"
)


def seen(text: str) -> str:
    """What a person sees of ``text``: without control characters, changes of direction and hidden characters.

    Lines end with one newline, a tab is a space. The joiners of scripts and emoji (U+200C, U+200D) stay.
    """
    return _UNSEEN.sub("", _BREAKS.sub("\n", text).replace("\t", " "))


def line(text: str) -> str:
    """What a person sees of ``text`` on one line."""
    return " ".join(seen(text).split())


def units(text: str) -> int:
    """Characters as a service counts that counts in UTF-16: never fewer than one that counts code points."""
    return len(text) + sum(char > "\uffff" for char in text)


def as_is(text: str) -> str:
    """No escape."""
    return text


def fitted(text: str, most: int, escape: Escape = as_is) -> str:
    """``text``, escaped, in at most ``most`` UTF-16 units; when it is cut, it says how many characters are left out.

    It is cut before it is escaped, so that no escape is torn apart.
    """
    whole = escape(text[: most + 1])
    if len(text) <= most and units(whole) <= most:
        return whole
    low, high = 0, min(len(text), most)
    while low < high:  # the longest beginning that fits together with what is said of the rest
        middle = (low + high + 1) // 2
        if units(_beginning(text, middle, escape)) <= most:
            low = middle
        else:
            high = middle - 1
    cut = _beginning(text, low, escape)
    return cut if units(cut) <= most else escape(text[: max(most // 8, 0)])[:most]


def brief(text: str, most: int) -> str:
    """The beginning of a line in at most ``most`` UTF-16 units; the whole stands elsewhere."""
    if units(text) <= most:
        return text
    cut = text[: most - 1]
    while units(cut) >= most:
        cut = cut[:-1]
    return cut.rstrip() + "…"


def _beginning(text: str, count: int, escape: Escape) -> str:
    return f"{escape(text[:count].rstrip())}… (+{len(text) - count:,} characters)"


def joined(rows: Iterable[str], most: int) -> str:
    """As many of the first rows, one a line, as fit into ``most`` UTF-16 units."""
    text = ""
    for row in rows:
        longer = f"{text}\n{row}" if text else row
        if units(longer) > most:
            break
        text = longer
    return text


def counted(count: int, noun: str) -> str:
    """``1 question``, ``2 questions``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
