"""The lines of a message in the room that a service has."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orchclient.core.message import Message
from orchclient.core.texts import as_is, brief, fitted


def rows_of(message: Message, most: int) -> list[str]:
    """The lines of a message one by one, as many characters as there is room for in all."""
    rows, left = list[str](), most
    for text in _each_row(message):
        if left < 40:
            rows.append("…")
            break
        rows.append(fitted(text, left))
        left -= len(rows[-1])
    return rows


def _each_row(message: Message) -> Iterator[str]:
    for text in message.lines:
        yield from (row for row in text.split("\n") if row.strip())


def lines_of(message: Message, most: int, escape: Callable[[str], str] = as_is) -> str:
    """All lines as one text."""
    return fitted("\n\n".join(message.lines), most, escape)


def end_of(message: Message) -> list[str]:
    """What a message ends with: which event it tells, and when that was recorded."""
    return [part for part in (brief(message.footer, 100), message.time) if part]
