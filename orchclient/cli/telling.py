"""``orchclient update``, ``complete`` and ``escalate``: what a shell script or a hook tells as an agent."""

from __future__ import annotations

import click

from orchclient.cli import completion
from orchclient.cli.agent import agent_option, flush_option, speaking, tell
from orchclient.cli.choices import OneOf
from orchclient.cli.given import members, text_of
from orchclient.cli.opening import json_option
from orchclient.cli.output import ExitCode, printable
from orchclient.cli.remarks import remark
from orchclient.cli.told import receipt_document, wish_document
from orchclient.cli.waiting import WAIT_HELP, told_review, wait_option
from orchclient.core.events import TaskStatus

STATUSES = OneOf([status.value for status in TaskStatus])


@click.command("update")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("status", type=STATUSES, default=TaskStatus.IN_PROGRESS.value, metavar="[STATUS]")
@click.option("--progress", type=float, metavar="PERCENT", help="0 to 100.")
@click.option("--step", metavar="TEXT", help="What is being done.")
@click.option("--meta", "pairs", multiple=True, metavar="KEY=VALUE", help="Merged into the task's; may be repeated.")
@click.option("--metadata-json", metavar="JSON|-", help="The same as a JSON object, or - for stdin.")
@agent_option
@flush_option
@json_option
@click.pass_context
def update_command(
    ctx: click.Context,
    task: str,
    status: str,
    progress: float | None,
    step: str | None,
    pairs: tuple[str, ...],
    metadata_json: str | None,
    agent: str | None,
    flush_s: float | None,
    as_json: bool,
) -> int:
    """Tell where a task stands. Prints the event's id; it is durable by then, whatever becomes of this process.

    STATUS is in_progress when it is left out, or pending, assigned, testing, review_ready, approved, completed, failed,
    cancelled, clarification_needed. Delivers nothing itself, unless with --flush: an agent on this host does, or
    orchclient flush. Somebody's wish to stop the task is told on stderr, and with --json as cancel_requested.

    \b
    Examples: orchclient update build-42 testing --progress 60 --step "Running the tests"
              orchclient update build-42 --meta file=app.py --meta branch=main
              git diff --stat | jq -Rs '{diff: .}' | orchclient update build-42 --metadata-json -
    """
    metadata = members("--metadata-json", pairs, metadata_json)
    with speaking(ctx, agent) as client:
        receipt = client.update_task_status(task, status, metadata, progress, step)
        document = receipt_document(receipt, task, status=status)
        handle = client.task(task)
        code = tell(
            client,
            document,
            f"{task} is {status}",
            flush_s,
            as_json=as_json,
            heard=lambda: {"cancel_requested": wish_document(handle.cancelled)},
        )
        if not as_json and (wish := handle.cancelled):
            who = wish.sender.display or wish.sender.id or wish.sender.kind
            remark(printable(f"{task}: {who} asks to stop it: {wish.text or 'no reason given'}"))
    return code


@click.command("complete")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.option("--pr-url", metavar="URL", help="Where the result is.")
@click.option("--tests-passed", type=click.IntRange(0), metavar="N", help="How many tests passed.")
@click.option("--tests-failed", type=click.IntRange(0), metavar="N", help="How many tests failed.")
@click.option("--code-coverage", type=float, metavar="PERCENT", help="0 to 100.")
@click.option("--lint-score", type=float, metavar="SCORE", help="0 to 10.")
@click.option("--security-score", type=float, metavar="SCORE", help="0 to 100; the quality is that at most.")
@click.option("--results-json", metavar="JSON|-", help="Test results as a JSON object, or - for stdin.")
@click.option("--artifact", "pairs", multiple=True, metavar="KEY=VALUE", help="What was made; may be repeated.")
@click.option("--artifacts-json", metavar="JSON|-", help="The same as a JSON object, or - for stdin.")
@click.option("--review", is_flag=True, help="A person must decide on it.")
@wait_option(f"With --review: {WAIT_HELP}")
@agent_option
@flush_option
@json_option
@click.pass_context
def complete_command(
    ctx: click.Context,
    /,
    task: str,
    pr_url: str | None,
    results_json: str | None,
    pairs: tuple[str, ...],
    artifacts_json: str | None,
    review: bool,
    wait_s: float | None,
    agent: str | None,
    flush_s: float | None,
    as_json: bool,
    **scores: float | None,
) -> int:
    """Hand in a task's result. Prints the event's id; with --review --wait what was decided.

    The quality score comes from the tests and scores that are given. Exit codes with --wait: 0 approved; 3 nobody has
    decided yet; 7 somebody said otherwise (rejected, changes_requested or declined, on stdout); 8 expired.

    \b
    Examples: orchclient complete build-42 --pr-url https://github.com/o/r/pull/7 --tests-passed 120 --tests-failed 0
              orchclient complete build-42 --review --wait=2h
    """
    if wait_s is not None and not review:
        raise click.UsageError("--wait goes with --review: without it nobody decides", ctx)
    results = members("--results-json", (), results_json) or {}
    results |= {name: value for name, value in scores.items() if value is not None}
    artifacts = members("--artifacts-json", pairs, artifacts_json)
    with speaking(ctx, agent) as client:
        done = client.report_completion(task, pr_url, results, artifacts, review=review)
        document = receipt_document(done.receipt, task, quality_score=done.quality_score, review=review)
        if wait_s is not None and done.review is not None:
            return told_review(document, done.review, wait_s, as_json=as_json)
        return tell(client, document, f"{task} is done, quality {done.quality_score:.0f}", flush_s, as_json=as_json)


@click.command("escalate")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("error_type", metavar="TYPE")
@click.argument("message", metavar="MESSAGE")
@click.option("--attempts", type=click.IntRange(0), default=0, metavar="N", help="How often recovery was tried.")
@click.option("--context", "pairs", multiple=True, metavar="KEY=VALUE", help="What helps to understand; repeatable.")
@click.option("--context-json", metavar="JSON|-", help="The same as a JSON object, or - for stdin.")
@click.option("--traceback", metavar="FILE|-", help="A traceback or the end of a log, from a file or - for stdin.")
@click.option("--fatal/--no-fatal", default=True, help="Whether the task has failed.", show_default=True)
@click.option("--dedup-key", metavar="KEY", help="Errors with the same key are one incident, and counted.")
@agent_option
@flush_option
@json_option
@click.pass_context
def escalate_command(
    ctx: click.Context,
    task: str,
    error_type: str,
    message: str,
    attempts: int,
    pairs: tuple[str, ...],
    context_json: str | None,
    traceback: str | None,
    fatal: bool,
    dedup_key: str | None,
    agent: str | None,
    flush_s: float | None,
    as_json: bool,
) -> ExitCode:
    """Call for help. Prints the event's id. TYPE, such as github_api_auth, and the attempts give the priority.

    Secrets are taken out of what is recorded, and of the traceback before it is cut.

    \b
    Examples: orchclient escalate build-42 tests_failed "3 of 120 fail" --attempts 2 --no-fatal
              make 2>&1 | tail -100 | orchclient escalate build-42 build_failed "make failed" --traceback -
    """
    context = members("--context-json", pairs, context_json)
    text = None if traceback is None else text_of("--traceback", traceback)
    with speaking(ctx, agent) as client:
        help_ = client.escalate_error(
            task, error_type, message, attempts, context, fatal=fatal, dedup_key=dedup_key, traceback=text
        )
        priority = help_.priority.value
        document = receipt_document(help_.receipt, task, priority=priority, count=help_.count, fatal=fatal)
        return tell(client, document, f"{task}: help was called for, {priority}", flush_s, as_json=as_json)
