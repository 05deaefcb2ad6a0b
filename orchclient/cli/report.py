"""``orchclient report``: one task as a page that opens from disk, for whoever asks what happened."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import click

from orchclient.cli import completion
from orchclient.cli.opening import json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, printable
from orchclient.cli.report_page import page
from orchclient.cli.report_story import story_of
from orchclient.core.errors import OrchClientError, OutboxError, UnknownEvent
from orchclient.delivery.clock import SystemClock


@click.command("report")
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.option("-o", "--output", metavar="FILE|-", help="Where to write it, or - for stdout. Default: TASK.html here.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--open", "opens", is_flag=True, help="Open a browser at it.")
@json_option
@click.pass_context
def report_command(ctx: click.Context, task: str, output: str | None, force: bool, opens: bool, as_json: bool) -> int:
    """Write what happened to a task as one HTML page: progress, questions and answers, errors, deliveries.

    The page is self-contained and runs no script: it opens from disk, and may be sent to somebody. Only you can read
    the file. It tells what this outbox still keeps of the task.

    \b
    Examples: orchclient report build-42
              orchclient report build-42 -o - > /tmp/build-42.html
    """
    if output == "-" and (as_json or opens):
        raise click.UsageError("-o - prints the page, so it goes with neither --json nor --open", ctx)
    settings = settings_of(ctx)
    outbox = look_into(settings)
    if outbox is None:
        raise OutboxError(f"nothing to report: there is no outbox yet at {outbox_path(settings)}")
    try:
        story = outbox.query(lambda con: story_of(con, task, SystemClock.now_us()))
    finally:
        outbox.close()
    if story is None:
        raise UnknownEvent(f"no events of task {printable(task)!r}; see orchclient list")
    text = page(story)
    if output == "-":
        click.echo(text, nl=False)
        return ExitCode.DONE
    path = Path(output) if output else Path(_file_name(task))
    _write(path, text, is_forced=force)
    if opens:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())
    emit({"ok": True, "task": task, "path": str(path), "moments": len(story.moments)}, str(path), as_json=as_json)
    return ExitCode.DONE


def _file_name(task: str) -> str:
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", task).strip(".-")[:80] or "task") + ".html"


def _write(path: Path, text: str, *, is_forced: bool) -> None:
    """For the owner only; whole or not at all."""
    if not is_forced and os.path.lexists(path):
        raise OrchClientError(f"{path} is there already, and stays as it is: name another with -o, or use --force")
    draft = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OrchClientError(f"{path} cannot be written: {error.strerror}") from None
