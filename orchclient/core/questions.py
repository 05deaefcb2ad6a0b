"""Questions to a person: their checked form, and the digest of what the person is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchclient.core import limits
from orchclient.core.errors import InvalidEvent
from orchclient.core.jsontext import encode, json_text

_MEMBERS = frozenset({"id", "text", "options", "recommended"})


def checked_questions(
    questions: object, options: Sequence[Any] | None, recommended: str | Sequence[str | None] | None
) -> list[dict[str, Any]]:
    """Questions as ``[{"id", "text", "options"?, "recommended"?}]``.

    ``questions`` is one text, or a list of texts or of mappings of that form. ``options`` is a list of texts for a
    single question, or one such list (or None) per question; ``recommended`` likewise. Ids default to q1, q2, ...
    """
    asked = _listed(questions)
    forms = [_form(question, number) for number, question in enumerate(asked)]
    _spread(forms, "options", options, is_one=lambda value: all(isinstance(option, str) for option in value))
    _spread(forms, "recommended", recommended, is_one=lambda value: isinstance(value, str))
    for number, form in enumerate(forms):
        _check(form, number)
    ids = [form["id"] for form in forms]
    if len(set(ids)) < len(ids):
        raise InvalidEvent("questions", "has two questions with the same id: answers could not be told apart")
    return forms


def content_digest(shown: Mapping[str, Any]) -> str:
    """``sha256:`` and 64 hex digits over the canonical JSON (sorted keys, no spaces, UTF-8) of what is shown."""
    from hashlib import sha256  # 2 ms of import that only agents pay that ask

    plain = json.loads(json_text(shown))
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + sha256(canonical.encode()).hexdigest()


def _listed(questions: object) -> list[Any]:
    if isinstance(questions, str | Mapping):
        return [questions]
    if not isinstance(questions, Sequence):
        raise InvalidEvent("questions", f"must be text or a list of texts, not {type(questions).__name__}")
    if not 0 < len(questions) <= limits.QUESTIONS:
        raise InvalidEvent("questions", f"must be 1 to {limits.QUESTIONS} questions, not {len(questions)}")
    return list(questions)


def _form(question: object, number: int) -> dict[str, Any]:
    path = f"$[{number}]"
    if isinstance(question, str):
        return {"id": f"q{number + 1}", "text": question}
    if not isinstance(question, Mapping):
        raise InvalidEvent("questions", f"must be text or a mapping, not {type(question).__name__}", path)
    unknown = [str(member) for member in question if member not in _MEMBERS]
    if unknown:
        raise InvalidEvent(
            "questions", f"has the unknown member {unknown[0]!r}; known: {', '.join(sorted(_MEMBERS))}", path
        )
    return {"id": f"q{number + 1}", **{member: value for member, value in question.items() if value is not None}}


def _spread(forms: list[dict[str, Any]], member: str, value: Any, is_one: Any) -> None:
    """Give each question its part of an argument that was given for all."""
    if value is None:
        return
    parts = [value] if len(forms) == 1 and is_one(value) else value
    if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) != len(forms):
        raise InvalidEvent(member, f"must have one entry per question ({len(forms)}), each for its question or None")
    for form, part in zip(forms, parts, strict=True):
        if part is not None:
            form[member] = part


def _check(form: dict[str, Any], number: int) -> None:
    path = f"$[{number}]"
    for member, most in (("id", limits.QUESTION_ID_CHARS), ("text", limits.QUESTION_CHARS)):
        if not _is_text(form.get(member), most):
            raise InvalidEvent("questions", f"{member} must be text of 1 to {most:,} characters", f"{path}.{member}")
    options = form.get("options")
    if options is not None:
        form["options"] = options = _checked_options(options, path)
    else:
        _refuse_secret(form["text"], path)
    recommended = form.get("recommended")
    if recommended is not None and not _is_text(recommended, limits.OPTION_CHARS):
        raise InvalidEvent("recommended", f"must be text of 1 to {limits.OPTION_CHARS:,} characters", path)
    if recommended is not None and options and recommended not in options:
        raise InvalidEvent("recommended", f"is {encode(str(recommended))}, which is not among the options", path)


def _refuse_secret(text: str, path: str) -> None:
    from orchclient.core.asking_secrets import secret_asked_for  # its patterns take a while; only agents pay that ask

    if secret := secret_asked_for(text):
        raise InvalidEvent(
            "questions",
            f"asks a person for a secret ({secret}): answers pass through chats and stay in records. Ask where it is "
            "to be read from instead; if it asks for none, give options to choose from",
            path,
        )


def _checked_options(options: object, path: str) -> list[str]:
    if isinstance(options, str) or not isinstance(options, Sequence) or not 0 < len(options) <= limits.OPTIONS:
        raise InvalidEvent("options", f"must be a list of 1 to {limits.OPTIONS} texts", path)
    if not all(_is_text(option, limits.OPTION_CHARS) for option in options):
        raise InvalidEvent("options", f"must be texts of 1 to {limits.OPTION_CHARS:,} characters", path)
    if len(set(options)) < len(options):
        raise InvalidEvent("options", "contains the same text twice", path)
    return list(options)


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= most
