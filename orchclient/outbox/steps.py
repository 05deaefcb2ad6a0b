"""Moving many events in steps: a transaction each, short enough that no record call waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Protocol, TypeVar

STEP = 500
"""Events that one transaction moves: a few milliseconds."""

T = TypeVar("T")


class Store(Protocol):
    """What moves events in steps: committed transactions, and questions between them."""

    def write(self, work: Callable[[sqlite3.Connection], T], *, synced: bool = False) -> T:
        """Run ``work`` in a committed transaction."""

    def query(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Ask a question of the committed state."""
