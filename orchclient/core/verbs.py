"""What each verb says: its arguments checked and put into the members of an event's data. Pure.

The members are the wire contract's (docs/wire.md); the side effects on the task are the product's: asking makes it
clarification_needed, completing completes it at 100 %, a fatal error fails it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from orchclient.core import limits
from orchclient.core.errors import InvalidEvent
from orchclient.core.escalation import escalation_priority
from orchclient.core.events import (
    STEP_COMPLETED,
    STEP_STARTED,
    STEP_WAITING,
    EventType,
    NotificationPriority,
    TaskStatus,
)
from orchclient.core.ids import checked_id
from orchclient.core.jsontext import json_text, members_text, object_text, quote, storable
from orchclient.core.limits import shortened
from orchclient.core.quality import quality_score
from orchclient.core.questions import checked_questions, content_digest
from orchclient.core.timestamps import microseconds, rfc3339

Data = dict[str, Any]


class Draft(NamedTuple):
    """An event before it has an id and a time. ``status`` is the task's state after it, None for no change.

    ``members`` is the JSON text of the data's members behind ``task_id``, as ``core.jsontext.members_text`` makes it.
    ``said`` is the part of it that is in the agent's own words, and so may hold a secret; None where it may be all.
    """

    type: str
    task_id: str
    members: str
    priority: str = "low"
    status: str | None = None
    synced: bool = True  # durable against power loss when the call returns, whatever it says
    said: str | None = None

    @property
    def data(self) -> Data:
        """The members as values."""
        data: Data = json.loads(f"{{{self.members[1:]}}}")
        return data


_new = tuple.__new__
_STATUSES = {status.value: status.value for status in TaskStatus}
_PRIORITIES = {priority.value: priority.value for priority in NotificationPriority}


def status_update(
    task_id: str,
    status: TaskStatus | str,
    metadata: Mapping[str, Any] | None,
    progress_percentage: float | None,
    current_step: str | None,
    attempt: int | None = None,
) -> Draft:
    """A task's state; only the members that were given are said, so that the others stay as they were."""
    # By hand, since this is the call that agents make most: half the time of encoding a dict. What is mostly given is
    # looked at in place, since the call of a function takes as long as the look.
    state = _STATUSES.get(status) if type(status) is str else None
    if state is None:
        state = _word("status", status, _STATUSES)
    text, said = f',"status":"{state}"', ""
    if progress_percentage is not None:
        is_plain = type(progress_percentage) is int and 0 <= progress_percentage <= 100
        text += f',"progress_percentage":{progress_percentage if is_plain else _progress(progress_percentage)}'
    if current_step is not None:
        if type(current_step) is not str or len(current_step) > limits.STEP_CHARS:
            _text("current_step", current_step, limits.STEP_CHARS)
        said = quote(current_step)
        text += f',"current_step":{said}'
    if metadata is not None:
        told = object_text("metadata", _object("metadata", metadata))
        text += f',"metadata":{told}'
        said += told
    if attempt is not None:
        text += f',"attempt":{_attempt(attempt)}'
    if not text.isascii():
        text = storable(text)
    return _new(Draft, (EventType.TASK_STATUS, task_id, text, "low", state, False, said))


def start(task_id: str, attempt: int) -> Draft:
    """Work begins. Only the first attempt begins at 0 %: a later one goes on where the task stood."""
    if attempt <= 1:
        return status_update(task_id, TaskStatus.IN_PROGRESS, None, 0, STEP_STARTED, 1)
    return status_update(task_id, TaskStatus.IN_PROGRESS, None, None, f"{STEP_STARTED} again", attempt)


