"""The command group, loaded command by command, and how every command ends.

A command's module is imported when it is run: ``--help`` and completion stay quick. Errors end here, as one line on
stderr, or as one JSON document on stdout with ``--json``.
"""

from __future__ import annotations

import errno
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from orchclient import __version__
from orchclient.cli import colour
from orchclient.cli.groups import Group
from orchclient.cli.output import ExitCode, json_document
from orchclient.core.errors import ConfigError, OrchClientError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS = {
    "demo": ("orchclient.cli.demo", "Show the whole thing at work on this machine, in a few seconds."),
    "status": ("orchclient.cli.status", "What waits, what was delivered, what is dead, and why."),
    "answer": ("orchclient.cli.answer", "What waits for a person, and answering it here."),
    "flush": ("orchclient.cli.flush", "Deliver what is due now."),
    "retry": ("orchclient.cli.retry", "Send dead letters again."),
    "resend": ("orchclient.cli.resend", "Send again what a receiver lost."),
    "verify": ("orchclient.cli.verify", "Compare with what the orchestrator holds, and repair."),
    "prune": ("orchclient.cli.prune", "Forget delivered history; give up dead letters."),
    "export": ("orchclient.cli.recording", "Write the outbox as a recording, to carry or to replay."),
    "import": ("orchclient.cli.recording", "Take a recording of another host's outbox in."),
    "list": ("orchclient.cli.events", "Recorded events, newest first."),
    "show": ("orchclient.cli.events", "One event: what it says, and every attempt to deliver it."),
    "report": ("orchclient.cli.report", "What happened to a task, as a page that opens from disk."),
    "update": ("orchclient.cli.telling", "As an agent: tell where a task stands."),
    "ask": ("orchclient.cli.asking", "As an agent: ask people, and wait for the answer."),
    "withdraw": ("orchclient.cli.taking_back", "As an agent: take a question back."),
    "complete": ("orchclient.cli.telling", "As an agent: hand in a result."),
    "escalate": ("orchclient.cli.telling", "As an agent: call for help."),
    "resolve": ("orchclient.cli.taking_back", "As an agent: tell that an error is over."),
    "mcp": ("orchclient.cli.mcp", "Serve the verbs as tools to an agent host (MCP, over stdio)."),
    "serve": ("orchclient.cli.serve", "Run an orchestrator on this machine, and make its tokens."),
    "config": ("orchclient.cli.config", "What is configured, and where each value came from."),
    "doctor": ("orchclient.cli.doctor", "Check everything; each finding comes with its cure."),
    "completion": ("orchclient.cli.completion", "Print the script that makes a shell complete all this."),
}


class Commands(Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table, so that a TAB imports nothing; options as click does."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        from click.shell_completion import CompletionItem

        return [CompletionItem(name, help=text) for name, (_, text) in _COMMANDS.items() if name.startswith(incomplete)]


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    import platform
    import sqlite3

    from orchclient.cli.opening import outbox_path, settings_of

    versions = f"orchclient {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    try:
        where = str(outbox_path(settings_of(ctx)))
    except ConfigError as error:
        where = f"unknown: {error}"
    click.echo(f"{versions}\nOutbox {where}")
    ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Exit codes: 0 done, 1 error, 2 wrong usage or setting, 3 events still pending or
a question still open, 4 events became dead, 5 outbox busy, 6 credentials refused,
7 people decided otherwise, 8 a deadline has passed, 130 interrupted.

\b
Durations are 90, 90s, 15m, 2h or 7d. An id may be shortened to any unique
beginning. --json prints one document, on failure too.""",
)
@click.option("--db", type=click.Path(), metavar="PATH", help="The outbox file (default: ORCHCLIENT_DB).")
@click.option("--config", "config_file", type=click.Path(), metavar="FILE", help="A TOML file with settings.")
@click.option(
    "--color",
    "colour_",
    type=click.Choice(colour.CHOICES),
    default="auto",
    help="When there is colour.",
)
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Log lines on stderr.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show versions.",
)
@click.pass_context
def cli(ctx: click.Context, db: str | None, config_file: str | None, colour_: str, quiet: bool, verbose: bool) -> None:
    """Durable messages from an agent to its orchestrator and to people.

    Agents record into a local outbox; these commands look into it, deliver it and repair it.
    """
    if quiet and verbose:
        raise click.UsageError("either --quiet or --verbose", ctx)
    ctx.obj = {"db": db, "config_file": config_file, "is_quiet": quiet}
    ctx.color = colour.wanted(colour_)
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")


def run(args: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    arguments = _as_meant(sys.argv[1:] if args is None else args)
    wants_json = "--json" in arguments
    try:
        code = cli.main(arguments, prog_name="orchclient", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        code = _failed(wants_json, "interrupted", "Interrupted", "", ExitCode.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:  # typed to find out what there is
        click.echo(error.format_message(), err=True)
        code = ExitCode.USAGE
    except click.ClickException as error:
        message, hint = _usage(error)
        code = _failed(wants_json, "usage", message, hint, ExitCode.USAGE)
    except ConfigError as error:
        code = _failed(wants_json, "config", str(error), "", ExitCode.USAGE)
    except OrchClientError as error:
        code = _failed(wants_json, type(error).__name__, str(error), "", ExitCode.ERROR)
    except BrokenPipeError:
        # The reader of our output went away, as with `| head`: nobody is left to tell.
        sys.stderr.close()
        code = ExitCode.ERROR
    except Exception as error:  # noqa: BLE001  told in the form that was asked for
        code = _unexpected(wants_json, error)
    sys.exit(int(code or 0))


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _unexpected(wants_json: bool, error: Exception) -> ExitCode:
    """A bug, ours or a library's; or click's help did not fit behind a ``>``."""
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return _failed(wants_json, "Unwritable", f"the help cannot be written: {error.strerror}", "", ExitCode.ERROR)
    traceback.print_exc()
    hint = "This is a bug in orchclient: please report it with the lines on stderr."
    return _failed(wants_json, "unexpected", f"{type(error).__name__}: {error}", hint, ExitCode.ERROR)


def _as_meant(arguments: list[str]) -> list[str]:
    """``help``, ``help status`` and ``version`` are what many type first."""
    first, *rest = arguments or [""]
    if first == "help":
        return [*rest, "--help"]
    return ["--version"] if arguments == ["version"] else arguments


def _usage(error: click.ClickException) -> tuple[str, str]:
    """What was wrong with what was typed, and what to type instead."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "orchclient"
    option = getattr(error, "option_name", "")
    if option == "--json" and path == "orchclient":
        return "--json goes behind the command", "As in: orchclient status --json"
    if option in _BEFORE and path != "orchclient":
        what = f"{option} {_BEFORE[option]}".rstrip()
        return f"{option} goes before the command", f"As in: {path.replace(' ', f' {what} ', 1)}"
    return error.format_message(), f"Try {path} --help"


_BEFORE = {
    "--db": "PATH",
    "--config": "FILE",
    "--color": "always",
    **dict.fromkeys(("-q", "--quiet", "-v", "--verbose", "--version"), ""),
}
"""Options of all commands, with a value."""


def _failed(wants_json: bool, code: str, message: str, hint: str, exit_code: ExitCode) -> ExitCode:
    document = {"ok": False, "error": {"code": code, "message": message, "hint": hint}}
    with suppress(OSError):  # stdout may be what has failed
        if wants_json:
            click.echo(json_document(document))
            return exit_code
    click.echo(f"Error: {message}" + (f"\n{hint}" if hint else ""), err=True)
    return exit_code
