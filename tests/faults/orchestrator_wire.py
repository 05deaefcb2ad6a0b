"""A transport that ends in an orchestrator in memory: what is sent is judged and kept as over a socket, at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, evolve, field

from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.testing.faultplan import Fault, Rule
from orchclient.testing.orchestrator import EVENTS_PATH, InMemoryOrchestrator, Terms

URL = "http://127.0.0.1:9"
"""Where clients think that it is. Nobody listens there."""

REFUSAL: Sequence[Rule] = Fault.reject(lambda event: int(event["id"][-4:], 16) % 13 == 0).rules
"""Every thirteenth event, whenever it is sent."""

Told = Callable[[Sequence[dict[str, Any]], dict[str, str]], None]


@define
class OrchestratorWire:
    """The transport. ``told`` sees the events of a request and what was answered for each, before the client does."""

    orchestrator: InMemoryOrchestrator = field(factory=lambda: InMemoryOrchestrator(Terms()))
    rules: Callable[[], Sequence[Rule]] = tuple
    told: Told = lambda events, answers: None
    loses_answer: Callable[[], bool] = lambda: False

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        path = request.url.removeprefix(URL)
        request = evolve(request, url=path, headers={name.lower(): value for name, value in request.headers.items()})
        if path != EVENTS_PATH:
            return self.orchestrator.answer(request, lambda until, timeout_s: None)
        batch = self.orchestrator.batch(request)
        reply = self.orchestrator.ingest(batch, self.rules())
        self.told(batch.events, {each["id"]: each["status"] for each in json.loads(reply.body)["results"]})
        return NoReply("broken", "the answer was lost") if self.loses_answer() else reply

    def close(self) -> None:
        pass
