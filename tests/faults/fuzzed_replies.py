"""Answers that no orchestrator would give, into the real path: socket, transport, dialect, decision, settlement.

``Fuzzed.meet`` sends one request of a real worker and has it answered by the given bytes; ``Met.broken_laws`` judges.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

from attrs import define, field, frozen

from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.ids import uuid7
from orchclient.core.jsontext import members_text
from orchclient.core.policy import RETRY_AFTER_CAP_S, TEXT_CAP
from orchclient.delivery.transport import HttpTransport
from orchclient.delivery.worker import Worker
from orchclient.outbox import attempts, bulk, cursors, desk, journal, leadership
from orchclient.outbox.cursors import SinkRow, SinkState
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from orchclient.sinks.orchestrator import OrchestratorSink
from tests.delivery.doubles import StillClock

SINK = "orchestrator"
EVENTS = 3
DEADLINE_S = 5.0
LONGEST = 2 * TEXT_CAP + 100
ID_MARK = b"<id-%d>"
"""Stands in an answer for the id of the n-th event that was sent: ids are not known when the answer is made up."""


class OneAnswer:
    """A server on loopback that answers each request with ``answer`` and ends the connection."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, suppress(OSError):
                peer.settimeout(DEADLINE_S)
                self._converse(peer)

    def _converse(self, peer: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += peer.recv(65536) or _gone()
        head, _, body = request.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        while len(body) < int(length or 0):
            body += peer.recv(65536) or _gone()
        ids = [event["id"].encode() for event in json.loads(body or b"[]")]
        answer = self.answer
        for n, id_ in enumerate(ids):
            answer = answer.replace(ID_MARK % n, id_)
        peer.sendall(answer)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):  # else closing would reset the connection, and the answer with it
            pass


def _gone() -> bytes:
    raise ConnectionAbortedError


@define
class Recording:
    """A transport that keeps what came back last."""

    inner: HttpTransport
    outcome: HttpOutcome = field(factory=lambda: NoReply("none"))

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        self.outcome = self.inner.send(request, deadline_s=deadline_s)
        return self.outcome

    def close(self) -> None:
        self.inner.close()


@frozen
class Met:
    """What one answer did: the outbox before and after, and what was said of it."""

    outcome: HttpOutcome
    sent: frozenset[str]
    before: SinkRow
    after: SinkRow
    pending: int
    recorded: int
    said: tuple[str, ...]
    waits_s: float | None

    def broken_laws(self) -> list[str]:
        """The names of the laws that it broke."""
        after, taken = self.after, self._delivered(self.after) - self._delivered(self.before)
        laws = {
            "conservation": self.recorded == self._delivered(after) + self.pending + after.dead + after.expired,
            "only what was named counts": 0 <= taken <= self._named(),
            "bounded wait": self.waits_s is None or 0 <= self.waits_s <= RETRY_AFTER_CAP_S + 60,
            "no raw text": all(is_harmless(text) for text in self.said),
        }
        return [name for name, holds in laws.items() if not holds]

    @staticmethod
    def _delivered(row: SinkRow) -> int:
        return row.cursor - row.start_seq - row.parked - row.dead - row.expired

    def _named(self) -> int:
        """How many events the answer may settle as delivered, read by other means than the product's."""
        if not isinstance(self.outcome, HttpReply) or self.outcome.status // 100 != 2:
            return 0
        try:
            document = json.loads(self.outcome.body)
        except (ValueError, RecursionError):
            return len(self.sent) if not self.outcome.body.strip().startswith((b"<", b"[", b"{")) else 0
        if not isinstance(document, dict) or document.get("results") is None:
            return len(self.sent) if isinstance(document, dict) or not self.outcome.body.strip() else self._plain()
        results = document["results"] if isinstance(document["results"], list) else []
        said = [each for each in results if isinstance(each, dict) and each.get("status") in GOOD]
        return len({each["id"] for each in said if isinstance(each.get("id"), str)} & self.sent)

    def _plain(self) -> int:
        assert isinstance(self.outcome, HttpReply)
        return len(self.sent) if self.outcome.headers.get("content-type", "").startswith("text/plain") else 0


