"""What a person, a rule or the clock decided, as values for the agent. Data with a named sender; nothing acts on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen


@frozen
class Responder:
    """Who decided: ``human`` (then ``id`` is there), ``policy`` (a rule of the orchestrator) or ``timeout``."""

    kind: str
    id: str | None = None
    display: str | None = None


@frozen
class QuestionAnswer:
    """The answer to one question: words, chosen options, or both."""

    question_id: str
    text: str | None = None
    options: tuple[str, ...] = ()


@frozen
class Answer:
    """A decision on a request.

    ``outcome``: answered, approved, changes_requested, rejected, declined (nobody wants to decide) or expired (nobody
    decided in time: never a person's no). ``answers`` by question id. ``is_default``: nobody answered, and this is what
    the agent itself gave as default. ``is_late``: it came when the request was settled already, and changes nothing.
    """

    outcome: str
    responder: Responder
    answers: Mapping[str, QuestionAnswer] = field(factory=dict)
    comment: str | None = None
    answer_id: str | None = None
    channel: str | None = None
    answered_at: datetime | None = None
    is_late: bool = False
    is_default: bool = False

    @property
    def text(self) -> str | None:
        """The words of the only answer, or its only option; None when there are several answers, or none."""
        if len(self.answers) != 1:
            return None
        (only,) = self.answers.values()
        return only.text if only.text is not None else self.choice

    @property
    def choice(self) -> str | None:
        """The option chosen, when one question was answered with one option."""
        if len(self.answers) != 1:
            return None
        (only,) = self.answers.values()
        return only.options[0] if len(only.options) == 1 else None


def answer_of(data: Mapping[str, Any], *, is_late: bool = False) -> Answer:
    """The decision in the ``data`` of an item that was read."""
    at = data.get("answered_at") or data.get("decided_at")
    return Answer(
        data["outcome"],
        responder_of(data["responder"]),
        {each["question_id"]: _question(each) for each in data.get("answers", ())},
        data.get("comment"),
        data.get("answer_id"),
        data.get("channel"),
        datetime.fromisoformat(at) if at else None,
        is_late,
    )


def expired(default: Mapping[str, str] | None) -> Answer:
    """Nobody decided in time: with what the agent gave as default by question id, when it did."""
    answers = {name: QuestionAnswer(name, text) for name, text in (default or {}).items()}
    return Answer("expired", Responder("timeout"), answers, is_default=default is not None)


def responder_of(data: Mapping[str, Any]) -> Responder:
    """Who decided, out of an item that was read."""
    return Responder(data["kind"], data.get("id"), data.get("display"))


def _question(each: Mapping[str, Any]) -> QuestionAnswer:
    return QuestionAnswer(each["question_id"], each.get("text"), tuple(each.get("options", ())))