def clarification_request(
    clean: Callable[[Data], Data],
    event_id: str,
    task_id: str,
    questions: object,
    priority: NotificationPriority | str,
    context: Mapping[str, Any] | None,
    options: Sequence[Any] | None,
    recommended: str | Sequence[str | None] | None,
    default: Any,
    deadline: datetime | None,
    key: str | None,
) -> Draft:
    """Questions to a person. The digest covers what the person is shown, so that an answer can be held against it.

    ``clean`` takes secrets out first: the digest is of what is stored and sent.
    """
    shown: Data = {
        "questions": checked_questions(questions, options, recommended),
        "context": _object("context", context or {}),
    }
    if default is not None:
        shown["default"] = _default(default)
    if deadline is not None:
        shown["deadline"] = rfc3339(microseconds(_aware("deadline", deadline)))
    urgency = _word("priority", priority, _PRIORITIES)
    shown = clean(json.loads(json_text(shown)))
    data = {
        "clarification_id": event_id,
        **shown,
        "priority": urgency,
        "status": TaskStatus.CLARIFICATION_NEEDED.value,
        "current_step": STEP_WAITING,
        "content_digest": content_digest(shown),
    }
    if key is not None:
        data["key"] = checked_id("key", key)
    return Draft(
        EventType.CLARIFICATION_REQUESTED, task_id, members_text(data), urgency, TaskStatus.CLARIFICATION_NEEDED.value
    )


def clarification_withdrawal(task_id: str, clarification_id: str, reason: str) -> Draft:
    """The question is not asked any more."""
    data = {"clarification_id": clarification_id, "reason": _text("reason", reason, limits.REASON_CHARS)}
    return Draft(EventType.CLARIFICATION_WITHDRAWN, task_id, members_text(data))


def clarification_consumption(task_id: str, clarification_id: str, answer_id: str, answer: Mapping[str, Any]) -> Draft:
    """The agent has the answer. One that was given on the host goes with it: nobody else knows it."""
    data: Data = {"clarification_id": clarification_id, "answer_id": answer_id}
    if answer.get("channel") == CLI_CHANNEL:
        data["answer"] = dict(answer)
    return Draft(EventType.CLARIFICATION_CONSUMED, task_id, members_text(data))


CLI_CHANNEL = "cli"
"""The channel of what ``orchclient answer`` was told."""


def completion_report(
    event_id: str,
    task_id: str,
    pr_url: str | None,
    test_results: Mapping[str, Any],
    artifacts: Mapping[str, Any] | None,
    review: bool,
) -> Draft:
    """The result, with its quality score."""
    results = _object("test_results", test_results)
    status = TaskStatus.REVIEW_READY if review else TaskStatus.COMPLETED
    data: Data = {
        "status": status.value,
        "progress_percentage": 100,
        "current_step": STEP_COMPLETED,
        "pr_url": None if pr_url is None else _text("pr_url", pr_url, limits.PR_URL_CHARS),
        "test_results": results,
        "artifacts": _object("artifacts", artifacts or {}),
        "quality_score": quality_score(results),
        "review": bool(review),
    }
    if review:
        data["review_id"] = event_id
    return Draft(
        EventType.TASK_COMPLETED,
        task_id,
        members_text(data),
        NotificationPriority.MEDIUM.value,
        status.value,
    )


def error_escalation(
    clean_text: Callable[[str], str],
    task_id: str,
    error_type: str,
    error_message: str,
    recovery_attempts: int,
    context: Mapping[str, Any] | None,
    fatal: bool,
    dedup_key: str | None,
    traceback: str | None = None,
    recovery_history: Iterable[Mapping[str, Any]] = (),
) -> Draft:
    """A call for help, with the priority of the matrix.

    ``clean_text`` takes secrets out of what must be cut: half a secret would not be recognised later.
    """
    attempts = _count("recovery_attempts", recovery_attempts)
    kind = checked_id("error_type", error_type)
    message = _cut("error_message", error_message, limits.ERROR_MESSAGE_CHARS, clean_text)
    priority = str(escalation_priority(kind, attempts))
    # By hand like a status update: every call waits for the disk, and what runs after such a wait runs cold.
    text = (
        f',"error_type":{quote(kind)},"error_message":{quote(message)},"recovery_attempts":{attempts}'
        f',"context":{_json_object("context", context)},"fatal":{"true" if fatal else "false"},"priority":"{priority}"'
    )
    if dedup_key is not None:
        text += f',"dedup_key":{quote(checked_id("dedup_key", dedup_key))}'
    if traceback is not None:
        text += f',"traceback":{quote(_cut("traceback", traceback, limits.TRACEBACK_KEPT, clean_text))}'
    if history := _history(recovery_history):
        text += members_text({"recovery_history": history})
    if not fatal:
        return Draft(EventType.ERROR_ESCALATED, task_id, storable(text), priority)
    text += ',"status":"failed"'
    return Draft(EventType.ERROR_ESCALATED, task_id, storable(text), priority, TaskStatus.FAILED.value)


