"""``orchclient doctor --send-test``: one harmless message to each destination of people, and what it answered."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator

from orchclient import config
from orchclient.cli.finding import Finding
from orchclient.core.batch import Batch
from orchclient.core.http import HttpOutcome, HttpRequest
from orchclient.core.ids import uuid7
from orchclient.core.message import trial
from orchclient.core.policy import Action, Verdict
from orchclient.core.timestamps import rfc3339
from orchclient.sinks.sink import AnySink, is_chat, speaks_http
from orchclient.station import http_transport

CURES = {
    Action.PAUSE: "Mend what it says; what is recorded meanwhile waits.",
    Action.DISABLE: "Configure it anew; what is recorded meanwhile waits.",
    Action.BACK_OFF: "Check the URL and the network, or wait.",
}


def sent(settings: config.Settings, sinks: Iterable[AnySink]) -> Iterator[Finding]:
    """A finding for each destination that could be asked; nothing is recorded, and nothing settled."""
    for sink in sinks:
        if is_chat(sink):
            outcome = _outcome(settings, sink.post(trial()))
            yield _finding(sink.name, sink.told(outcome, _now_us()).verdict, outcome)
        elif speaks_http(sink) and sink.kind == "webhook":
            batch = _trial_batch()
            outcome = _outcome(settings, sink.render(batch))
            yield _finding(sink.name, sink.decide(batch, outcome, _now_us()), outcome)
        else:
            yield Finding("ok", f"{sink.name}: no test message, it is a destination of events")


def _outcome(settings: config.Settings, request: HttpRequest) -> HttpOutcome:
    transport = http_transport(settings)
    try:
        return transport.send(request, deadline_s=settings.request_timeout)
    finally:
        transport.close()


def _finding(name: str, verdict: Verdict, outcome: HttpOutcome) -> Finding:
    if verdict.action is Action.SETTLE:
        return Finding("ok", f"{name} took a test message ({outcome.took_ms:.0f} ms)")
    cure = CURES.get(verdict.action, "Look at what it says.")
    return Finding("problem", f"{name} did not take a test message: {verdict.reason}", cure)


def _trial_batch() -> Batch:
    now_us = _now_us()
    id_ = uuid7(now_us // 1000, uuid.uuid4().bytes[:10])
    event = {
        "specversion": "1.0",
        "id": id_,
        "source": f"urn:uuid:{uuid.UUID(int=0)}",
        "type": "dev.orchclient.test.v1",
        "subject": "test",
        "agentid": "orchclient doctor",
        "time": rfc3339(now_us),
        "data": {"message": trial().title},
    }
    return Batch.of_texts([id_], [json.dumps(event)])


def _now_us() -> int:
    return time.time_ns() // 1000
