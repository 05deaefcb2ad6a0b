"""``orchclient serve``: the orchestrator that comes with the product, and the tokens of those who may use it."""

from __future__ import annotations

import gc
import os
import signal
import time
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from orchclient.cli.duration import Duration
from orchclient.cli.opening import json_option
from orchclient.cli.output import ExitCode, emit, plural, table
from orchclient.cli.remarks import remark
from orchclient.core.errors import ConfigError
from orchclient.core.signing import keys_of
from orchclient.core.timestamps import rfc3339

if TYPE_CHECKING:
    from orchclient.server.orchestrator import Orchestrator

_DB_VARIABLE = "ORCHCLIENT_SERVE_DB"
_SIGNING_VARIABLE = "ORCHCLIENT_SERVE_SIGNING_SECRET"
"""Never a flag: a secret."""


@click.group("serve", invoke_without_command=True)
@click.option(
    "--db",
    envvar=_DB_VARIABLE,
    metavar="URL",
    help="A SQLite file, or postgresql://user@host/name (default: orchestrator.db in the state directory).",
)
@click.option("--host", envvar="ORCHCLIENT_SERVE_HOST", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    envvar="ORCHCLIENT_SERVE_PORT",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="On which port; 0: a free one.",
)
@click.option(
    "--trusted-host",
    "trusted_hosts",
    envvar="ORCHCLIENT_SERVE_TRUSTED_HOST",
    multiple=True,
    metavar="NAME",
    help="A name it is reached by.",
)
@click.option(
    "--trusted-proxy",
    "trusted_proxies",
    envvar="ORCHCLIENT_SERVE_TRUSTED_PROXY",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy whose X-Forwarded-For is believed.",
)
@click.option(
    "--retention",
    envvar="ORCHCLIENT_SERVE_RETENTION",
    type=Duration(),
    default="90d",
    show_default=True,
    help="Keep events so long; 30d at least.",
)
@click.option(
    "--log",
    "log_form",
    envvar="ORCHCLIENT_SERVE_LOG",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How a line of the log on stderr looks.",
)
@click.option("--open", "opens", is_flag=True, help="Open a browser at it.")
@click.pass_context
def serve_command(
    ctx: click.Context,
    db: str | None,
    host: str,
    port: int,
    trusted_hosts: tuple[str, ...],
    trusted_proxies: tuple[str, ...],
    retention: float,
    log_form: str,
    opens: bool,
) -> int:
    """Run an orchestrator: it takes events in, shows tasks, and brings people's answers to agents.

    Without a token it listens on this machine only. A password of the database belongs in ORCHCLIENT_SERVE_DB or
    PGPASSWORD, not in --db. Ends within two seconds of Ctrl-C or SIGTERM.

    \b
    Example: orchclient serve --db orchestrator.db --port 8765
    """
    require_extra()
    _refuse_password(ctx, db)
    ctx.obj = {**(ctx.obj or {}), "serve_db": db}
    if ctx.invoked_subcommand is not None:
        return ExitCode.DONE
    from orchclient.server import logs, serving
    from orchclient.server.keeping import LEAST_RETENTION_S

    if retention < LEAST_RETENTION_S:
        raise ConfigError("--retention must be 30d at least: an agent may come back so late with what it sent already")
    logs.configure("json" if log_form == "json" else "text")
    orchestrator = _opened(db)
    listening = serving.Listening(
        host,
        port,
        trusted_hosts,
        retention_s=retention,
        trusted_proxies=trusted_proxies,
        signing=keys_of(_SIGNING_VARIABLE, os.environ.get(_SIGNING_VARIABLE, "")),
    )
    try:
        server = serving.Server(orchestrator, listening)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        gc.collect()
        gc.freeze()  # what was loaded stays: looking through it again and again is a tenth of the ingest
        remark(f"Listening on {server.url}")
        if opens:
            serving.opened_browser(server.url)
        server.run()
    finally:
        orchestrator.close()
    return ExitCode.DONE


