"""Events as an outbox sends them, made by the code that makes them there."""

from __future__ import annotations

import json
import secrets
from itertools import count
from typing import Any

from orchclient.core.envelope import body_text, event_text, lane_of, opening
from orchclient.core.ids import uuid7
from orchclient.core.jsontext import members_text
from orchclient.core.questions import content_digest
from orchclient.core.timestamps import rfc3339
from orchclient.server.reading import BATCH_TYPE, Arrival, Limits, Spoiled, read_batch

BEGIN_US = 1_794_000_000_000_000
Event = dict[str, Any]


def new_source() -> str:
    return uuid7(0, secrets.token_bytes(10)).replace("-7", "-4", 1)


class Outbox:
    """Mints events under one source, with rising sequences unless told otherwise."""

    def __init__(self, uuid: str | None = None, agent: str = "backend-7") -> None:
        self.uuid = uuid or new_source()
        self.source = f"urn:uuid:{self.uuid}"
        self.agent = agent
        self._sequences = count(1)

    def event(
        self, kind: str, task: str = "task-1", *, sequence: int | None = None, id_: str | None = None, **data: Any
    ) -> Event:
        sequence = next(self._sequences) if sequence is None else sequence
        us = BEGIN_US + sequence * 1_000
        event_id = id_ or new_event_id(us)
        data = {name: (event_id if value is SELF else value) for name, value in data.items()}
        lane = lane_of(task, self.agent)
        priority = data.get("priority", "medium" if kind == "task.completed.v1" else "low")
        body = body_text(event_id, kind, lane, priority, us, members_text(data))
        found: Event = json.loads(event_text(opening(self.uuid), sequence, body))
        if kind in ("agent.heartbeat.v1", "gap.v1"):
            found["data"].pop("task_id")
        return found

    def status(self, task: str = "task-1", status: str = "in_progress", **more: Any) -> Event:
        return self.event("task.status.v1", task, status=status, **more)

    def question(self, task: str = "task-1", text: str = "Which one?", **more: Any) -> Event:
        sequence, id_ = more.pop("sequence", None), more.pop("id_", None)
        shown = {"questions": more.pop("questions", [{"id": "q1", "text": text}]), "context": more.pop("context", {})}
        shown |= {name: more.pop(name) for name in ("deadline", "default") if name in more}
        rest = {"priority": "high", "content_digest": content_digest(shown)}
        state = {"status": "clarification_needed", "current_step": "Waiting for clarification"}
        members = {"clarification_id": SELF, **shown, **rest, **state, **more}
        return self.event("clarification.requested.v1", task, sequence=sequence, id_=id_, **members)

    def completion(self, task: str = "task-1", *, review: bool = False, **more: Any) -> Event:
        fixed = {"progress_percentage": 100, "current_step": "Completed - awaiting review", "pr_url": None}
        given = {"test_results": {}, "artifacts": {}, "quality_score": 50.0, "review": review}
        given["status"] = "review_ready" if review else "completed"
        review_id = {"review_id": SELF} if review else {}
        return self.event("task.completed.v1", task, **{**fixed, **given, **review_id, **more})

    def error(self, task: str = "task-1", *, fatal: bool = True, **more: Any) -> Event:
        said = {"error_type": "boom", "error_message": "it broke", "recovery_attempts": 0, "context": {}}
        status = {"status": "failed"} if fatal else {}
        return self.event("error.escalated.v1", task, **{**said, "fatal": fatal, "priority": "low", **status, **more})

    def gap(self, first: int, last: int, **more: Any) -> Event:
        data = {"from": first, "to": last, "reason": "folded", "count": last - first + 1}
        return self.event("gap.v1", self.agent, **data, **more)

    def heartbeat(self, pending: int = 0, dead: int = 0) -> Event:
        outbox = {"pending": pending, "dead": dead, "oldest_age_s": 0.5}
        return self.event("agent.heartbeat.v1", self.agent, agent_id=self.agent, outbox=outbox)


SELF = "SELF"


def new_event_id(us: int = BEGIN_US) -> str:
    return uuid7(us // 1000, secrets.token_bytes(10))


def at(seconds: float) -> str:
    """An instant after the beginning, as it stands in an event."""
    return rfc3339(BEGIN_US + int(seconds * 1_000_000))


def body_of(events: list[Event]) -> bytes:
    return json.dumps(events, separators=(",", ":")).encode()


def batch_of(events: list[Event]) -> list[Arrival | Spoiled]:
    return read_batch(body_of(events), BATCH_TYPE, "", Limits())