GOOD = ("accepted", "duplicate")


def is_harmless(text: str) -> bool:
    """Whether a terminal, a log and a table can show it."""
    return text.isascii() and text.isprintable() and len(text) <= LONGEST


class _Said(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Fuzzed:
    """A worker on a real outbox, that sends over a real socket to a server that answers anything."""

    def __init__(self, path: Path, make_sink: Callable[[str], OrchestratorSink]) -> None:
        self.server = OneAnswer()
        self.clock = StillClock()
        self.outbox = Outbox(Origin(path, lambda: str(uuid.uuid4()), self.clock.now_us))
        self.transport = Recording(HttpTransport())
        self.seen = 0  # answers that broke no law
        self._make_sink = make_sink
        self.outbox.write(lambda con: cursors.add_sink(con, SINK, SINK, "x", 0, from_beginning=True))
        self._handler, self._log = _Said(), logging.getLogger("orchclient")
        self._log.addHandler(self._handler)

    def close(self) -> None:
        self._log.removeHandler(self._handler)
        self.transport.close()
        self.outbox.close()
        self.server.close()

    def meet(self, answer: bytes, *, greeting: bool = False) -> Met:
        """One turn of a fresh worker, whose request gets this answer; ``greeting``: the question before it does."""
        self._stock_up()
        self.server.answer = answer
        self._handler.lines.clear()
        sink = self._make_sink(self.server.url)
        holder = Holder(1, "host", "agent", 0)
        epoch = self.outbox.write(lambda con: leadership.begin_epoch(con, SINK, holder))
        worker = Worker(self.outbox, sink, self.transport, self.clock, epoch, DEADLINE_S)
        worker._greeted = not greeting
        sent, before = self._next_ids(worker), self._row()
        waits_s = worker.turn()
        self.clock.pass_s(4000)  # lanes come back
        return self._seen(sent, before, waits_s)

    def _seen(self, sent: frozenset[str], before: SinkRow, waits_s: float | None) -> Met:
        after = self._row()
        recorded = self.outbox.query(journal.last_seq)
        letters = self.outbox.query(lambda con: [letter.reason for letter in desk.dead_letters(con)][-EVENTS:])
        tried = self.outbox.query(lambda con: [each.reason for each in attempts.newest(con, 2)])
        said = (*self._handler.lines, *letters, *tried, after.reason, after.last_error)
        return Met(self.transport.outcome, sent, before, after, after.pending(recorded), recorded, said, waits_s)

    def _next_ids(self, worker: Worker) -> frozenset[str]:
        return frozenset(bulk.ids_in(worker._select().to_send))

    def _row(self) -> SinkRow:
        row = self.outbox.query(lambda con: cursors.sink(con, SINK))
        assert row is not None
        return row

    def _stock_up(self) -> None:
        """So that there is something to send; what earlier answers parked is given up, or it would pile up."""
        self.outbox.write(lambda con: cursors.note(con, SINK, self._row().epoch, state=SinkState.DELIVERING))
        while self._row().pending(self.outbox.query(journal.last_seq)) < EVENTS:
            us = self.clock.now_us()
            id_ = uuid7(us // 1000, self.clock.randomness())
            members = members_text({"status": "testing", "progress_percentage": 1})
            task = f"task-{id_[-4:]}"
            body = body_text(id_, "task.status.v1", lane_of(task, "agent"), "low", us, members)
            self.outbox.record(
                Event(id_, task, "agent", "task.status.v1", "low", us, crc32(body.encode()), body), None, False
            )


@contextmanager
def fuzzed(make_sink: Callable[[str], OrchestratorSink] | None = None) -> Iterator[Fuzzed]:
    """A place to meet answers in, with a file of its own."""
    with TemporaryDirectory() as folder:
        made = Fuzzed(Path(folder) / "o" / "outbox.db", make_sink or (lambda url: OrchestratorSink(url, lambda: None)))
        try:
            yield made
        finally:
            made.close()
