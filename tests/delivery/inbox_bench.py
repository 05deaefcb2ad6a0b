"""An inbox worker on a real outbox, over a wire that ends in an orchestrator in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from attrs import evolve

from orchclient import OrchestratorClient
from orchclient.core.http import HttpOutcome, HttpRequest, NoReply
from orchclient.core.ids import uuid7
from orchclient.core.judging import RequestKind
from orchclient.delivery.inbox_wire import OverHttp
from orchclient.delivery.inbox_worker import InboxWorker
from orchclient.outbox import cursors, identity, inbox, leadership, requests
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.requests import Request
from orchclient.outbox.store import Origin
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing.items import human, item_of, now
from orchclient.testing.orchestrator import ACK_PATH, INBOX_PATH, InMemoryOrchestrator, Terms
from tests.delivery.doubles import StillClock

SINK = "orchestrator"
DIGEST = "sha256:" + "1" * 64
URL = "http://127.0.0.1:9"
LOST = NoReply("broken", "the answer was lost")


class InboxWire:
    """The transport. ``answers`` come first, for whatever is asked; ``loses`` tells whose answers get lost."""

    def __init__(self, orchestrator: InMemoryOrchestrator) -> None:
        self.orchestrator = orchestrator
        self.requests: list[HttpRequest] = []
        self.answers: list[HttpOutcome | Callable[[HttpRequest], HttpOutcome]] = []
        self.loses: Callable[[HttpRequest], bool] = lambda request: False
        self.deadlines: list[float] = []

    @property
    def polls(self) -> list[dict[str, str]]:
        """The queries of the polls, in order."""
        parts = [urlsplit(request.url) for request in self.requests]
        return [{k: v[0] for k, v in parse_qs(each.query).items()} for each in parts if each.path == INBOX_PATH]

    @property
    def acknowledgements(self) -> list[bytes]:
        return [request.body for request in self.requests if request.url.endswith(ACK_PATH)]

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpOutcome:
        self.requests.append(request)
        self.deadlines.append(deadline_s)
        if self.answers and INBOX_PATH in request.url:
            answer = self.answers.pop(0)
            return answer(request) if callable(answer) else answer
        reply = self.judged(request)
        return LOST if self.loses(request) else reply

    def judged(self, request: HttpRequest) -> HttpOutcome:
        """What the orchestrator says."""
        told = evolve(
            request,
            url=request.url.removeprefix(URL),
            headers={name.lower(): value for name, value in request.headers.items()},
        )
        return self.orchestrator.answer(told, lambda until, timeout_s: None)

    def close(self) -> None:
        pass


class InboxBench:
    """Clock, wire and orchestrator of the test's; the outbox is real."""

    def __init__(self, path: Path, *, page_items: int = 50, capabilities: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.clock = StillClock()
        self.outbox = Outbox(Origin(path, lambda: str(uuid.uuid4()), self.clock.now_us))
        self.orchestrator = InMemoryOrchestrator(Terms(inbox_page=page_items, capabilities=capabilities))
        self.wire = InboxWire(self.orchestrator)
        self.sink = OrchestratorSink(URL, lambda: None)
        self.outbox.write(lambda con: cursors.add_sink(con, SINK, "orchestrator", "x", 0, from_beginning=True))
        self.worker = self.elected()

    def elected(self) -> InboxWorker:
        """What another process makes that takes over."""
        epoch = self.outbox.write(lambda con: leadership.begin_epoch(con, SINK, Holder(1, "host", "agent", 0)))
        dialect = OrchestratorSink(URL, lambda: None).inbox
        return InboxWorker(self.outbox, SINK, OverHttp(dialect, self.wire, self.clock), self.clock, epoch)

    @property
    def source(self) -> str:
        return self.outbox.query(identity.identities).newest

    def put(self, *texts: str) -> list[str]:
        """Messages in the inbox; their ids."""
        items = [
            item_of("task.message.v1", "t", {"text": text, "sent_by": human("u-1"), "sent_at": now()}) for text in texts
        ]
        for item in items:
            self.put_item(item)
        return [item["id"] for item in items]

    def put_item(self, item: Any) -> None:
        self.orchestrator.inbox.put(item, f"urn:uuid:{self.source}")

    def turns(self, limit: int = 20) -> float:
        """Turn until there is something to wait for; the seconds."""
        for _ in range(limit):
            wait_s = self.worker.turn()
            if wait_s > 0:
                return wait_s
        return 0.0

    def cursor(self) -> tuple[str, str]:
        return self.outbox.query(lambda con: inbox.cursor(con, SINK, self.source))


def open_question(
    asks: InboxBench | OrchestratorClient, source: str = "", *, digest: str = DIGEST, deadline_us: int | None = None
) -> str:
    """Something that a person must answer; its id."""
    if isinstance(asks, OrchestratorClient):
        return asks.request_clarification("task-1", "Ship it?").id
    us = asks.clock.now_us()
    asked = Request(
        uuid7(us // 1000, asks.clock.randomness()),
        RequestKind.QUESTION,
        1,
        source or asks.source,
        "t",
        "agent",
        None,
        digest,
        "medium",
        us,
        deadline_us,
    )
    asks.outbox.write(lambda con: requests.add(con, asked))
    return asked.id


def outbox_of(asks: InboxBench | OrchestratorClient) -> Outbox:
    """The outbox behind it."""
    return asks.outbox if isinstance(asks, InboxBench) else cast(Outbox, asks._station._outbox)  # type: ignore[union-attr]


def kept(asks: InboxBench | OrchestratorClient) -> list[inbox.Received]:
    """The items that are kept, in their order."""
    return outbox_of(asks).query(inbox.received)


def stored_ids(asks: InboxBench | OrchestratorClient) -> list[str]:
    """Their ids."""
    return [item.id for item in kept(asks)]
