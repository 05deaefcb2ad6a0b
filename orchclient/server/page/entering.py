"""What people enter into a form, read as a decision. Pure: the form is a mapping of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from orchclient.server.reading import without_nul

MOST_TEXT: Final = 16_384
Form = Mapping[str, str]


@frozen
class Entered:
    """Answers as the contract writes them; ``wrong`` says by question id, or by "" for all, what is missing."""

    answers: Sequence[Mapping[str, Any]]
    wrong: Mapping[str, str]


def answers(form: Form, questions: Sequence[Mapping[str, Any]]) -> Entered:
    """The answer to each question: an option by its number, words, or both. Some may stay open, not all."""
    found: list[Mapping[str, Any]] = []
    wrong: dict[str, str] = {}
    for number, question in enumerate(questions, 1):
        text, chosen = _text(form, f"text-{number}"), form.get(f"option-{number}", "")
        options = _option(chosen, question.get("options", ()))
        if options is None:
            wrong[question["id"]] = "This option is not there any more: choose again."
        elif len(text) > MOST_TEXT:
            wrong[question["id"]] = f"At most {MOST_TEXT:,} characters: this has {len(text):,}."
        elif text or options:
            given = {"text": text} if text else {}
            found.append({"question_id": question["id"], **given, **({"options": options} if options else {})})
    if not found and not wrong:
        only = questions[0] if len(questions) == 1 else None
        how = (
            "Choose an option or write an answer"
            if any(each.get("options") for each in questions)
            else "Write an answer"
        )
        wrong[only["id"] if only else ""] = f"{how}, then send it."
    return Entered(found, wrong)


def _option(chosen: str, options: Sequence[str]) -> list[str] | None:
    """The chosen option; none when nothing was chosen, None when there is no such one."""
    if not chosen or chosen == "none":
        return []
    if not (chosen.isascii() and chosen.isdecimal() and len(chosen) < 4 and 0 < int(chosen) <= len(options)):
        return None
    return [options[int(chosen) - 1]]


def comment(form: Form) -> str | None:
    """The words that go with a decision."""
    return _text(form, "comment") or None


def _text(form: Form, name: str) -> str:
    # A browser sends CRLF for each line's end, whatever was typed; half a surrogate can be no text of an answer.
    text: str = without_nul(form.get(name, "").strip().replace("\r\n", "\n"))
    return text.encode("utf-8", "replace").decode()
