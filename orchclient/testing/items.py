"""Inbox items as values: what a person, a rule or the clock says about an event of the agent, on the wire.

Pure but for the id and the time that a new item gets. The members are those of docs/wire.md, "Answers and reviews".
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from orchclient.core.ids import uuid7
from orchclient.core.timestamps import rfc3339

Event = dict[str, Any]

PREFIX = "dev.orchclient."
QUESTION = "dev.orchclient.clarification.requested.v1"
WITHDRAWAL = "dev.orchclient.clarification.withdrawn.v1"
COMPLETION = "dev.orchclient.task.completed.v1"
ORCHESTRATOR = "https://orchestrator.test/"
WRONG_DIGEST = "sha256:" + "0" * 64
TIMEOUT = {"kind": "timeout"}

Said = str | Mapping[str, str | list[str]]
"""An answer in short: a text, or by question id a text or the chosen options."""


def human(name: str) -> dict[str, str]:
    """A person as a responder."""
    return {"kind": "human", "id": name, "display": name}


def new_id() -> str:
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def item_of(type_: str, task_id: str, data: Mapping[str, Any]) -> Event:
    """An item for the inbox of the agent that has the task; members without a value are left out of ``data``."""
    return {
        "specversion": "1.0",
        "id": new_id(),
        "source": ORCHESTRATOR,
        "type": PREFIX + type_,
        "subject": task_id,
        "time": now(),
        "dataschema": f"https://orchclient.dev/schemas/{type_}.json",
        "data": {"task_id": task_id} | {name: value for name, value in data.items() if value is not None},
    }


def now() -> str:
    return rfc3339(time.time_ns() // 1000)


def is_open_to_review(event: Event) -> bool:
    return event["type"] == COMPLETION and event["data"].get("review") is True


def answers_to(question: Event, said: Said | None) -> list[dict[str, Any]] | None:
    """``said`` as the wire has it; a text that is one of the question's options is that option.

    Raises ``ValueError`` for a text alone when several questions were asked.
    """
    if said is None:
        return None
    forms = {form["id"]: form for form in question["data"]["questions"]}
    if isinstance(said, str):
        if len(forms) > 1:
            raise ValueError(f"the request has the questions {', '.join(forms)}: give answers by question id")
        said = {next(iter(forms)): said}
    return [_entry(name, value, forms.get(name, {}).get("options") or ()) for name, value in said.items()]


def _entry(question_id: str, value: str | list[str], options: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        return {"question_id": question_id, "options": list(value)}
    member = {"options": [value]} if value in options else {"text": value}
    return {"question_id": question_id, **member}
