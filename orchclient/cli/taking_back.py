"""``orchclient withdraw`` and ``orchclient resolve``: a question that needs no answer any more, an error that is over.

Both are told once: done again, or when there is nothing to take back, they record nothing and end well, so that a hook
may call them whatever was before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchclient.cli import completion
from orchclient.cli.agent import agent_option, flush_option, speaking, tell
from orchclient.cli.opening import json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, printable
from orchclient.cli.remarks import remark
from orchclient.cli.told import receipt_document
from orchclient.core.errors import OutboxError, UnknownEvent
from orchclient.core.events import EventType
from orchclient.core.judging import RequestKind, RequestState
from orchclient.outbox import listing, requests
from orchclient.outbox.glance import Glance
from orchclient.outbox.listing import Listed
from orchclient.outbox.requests import Request

T = TypeVar("T")

OFF = "orchclient is disabled (ORCHCLIENT_MODE)"


@click.command("withdraw")
@click.argument("question_id", metavar="ID", shell_complete=completion.requests)
@click.option("--reason", metavar="TEXT", default="no longer needed", show_default=True, help="For people: why.")
@agent_option
@flush_option
@json_option
@click.pass_context
def withdraw_command(
    ctx: click.Context, question_id: str, reason: str, agent: str | None, flush_s: float | None, as_json: bool
) -> int:
    """Tell people that a question needs no answer any more. Prints the event's id.

    Any unique beginning of the question's id will do. One that was withdrawn before stays so, and nothing is recorded.
    Exit code 1: it was answered, declined or expired before; orchclient ask gives the answer.

    \b
    Example: orchclient withdraw 01a207af --reason "Found it in the README"
    """
    if settings_of(ctx).mode == "disabled":
        return _nothing(
            "", {"clarification_id": question_id, "state": RequestState.WITHDRAWN.value}, OFF, as_json=as_json
        )
    found = _looked_up(ctx, lambda outbox: _question(outbox, question_id), f"no question {question_id!r}")
    known: dict[str, Any] = {"clarification_id": found.id, "state": RequestState.WITHDRAWN.value}
    with speaking(ctx, agent) as client:
        question = client.clarification(found.id)
        receipt = question.withdraw(reason) if question else None
        if question is None or receipt is None:
            state = question.state if question else found.state
            if state is not RequestState.WITHDRAWN:
                raise OutboxError(f"{found.id} is settled already: {state.value}; nothing is withdrawn")
            return _nothing(found.task, known, f"{found.id} was withdrawn before", as_json=as_json)
        what = f"{found.task}: the question is withdrawn"
        return tell(client, receipt_document(receipt, found.task, **known), what, flush_s, as_json=as_json)


@click.command("resolve")
@click.argument("what", metavar="TASK|ID", shell_complete=completion.tasks)
@click.option("--dedup-key", metavar="KEY", help="Of the task: the key that its errors were escalated with.")
@click.option("--note", metavar="TEXT", help="For people: what ended it.")
@agent_option
@flush_option
@json_option
@click.pass_context
def resolve_command(
    ctx: click.Context,
    what: str,
    dedup_key: str | None,
    note: str | None,
    agent: str | None,
    flush_s: float | None,
    as_json: bool,
) -> int:
    """Tell people that an error is over: nobody is reminded of it any more. Prints the event's id.

    Named by the TASK and its --dedup-key, or by the ID that orchclient escalate has printed. Where nothing is open,
    nothing is recorded, with exit code 0: so a script may call it whenever all went well.

    \b
    Examples: orchclient resolve build-42 --dedup-key nightly-build --note "The cable was out."
              orchclient resolve 01a20631
    """
    if settings_of(ctx).mode == "disabled":
        return _nothing("", {"dedup_key": dedup_key, "error_id": None}, OFF, as_json=as_json)
    if dedup_key is None:
        error = _looked_up(ctx, lambda outbox: _error(outbox, what), f"no error {what!r}")
    with speaking(ctx, agent) as client:
        if dedup_key is not None:
            task, named = what, f"{what} has no open incident {dedup_key!r}"
            receipt = client.resolve_error(task, dedup_key, note)
        else:
            task, named = error.entry.task, f"{error.entry.id} is resolved already"
            escalation = client.escalation(error.entry.id)
            receipt = escalation.resolve(note) if escalation else None
        known = {"dedup_key": dedup_key, "error_id": None if dedup_key is not None else error.entry.id}
        if receipt is None:
            return _nothing(task, known, named, as_json=as_json)
        return tell(client, receipt_document(receipt, task, **known), f"{task}: over", flush_s, as_json=as_json)


def _looked_up(ctx: click.Context, ask: Callable[[Glance], T], missing: str) -> T:
    settings = settings_of(ctx)
    outbox = look_into(settings)
    if outbox is None:
        raise OutboxError(f"{printable(missing)}: there is no outbox yet at {outbox_path(settings)}")
    try:
        return ask(outbox)
    finally:
        outbox.close()


def _question(outbox: Glance, prefix: str) -> Request:
    found = outbox.query(lambda con: requests.beginning(con, prefix.lower()))
    if len(found) > 1:
        raise OutboxError(f"{printable(prefix)} begins several requests: {', '.join(each.id for each in found)}")
    if not found:
        raise OutboxError(f"no question {printable(prefix)!r}; see orchclient answer for what is open")
    if found[0].kind is not RequestKind.QUESTION:
        raise OutboxError(f"{found[0].id} is a review: a person decides on it; see orchclient answer")
    return found[0]


def _error(outbox: Glance, prefix: str) -> Listed:
    try:
        found = outbox.query(lambda con: listing.event(con, prefix))
    except UnknownEvent as error:
        raise UnknownEvent(f"{error}; an incident is named by its task and --dedup-key") from None
    if found.entry.type != EventType.ERROR_ESCALATED:
        raise OutboxError(f"{found.entry.id} is no error but a {found.entry.type}: nothing is resolved")
    return found


def _nothing(task: str, known: dict[str, Any], why: str, *, as_json: bool) -> ExitCode:
    """Nothing was to be done, which is what was wanted."""
    if as_json:
        emit({"ok": True, "id": None, "recorded": False, "task": task, **known}, "", as_json=True)
    else:
        remark(f"Nothing to do: {printable(why)}")
    return ExitCode.DONE
