"""``orchclient answer``: what waits for a person on this host, and deciding it from the terminal, without a server.

The decision goes the way of every other: through the inbox, judged and kept, first one wins; its channel is ``cli``.
"""

from __future__ import annotations

import getpass
import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from attrs import frozen

from orchclient.cli import completion
from orchclient.cli.opening import json_option, look_into, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, age, emit, printable
from orchclient.config import Settings
from orchclient.core.envelope import TYPE_PREFIX
from orchclient.core.errors import OutboxError
from orchclient.core.ids import uuid7
from orchclient.core.inbox_items import ANSWERED, DECIDED
from orchclient.core.judging import ItemVerdict, RequestKind
from orchclient.core.verbs import CLI_CHANNEL
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import inbox, journal, leadership, requests
from orchclient.outbox.requests import Request
from orchclient.station import Station

SOURCE = "urn:orchclient:cli"


@frozen
class Asked:
    """A request with what its event says; empty when the event is not kept any more."""

    request: Request
    data: Mapping[str, Any]

    @property
    def questions(self) -> list[dict[str, Any]]:
        """What was asked; of a review nothing."""
        found: list[dict[str, Any]] = self.data.get("questions", [])
        return found


@click.command("answer")
@click.argument("request_id", required=False, metavar="[ID]", shell_complete=completion.requests)
@click.argument("answers", nargs=-1, metavar="[ANSWER]...")
@click.option("--approve", "outcome", flag_value="approved", help="Yes, as it stands.")
@click.option("--changes", "outcome", flag_value="changes_requested", help="Yes, with the changes in --comment.")
@click.option("--reject", "outcome", flag_value="rejected", help="No.")
@click.option("--decline", "outcome", flag_value="declined", help="Nobody here wants to decide; not a no.")
@click.option("--comment", metavar="TEXT", help="Goes with the decision.")
@click.option("--by", metavar="NAME", help="Who decides; default: the user of this terminal.")
@json_option
@click.pass_context
def answer_command(
    ctx: click.Context,
    request_id: str | None,
    answers: tuple[str, ...],
    outcome: str | None,
    comment: str | None,
    by: str | None,
    as_json: bool,
) -> int:
    """List what waits for a person, or decide it: a question with its answers in order, a review with an option.

    An answer is the number of an option, or words. Any unique beginning of an id will do. The agent that waits goes on
    at once, and tells the orchestrator what was decided here. Exit code 1: it was settled before, and by whom is told.

    \b
    Examples: orchclient answer
              orchclient answer 01a207af 1
              orchclient answer 01a207af "yes, bearer token" 120
              orchclient answer 01a207d8 --changes --comment "Rename the table first."
    """
    if request_id and not (answers or outcome):
        raise click.UsageError("say what is decided: an answer, --approve, --changes, --reject or --decline", ctx)
    if answers and outcome:
        raise click.UsageError("either answers or one of the options", ctx)
    settings = settings_of(ctx)
    if not request_id:
        return _looked(settings, as_json=as_json)
    station = open_existing(settings)
    if station is None:
        where = f"there is no outbox yet at {outbox_path(settings)}"
        raise OutboxError(f"no question or review {printable(request_id)!r}: {where}")
    try:
        asked = _chosen(station, request_id)
        decided = _decided(ctx, asked, answers, outcome, comment, by or getpass.getuser())
        _settle(station, asked.request, decided)
    finally:
        station.close(0)
    emit({"ok": True, "id": asked.request.id, "decision": decided["data"]}, _told(asked, decided), as_json=as_json)
    return ExitCode.DONE


# --- looking ----------------------------------------------------------------------------------------------------------


def _looked(settings: Settings, *, as_json: bool) -> ExitCode:
    outbox = look_into(settings)
    if outbox is None:
        text = f"Nothing waits for a person: there is no outbox yet at {outbox_path(settings)}."
        emit({"ok": True, "open": []}, text, as_json=as_json)
        return ExitCode.DONE
    try:
        waiting = outbox.query(lambda con: [_asked(con, each) for each in requests.open_ones(con)])
    finally:
        outbox.close()
    emit({"ok": True, "open": list(map(_document, waiting))}, _listed(waiting), as_json=as_json)
    return ExitCode.DONE


def _asked(con: sqlite3.Connection, request: Request) -> Asked:
    entry = next(iter(journal.find(con, request.id)), None)
    data = json.loads("{" + entry.body).get("data", {}) if entry and entry.is_whole else {}
    return Asked(request, data)


def _chosen(station: Station, prefix: str) -> Asked:
    found = station.query(lambda con: [_asked(con, each) for each in requests.beginning(con, prefix.lower())])
    if len(found) > 1:
        raise OutboxError(
            f"{printable(prefix)} begins several requests: {', '.join(each.request.id for each in found)}"
        )
    if not found:
        raise OutboxError(f"no question or review {printable(prefix)!r}; see orchclient answer for what is open")
    request = found[0].request
    if not request.state.is_open:
        raise OutboxError(f"{request.id} is settled already: {_settled(request)}; nothing is changed")
    return found[0]


