"""``orchclient ask``: a question to people from a shell script, and with ``--wait`` their answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from orchclient.cli import completion
from orchclient.cli.agent import agent_option, flush_option, speaking, tell
from orchclient.cli.choices import OneOf
from orchclient.cli.duration import Until
from orchclient.cli.given import json_value, members
from orchclient.cli.opening import json_option
from orchclient.cli.told import receipt_document
from orchclient.cli.waiting import WAIT_HELP, told_question, wait_option
from orchclient.core.events import NotificationPriority


@click.command("ask")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("questions", nargs=-1, metavar="QUESTION...")
@click.option("--option", "options", multiple=True, metavar="TEXT", help="An answer to choose; may be repeated.")
@click.option("--recommended", metavar="TEXT", help="The option that you would take.")
@click.option("--questions-json", metavar="JSON|-", help="A list of {text, id, options, recommended}, or - for stdin.")
@click.option(
    "--priority",
    type=OneOf([each.value for each in NotificationPriority]),
    default=NotificationPriority.MEDIUM.value,
    show_default=True,
    help="How soon a person should look.",
)
@click.option("--context", "pairs", multiple=True, metavar="KEY=VALUE", help="What helps to decide; may be repeated.")
@click.option("--context-json", metavar="JSON|-", help="The same as a JSON object, or - for stdin.")
@click.option("--default", metavar="TEXT", help="What applies when the deadline has passed.")
@click.option("--deadline", type=Until(), metavar="WHEN", help="Until when: 30m, 2h, or 2026-11-25T17:00.")
@click.option("--key", metavar="KEY", help="Names the question within the task, so that asking again is recognised.")
@wait_option(WAIT_HELP)
@agent_option
@flush_option
@json_option
@click.pass_context
def ask_command(
    ctx: click.Context,
    task: str,
    questions: tuple[str, ...],
    options: tuple[str, ...],
    recommended: str | None,
    questions_json: str | None,
    priority: str,
    pairs: tuple[str, ...],
    context_json: str | None,
    default: str | None,
    deadline: datetime | None,
    key: str | None,
    wait_s: float | None,
    agent: str | None,
    flush_s: float | None,
    as_json: bool,
) -> int:
    """Ask people about a task. Prints the question's id, or with --wait the answer, a line for each question.

    Asked again, it is the same question (by --key, else by its content): so a script may be run again, and go on
    waiting, or fetch the answer that came meanwhile. Exit codes with --wait: 0 answered; 3 still open; 7 declined;
    8 the deadline has passed: the --default is printed if there is one. Silence is never taken for an answer. Somebody
    must be able to answer: the orchestrator's page, or orchclient answer on this host.

    \b
    Examples: orchclient ask build-42 "Which port?" --option 80 --option 8080 --recommended 8080
              port=$(orchclient ask build-42 "Which port?" --deadline 1h --default 8080 --wait)
    """
    asked: Any = _questions(ctx, questions, questions_json)
    if options and not (len(questions) == 1 and questions_json is None):
        raise click.UsageError("--option goes with one QUESTION; give each of several its own in --questions-json", ctx)
    context = members("--context-json", pairs, context_json)
    with speaking(ctx, agent) as client:
        question = client.request_clarification(
            task,
            asked,
            priority,
            context,
            options=options or None,
            recommended=recommended,
            default=default,
            deadline=deadline,
            key=key,
        )
        document = receipt_document(question.receipt, task, state=question.state.value)
        if wait_s is not None and document["recorded"]:
            return told_question(document, question, wait_s, as_json=as_json)
        return tell(client, document, f"{task}: {question.state.value} question", flush_s, as_json=as_json)


def _questions(ctx: click.Context, questions: tuple[str, ...], questions_json: str | None) -> Any:
    if bool(questions) == (questions_json is not None):
        raise click.UsageError("say what is asked: QUESTION arguments, or --questions-json", ctx)
    if questions_json is not None:
        return json_value("--questions-json", questions_json)
    return questions[0] if len(questions) == 1 else list(questions)