@serve_command.group("token")
def token_command() -> None:
    """Who may use the orchestrator: bearer tokens of agents and people.

    From the first token on nobody comes in without one. A second token of a name is the same credential: so a token is
    renewed without an agent losing its outbox.

    \b
    Example: orchclient serve token add backend-7
    """


@token_command.command("add")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["agent", "person"]),
    default="agent",
    show_default=True,
    help="Whether it opens /v1 or /api.",
)
@json_option
@click.pass_context
def add_command(ctx: click.Context, name: str, kind: str, as_json: bool) -> int:
    """Make a token and print it, this once: only its hash is kept.

    \b
    Example: orchclient serve token add ada --kind person
    """
    from orchclient.server import access

    orchestrator = _opened(ctx.obj["serve_db"])
    try:
        made_for: access.Kind = "person" if kind == "person" else "agent"
        text = orchestrator.writing(lambda session: access.add_token(session, name, made_for, _now_us()))
    finally:
        orchestrator.close()
    emit({"ok": True, "name": name, "kind": kind, "token": text}, text, as_json=as_json)
    return ExitCode.DONE


@token_command.command("list")
@json_option
@click.pass_context
def list_command(ctx: click.Context, as_json: bool) -> int:
    """The tokens that were made, without their text.

    \b
    Example: orchclient serve token list
    """
    from orchclient.server import access

    orchestrator = _opened(ctx.obj["serve_db"])
    try:
        with orchestrator.reading() as session:
            rows = [
                (each.id, each.name, each.kind, each.created_us, each.revoked_us) for each in access.tokens(session)
            ]
    finally:
        orchestrator.close()
    known = [
        {
            "id": id_,
            "name": name,
            "kind": kind,
            "created_at": rfc3339(created),
            "revoked_at": revoked and rfc3339(revoked),
        }
        for id_, name, kind, created, revoked in rows
    ]
    lines = [[str(each[name] or "-") for name in ("id", "name", "kind", "created_at", "revoked_at")] for each in known]
    text = (
        table(("ID", "NAME", "KIND", "MADE", "REVOKED"), lines) if lines else "No tokens: only this machine is served."
    )
    emit({"ok": True, "tokens": known}, text, as_json=as_json)
    return ExitCode.DONE


@token_command.command("revoke")
@click.argument("which", metavar="NAME|ID")
@json_option
@click.pass_context
def revoke_command(ctx: click.Context, which: str, as_json: bool) -> int:
    """Revoke a token by its id, or all of a name; the next request with it is refused.

    \b
    Example: orchclient serve token revoke backend-7
    """
    from orchclient.server import access

    orchestrator = _opened(ctx.obj["serve_db"])
    try:
        count = orchestrator.writing(lambda session: access.revoke(session, which, _now_us()))
    finally:
        orchestrator.close()
    if not count:
        raise ConfigError(f"no token {which!r} that is in use: see orchclient serve token list")
    emit({"ok": True, "revoked": count}, f"Revoked {plural(count, 'token')}.", as_json=as_json)
    return ExitCode.DONE


def require_extra() -> None:
    """Raises ``ConfigError`` when what the orchestrator needs is not installed."""
    try:
        import alembic  # noqa: F401
        import flask  # noqa: F401
        import sqlalchemy  # noqa: F401
        import waitress  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"the orchestrator needs {error.name}: pip install 'orchclient[server]'") from None


def _refuse_password(ctx: click.Context, db: str | None) -> None:
    if not db or ctx.get_parameter_source("db") is not ParameterSource.COMMANDLINE:
        return
    from orchclient.server.database import database_url

    if database_url(db).password is not None:
        raise ConfigError(f"--db has a password in it, which everybody on this machine can read: use {_DB_VARIABLE}")


def _opened(db: str | None) -> Orchestrator:
    from orchclient.server.orchestrator import Orchestrator

    return Orchestrator.open(db or _default_db())


def _default_db() -> str:
    from platformdirs import user_state_path

    return str(user_state_path("orchclient") / "orchestrator.db")


def _now_us() -> int:
    return time.time_ns() // 1000
