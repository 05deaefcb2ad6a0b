"""The inbox of an orchestrator in memory: items in their order, pages and cursors, kept until acknowledged.

Must not know what an item says, nor who puts it there. Not locked: whoever owns it sees to that.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any, NamedTuple

Item = dict[str, Any]

_PAGE_BYTES = 65_536
_PAGE_FRAME = 1_024  # the members of a page around its items


class Entry(NamedTuple):
    """One item at its place; ``source`` is whose inbox it lies in, None for whoever asks first."""

    position: int
    source: str | None
    item: Item

    def is_for(self, source: str) -> bool:
        return self.source in (None, source)


class Inbox:
    """Items in the order they were put."""

    def __init__(self, page_items: int) -> None:
        self.entries: list[Entry] = []
        self.history: list[Item] = []  # what was put, acknowledged or not
        self.page_items = page_items
        self._positions = count(1)

    @property
    def items(self) -> list[Item]:
        return [entry.item for entry in self.entries]

    def put(self, item: Item, source: str | None) -> None:
        self.history.append(item)
        self._add(item, source)

    def _add(self, item: Item, source: str | None) -> None:
        self.entries.append(Entry(next(self._positions), source, item))

    def after(self, position: int, source: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.position > position and entry.is_for(source)]

    def page(self, position: int, source: str) -> dict[str, Any]:
        """The next items that fit, by number and by bytes; an item that fits into no page stands alone in one."""
        waiting = self.after(position, source)
        fitting = _fitting(waiting[: self.page_items])
        cursor = cursor_of(fitting[-1].position if fitting else position, source)
        return {
            "items": [entry.item for entry in fitting],
            "cursor": cursor,
            "has_more": len(fitting) < len(waiting),
        }

    def drop(self, position: int, source: str) -> None:
        """What was acknowledged up to a place is not given again."""
        self.entries = [entry for entry in self.entries if entry.position > position or not entry.is_for(source)]

    def reorder(self, order: Callable[[list[Item]], Iterable[Item]]) -> None:
        """The same items in another order, behind every cursor that was given out."""
        sources = {id(entry.item): entry.source for entry in self.entries}
        reordered = list(order(self.items))
        if sorted(map(id, reordered)) != sorted(map(id, self.items)):
            raise ValueError("an order gives back the items that it was given, each once")
        self.entries = []
        for item in reordered:
            self._add(item, sources[id(item)])

    def pending(self, sources: set[str]) -> int:
        return sum(entry.source is None or entry.source in sources for entry in self.entries)


def _fitting(entries: list[Entry]) -> list[Entry]:
    left = _PAGE_BYTES - _PAGE_FRAME
    for number, entry in enumerate(entries):
        left -= len(json.dumps(entry.item)) + len(", ")
        if left < 0 and number:
            return entries[:number]
    return entries


def cursor_of(position: int, source: str) -> str:
    return base64.urlsafe_b64encode(f"{position}@{source}".encode()).decode()


def opened_cursor(cursor: str) -> tuple[int, str] | None:
    """The position and the source; None for a cursor that was not given out here."""
    try:
        position, _, source = base64.urlsafe_b64decode(cursor).decode().partition("@")
        return int(position), source
    except ValueError:
        return None
