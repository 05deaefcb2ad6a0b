"""``transaction()`` for asyncio agents: their own statements, run in the client's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from orchclient import client as sync
from orchclient.aio.calls import Calls, Hold
from orchclient.outbox import statements

T = TypeVar("T")


class OwnStatements:
    """The outbox's connection inside ``transaction()``. Leave BEGIN and COMMIT to the block."""

    def __init__(self, calls: Calls, con: sqlite3.Connection) -> None:
        self._calls = calls
        self._con = con

    async def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, all of them."""
        return await self.run(lambda con: statements.rows(con, sql, parameters))

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
        """Run one statement for each set of parameters."""
        await self.run(lambda con: statements.run_many(con, sql, parameters))

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call a function with the connection, in the client's thread; what it returns. Keep the connection there."""
        return await self._calls.run(lambda: work(self._con))


class Transaction:
    """One ``async with`` block: committed at its end, rolled back when an exception or a cancellation leaves it."""

    def __init__(self, calls: Calls, target: Callable[[], sync.OrchestratorClient]) -> None:
        self._calls = calls
        self._target = target
        self._hold = Hold(calls)

    async def __aenter__(self) -> OwnStatements:
        return OwnStatements(self._calls, await self._hold.begin(self._entered))

    def _entered(self) -> tuple[sqlite3.Connection, Callable[[BaseException | None], None]]:
        block = self._target().transaction()
        return block.__enter__(), lambda error: _left(block, error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._hold.end(error)


def _left(block: AbstractContextManager[sqlite3.Connection], error: BaseException | None) -> None:
    if error is None:
        block.__exit__(None, None, None)
    else:
        block.__exit__(type(error), error, error.__traceback__)