def _settled(request: Request) -> str:
    responder = (request.answered or {}).get("responder", {})
    who = responder.get("display") or responder.get("id") or responder.get("kind")
    channel = (request.answered or {}).get("channel")
    return printable(request.state.value + (f" by {who}" if who else "") + (f" ({channel})" if channel else ""))


def _listed(waiting: Sequence[Asked]) -> str:
    return "\n\n".join(map(_text, waiting)) if waiting else "Nothing waits for a person."


def _text(asked: Asked) -> str:
    request, since = asked.request, age((SystemClock.now_us() - asked.request.asked_us) / 1e6)
    lines = [f"{request.id}  {request.kind.value}  {request.task}  {request.priority}  {request.agent}, {since} ago"]
    if request.kind is RequestKind.REVIEW:
        lines.append(f"  result {asked.data.get('pr_url') or ''}  quality {asked.data.get('quality_score', '?')}")
    elif not asked.questions:
        lines.append("  (what it asks is no longer kept here)")
    for question in asked.questions:
        lines.append(f"  {question['text']}")
        for number, option in enumerate(question.get("options", ()), 1):
            mark = "  (recommended)" if option == question.get("recommended") else ""
            lines.append(f"    {number}  {option}{mark}")
    if asked.data.get("deadline"):
        lines.append(f"  until {asked.data['deadline']}, then: {request.fallback or 'no default'}")
    return "\n".join(map(printable, lines))


def _document(asked: Asked) -> dict[str, Any]:
    request = asked.request
    return {
        "id": request.id,
        "kind": request.kind.value,
        "state": request.state.value,
        "task": request.task,
        "agent": request.agent,
        "priority": request.priority,
        "data": dict(asked.data),
    }


# --- deciding ---------------------------------------------------------------------------------------------------------


def _decided(
    ctx: click.Context, asked: Asked, answers: Sequence[str], outcome: str | None, comment: str | None, by: str
) -> dict[str, Any]:
    """The item of the inbox that says it."""
    request, now = asked.request, datetime.now(UTC).isoformat()
    data: dict[str, Any] = {
        "task_id": request.task,
        "outcome": outcome or "answered",
        "responder": {"kind": "human", "id": by},
        "channel": CLI_CHANNEL,
    }
    if comment is not None:
        data["comment"] = comment
    new_id = uuid7(SystemClock.now_us() // 1000, SystemClock.randomness())
    if request.kind is RequestKind.REVIEW:
        if answers:
            raise click.UsageError("a review is decided by --approve, --changes, --reject or --decline", ctx)
        return _item(new_id, DECIDED, request.task, {**data, "review_id": request.id, "decided_at": now}, now)
    if answers:
        data["answers"] = _answers(ctx, asked, answers)
    asked_for = {"clarification_id": request.id, "answer_id": f"cli-{new_id}", "answered_at": now}
    return _item(new_id, ANSWERED, request.task, {**data, **asked_for, "content_digest": request.digest}, now)


def _item(id_: str, type_: str, task: str, data: dict[str, Any], now: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": id_,
        "source": SOURCE,
        "type": TYPE_PREFIX + type_,
        "subject": task,
        "time": now,
        "data": data,
    }


def _answers(ctx: click.Context, asked: Asked, answers: Sequence[str]) -> list[dict[str, Any]]:
    questions = asked.questions or [{"id": "q1"}]
    if len(answers) != len(questions):
        raise click.UsageError(
            f"{len(answers)} answers for {len(questions)} questions: give one each, in quotes if it has spaces", ctx
        )
    return [_answer(ctx, *each) for each in zip(questions, answers, strict=True)]


def _answer(ctx: click.Context, question: Mapping[str, Any], said: str) -> dict[str, Any]:
    options = question.get("options", ())
    if said in options:
        return {"question_id": question["id"], "options": [said]}
    if options and said.isdecimal():
        if not 1 <= int(said) <= len(options):
            raise click.UsageError(f"there is no option {said}: 1 to {len(options)}, or words", ctx)
        return {"question_id": question["id"], "options": [options[int(said) - 1]]}
    return {"question_id": question["id"], "text": said}


def _settle(station: Station, request: Request, item: dict[str, Any]) -> None:
    def work(con: sqlite3.Connection) -> tuple[ItemVerdict, str, Request | None]:
        kept = inbox.keep(con, item, SystemClock.now_us())
        leadership.nudge(con)
        verdict = kept.verdict if kept else ItemVerdict.REPEAT
        return verdict, kept.problem if kept else "", requests.by_id(con, request.id)

    verdict, problem, now = station.write(work, synced=True)
    if verdict is ItemVerdict.UNREADABLE:
        raise OutboxError(f"{request.id}: the answer cannot be used: {problem}; nothing is decided")
    if verdict is not ItemVerdict.ACCEPTED:
        told = _settled(now) if now else "it is gone"
        raise OutboxError(f"{request.id} was settled meanwhile: {told}; yours is kept as {verdict.value}")


def _told(asked: Asked, item: Mapping[str, Any]) -> str:
    outcome = item["data"]["outcome"].replace("_", " ")
    return printable(f"{asked.request.kind.value} {asked.request.id} of {asked.request.task}: {outcome}")
