"""A host with one outbox file: clients come and go, processes are killed, the file is copied and put back.

The one place that reaches behind the client's public surface. Must not know what is recorded or expected.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from attrs import frozen

from orchclient import OrchestratorClient
from orchclient.outbox.connection import connect
from orchclient.outbox.migrations import migrate
from orchclient.outbox.outbox import Outbox

from .clock import FakeClock


def outbox_of(client: OrchestratorClient) -> Outbox:
    """The outbox that a client records to."""
    outbox: Outbox = client._station._outbox
    return outbox


def checkpoint(client: OrchestratorClient) -> None:
    """What a housekeeper does after a thousand commits."""
    outbox_of(client)._store.checkpoint(wait=True)


def writing_connection(client: OrchestratorClient) -> sqlite3.Connection:
    """The connection on which a client commits."""
    return outbox_of(client)._store.connection()


@frozen
class Image:
    """What is on the disk at one moment: the database and its -wal. A killed process leaves exactly this."""

    database: bytes
    wal: bytes


def template(directory: Path) -> Image:
    """A migrated file without an identity, made once: migrations import sqlite-utils, which takes a tenth of a second.

    It has a table of the caller's own, for ``transaction()``.
    """
    path = directory / "template.db"
    _write(path, b"")
    with closing(connect(str(path))) as con:
        migrate(con, str(path))
        con.execute("CREATE TABLE own (note INTEGER PRIMARY KEY)")
    return Image(path.read_bytes(), b"")


class Host:
    """Agents' clients over one outbox file below ``directory``, each opened when it is first used."""

    def __init__(self, directory: Path, image: Image, clock: FakeClock, agents: tuple[str, ...]) -> None:
        self.lives = 0
        self._directory = directory
        self._clock = clock
        self._agents = agents
        self._clients: dict[int, OrchestratorClient] = {}
        self._left_behind: list[OrchestratorClient | sqlite3.Connection] = []
        self._start(image)

    def _start(self, image: Image) -> None:
        """Begin another life of the host, with the file as ``image`` has it.

        In a directory of its own: the clients of the life before still hold their files, as no real dead process does.
        """
        self.lives += 1
        self._clients = {}
        self.path = self._directory / f"life{self.lives}" / "outbox.db"
        self.path.parent.mkdir(mode=0o700)
        _write(self.path, image.database)
        if image.wal:
            _write(self._wal, image.wal)
        self.client(0)
        self.reader = sqlite3.connect(self.path, isolation_level=None)

    @property
    def _wal(self) -> Path:
        return self.path.with_name("outbox.db-wal")

    def client(self, who: int) -> OrchestratorClient:
        """The client of an agent's process."""
        if who not in self._clients:
            self._clients[who] = OrchestratorClient(
                self._agents[who],
                outbox=self.path,
                background=False,
                clock=self._clock,
                mode="offline",
                allow_network_filesystem=True,  # one look at the mounts less for each of thousands of clients
            )
        return self._clients[who]

    def stats(self, agent: str) -> dict[str, Any]:
        """What an agent would be told of its communication, whichever process asks."""
        return self.client(0)._station.communication_stats(agent)

    def last_seq(self) -> int:
        """The sequence of the newest event in the file."""
        return int(self.reader.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])

    def kept_seqs(self) -> set[int]:
        """The sequences of the events in the file."""
        return {seq for (seq,) in self.reader.execute("SELECT seq FROM events")}

    def image(self) -> Image:
        """The file as processes that die now would leave it."""
        # Opening the files beside SQLite drops its locks, which only other processes would see; there are none.
        return Image(self.path.read_bytes(), self._wal.read_bytes())

    def crash(self, image: Image | None = None) -> None:
        """Kill every process, now or when ``image`` was taken, and start again."""
        image = image or self.image()
        self._left_behind += [*self._clients.values(), self.reader]
        self._start(image)

    def kill(self, who: int) -> None:
        """Kill one process; the others go on with the file."""
        if who in self._clients:
            self._left_behind.append(self._clients.pop(who))

    def end(self, who: int) -> None:
        """End one process properly."""
        if who in self._clients:
            self._clients.pop(who).close()

    def image_during(self, who: int, statement: int, act: Callable[[], object]) -> Image | None:
        """Act, and take an image just before the ``statement``-th that the process ``who`` writes meanwhile."""
        images: dict[int, Image] = {}
        numbers = count()

        def traced(_statement: str) -> None:
            if next(numbers) == statement:
                images[statement] = self.image()

        con = writing_connection(self.client(who))
        con.set_trace_callback(traced)
        try:
            act()
        finally:
            con.set_trace_callback(None)
        return images.get(statement)

    def close(self) -> None:
        """Close whatever is still open, of all lives."""
        for each in (*self._left_behind, self.reader, *self._clients.values()):
            each.close()


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