def _json_object(argument: str, value: object) -> str:
    return json_text({argument: _object(argument, value)})[len(argument) + 4 : -1] if value else "{}"


def _word(argument: str, value: object, words: Mapping[str, str]) -> str:
    """The plain text of a state or priority, given as text or as a member."""
    found = words.get(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidEvent(argument, f"is {value!r:.60}; it must be one of {', '.join(words)}")
    return found


def _progress(value: object) -> float:
    """Progress between 0 and 100; agents that count beyond are clamped, not refused."""
    if type(value) is int:
        return 0 if value < 0 else 100 if value > 100 else value
    if isinstance(value, int) and not isinstance(value, bool):
        return _progress(int(value))  # a member of an enum, whose text is its name
    if not isinstance(value, float) or not math.isfinite(value):
        raise InvalidEvent("progress_percentage", f"must be a finite number, not {_shown(value)}")
    return min(max(float(value), 0.0), 100.0)


def _attempt(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidEvent("attempt", f"must be a whole number from 1 on, not {_shown(value)}")
    return int(value)


def _text(argument: str, value: object, most: int | None = None) -> str:
    if not isinstance(value, str):
        raise InvalidEvent(argument, f"must be text, not {type(value).__name__}")
    if most is not None and len(value) > most:
        raise InvalidEvent(argument, f"has {len(value):,} characters, {most:,} at most")
    return value


def checked_text(argument: str, value: object, most: int) -> str:
    """A text of at most so many characters."""
    return _text(argument, value, most)


def _cut(argument: str, value: object, most: int, clean_text: Callable[[str], str]) -> str:
    text = _text(argument, value)
    return shortened(clean_text(text), most) if len(text) > most else text


def _default(value: object) -> object:
    if isinstance(value, Mapping):
        return _object("default", value)
    return _text("default", value, limits.DEFAULT_CHARS)


def _history(entries: Iterable[Mapping[str, Any]]) -> list[Data]:
    history = [_object("recovery_history", entry) for entry in entries]
    if len(history) > limits.RECOVERY_HISTORY:
        raise InvalidEvent("recovery_history", f"has {len(history):,} entries, {limits.RECOVERY_HISTORY:,} at most")
    return history


def _shown(value: object) -> str:
    """What was given, for an error; a text may be a secret in the wrong place."""
    return f"{value!r:.60}" if isinstance(value, int | float) else type(value).__name__


def _count(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limits.SMALL_COUNT:
        raise InvalidEvent(argument, f"must be a whole number from 0 to {limits.SMALL_COUNT}, not {_shown(value)}")
    return value


def _object(argument: str, value: object) -> Data:
    if type(value) is not dict and not isinstance(value, Mapping):  # asking the type first: an ABC is slow to ask
        raise InvalidEvent(argument, f"must be a mapping with text keys, not {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise InvalidEvent(argument, f"has a key of type {type(name).__name__}: keys are text")
    return value if type(value) is dict else dict(value)


def _aware(argument: str, value: object) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidEvent(argument, f"must be a datetime or a timedelta, not {type(value).__name__}")
    if value.tzinfo is None:
        raise InvalidEvent(argument, "has no time zone: pass an aware datetime, such as datetime.now(UTC) + ...")
    return value
