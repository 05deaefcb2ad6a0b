"""What is told to a program, and to a model: receipts, answers and wishes as JSON values."""

from __future__ import annotations

from typing import Any

from orchclient.core.answers import Answer
from orchclient.core.events import Receipt
from orchclient.core.timestamps import rfc3339
from orchclient.people import Message


def receipt_document(receipt: Receipt, task: str, **more: Any) -> dict[str, Any]:
    """A receipt, with ``more`` that its verb tells. ``recorded`` is false with ``ORCHCLIENT_MODE=disabled`` only."""
    return {
        "id": receipt.event_id,
        "seq": receipt.seq,
        "recorded": receipt.seq > 0,
        "recorded_at": rfc3339(receipt.recorded_us),
        "task": task,
        **more,
    }


def wish_document(wish: Message | None) -> dict[str, Any] | None:
    """Somebody's request to stop a task."""
    if wish is None:
        return None
    return {"reason": wish.text, "by": wish.sender.id or wish.sender.kind, "at": wish.sent_at.isoformat()}


def answer_document(answer: Answer) -> dict[str, Any]:
    """A decision: data with a named responder."""
    responder = answer.responder
    return {
        "outcome": answer.outcome,
        "answers": {name: {"text": each.text, "options": list(each.options)} for name, each in answer.answers.items()},
        "comment": answer.comment,
        "responder": {"kind": responder.kind, "id": responder.id, "display": responder.display},
        "channel": answer.channel,
        "answered_at": answer.answered_at and answer.answered_at.isoformat(),
        "is_default": answer.is_default,
    }
