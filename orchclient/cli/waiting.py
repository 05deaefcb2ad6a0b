"""Waiting for people in a command: bounded, ended by Ctrl-C, and an exit code that tells what was decided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchclient.cli.duration import Duration
from orchclient.cli.output import ExitCode, age, emit, printable
from orchclient.cli.remarks import has_onlooker, remark
from orchclient.cli.told import answer_document
from orchclient.core.answers import Answer, QuestionAnswer
from orchclient.core.errors import OutboxError
from orchclient.core.judging import RequestState
from orchclient.handles import Clarification, Review

Function = TypeVar("Function", bound=Callable[..., Any])

WAIT_S = 3600.0
WAIT_HELP = "wait for what people decide, an hour at most, or so long: --wait=10m. What was asked stays open."

_CODES = {"answered": ExitCode.DONE, "approved": ExitCode.DONE, "expired": ExitCode.EXPIRED}


def wait_option(help_text: str) -> Callable[[Function], Function]:
    """``--wait``, with or without a duration."""
    return click.option(
        "--wait",
        "wait_s",
        is_flag=False,
        flag_value=str(WAIT_S),
        type=Duration(),
        metavar="[=DURATION]",
        help=help_text[0].upper() + help_text[1:],
    )


def told_question(document: dict[str, Any], question: Clarification, wait_s: float, *, as_json: bool) -> ExitCode:
    """Wait for a question's answer and print it: one line for each question, in their order."""
    return _told(document, question, _waited(question, wait_s), _words, as_json=as_json)


def told_review(document: dict[str, Any], review: Review, wait_s: float, *, as_json: bool) -> ExitCode:
    """Wait for the decision on a result and print it in a word."""
    return _told(document, review, _waited(review, wait_s), lambda answer: answer.outcome, as_json=as_json)


def _waited(asked: Clarification | Review, wait_s: float) -> Answer | None:
    if has_onlooker() and asked.state.is_open:
        remark(f"{asked.id}: waiting for a person, {age(wait_s)} at most. Ctrl-C: it stays open")
    return asked.wait(wait_s)


def _told(
    document: dict[str, Any],
    asked: Clarification | Review,
    answer: Answer | None,
    words: Callable[[Answer], str],
    *,
    as_json: bool,
) -> ExitCode:
    if answer is None and asked.state is RequestState.WITHDRAWN:
        raise OutboxError(f"{asked.id} was withdrawn: nobody will answer it")
    code = ExitCode.PENDING if answer is None else _CODES.get(answer.outcome, ExitCode.OTHERWISE)
    if as_json:
        more = {"state": asked.state.value, "answer": None if answer is None else answer_document(answer)}
        emit({"ok": code == ExitCode.DONE, **document, **more}, "", as_json=True)
        return code
    if answer is None:
        remark(f"Still open: {asked.id}. Ask the same again to go on waiting; nothing is asked twice.")
        return code
    if text := words(answer):
        click.echo(printable(text, keep="\n"))
    remark(_by(answer))
    return code


def _words(answer: Answer) -> str:
    return "\n".join(_said(each) for each in answer.answers.values()) or ("" if answer.is_default else _outcome(answer))


def _outcome(answer: Answer) -> str:
    """Of a question nobody answered; an expired one has no words."""
    return "" if answer.outcome in ("answered", "expired") else answer.outcome


def _said(each: QuestionAnswer) -> str:
    return each.text if each.text is not None else ", ".join(each.options)


def _by(answer: Answer) -> str:
    """Who decided, and what they added: for people."""
    if answer.outcome == "expired":
        return "Nobody answered in time: this is the default" if answer.is_default else "Nobody answered in time"
    who = answer.responder.display or answer.responder.id or answer.responder.kind
    words = f"{answer.outcome.replace('_', ' ').capitalize()} by {who}"
    return printable(words + (f" ({answer.channel})" if answer.channel else "") + _comment(answer))


def _comment(answer: Answer) -> str:
    return f": {answer.comment}" if answer.comment else ""
