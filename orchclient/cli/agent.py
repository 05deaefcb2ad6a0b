"""How a command speaks as an agent: its options, a client without threads, and what it says when it has recorded.

The call is durable before anything is printed, and starts no thread: the process may be killed at once. Delivery is
left to whoever delivers on this host, to ``orchclient flush``, or to ``--flush``.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from orchclient.cli.duration import Duration
from orchclient.cli.opening import settings_of
from orchclient.cli.output import ExitCode, emit, plural, printable
from orchclient.cli.remarks import has_onlooker, remark
from orchclient.client import OrchestratorClient
from orchclient.reporting import FlushReport, SinkReport

Function = TypeVar("Function", bound=Callable[..., Any])

agent_option = click.option("--agent", metavar="NAME", help="Who speaks (default: ORCHCLIENT_AGENT, else user@host).")
flush_option = click.option(
    "--flush",
    "flush_s",
    is_flag=False,
    flag_value="10s",
    type=Duration(),
    metavar="[=DURATION]",
    help="Deliver as well, for so long at most (10s). Exit code 3: recorded, and not delivered yet.",
)


@contextmanager
def speaking(ctx: click.Context, agent: str | None) -> Iterator[OrchestratorClient]:
    """A client for one call: no threads, every event synced before the call returns."""
    flags: dict[str, Any] = ctx.find_root().obj or {}
    files = {"config_file": flags["config_file"]} if flags.get("config_file") else {}
    client = OrchestratorClient(name_of(ctx, agent), outbox=flags.get("db"), background=False, **files)
    try:
        yield client
    finally:
        client.close(0)


def name_of(ctx: click.Context, agent: str | None) -> str:
    """Who speaks: the flag, the setting, or the user on this host."""
    return agent or settings_of(ctx).agent or _user_at_host()


def _user_at_host() -> str:
    """The same for every call of a script, unlike a process id."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "agent"
    return f"{user}@{os.uname().nodename}"


def tell(
    client: OrchestratorClient,
    document: dict[str, Any],
    what: str,
    flush_s: float | None,
    *,
    as_json: bool,
    heard: Callable[[], dict[str, Any]] = dict,
) -> ExitCode:
    """Deliver if that is wanted, then print the receipt: the id on stdout; on a terminal what follows on stderr.

    ``heard`` gives members of the document that a flush may have brought.
    """
    report = None if flush_s is None or not document["recorded"] else client.flush(flush_s)
    document = document | heard()
    code = ExitCode.DONE if report is None else _code(report)
    if as_json:
        sinks = client.health().sinks
        document = document | {"destinations": {sink.name: _fares(sink) for sink in sinks}}
    emit({"ok": code == ExitCode.DONE, **document}, document["id"], as_json=as_json)
    if not as_json and has_onlooker():
        remark(f"{printable(what)}. {_whereabouts(client, document, report)}")
    return code


def _code(report: FlushReport) -> ExitCode:
    from orchclient.cli.flush import exit_code

    return exit_code(report, recorded=1)


def _fares(sink: SinkReport) -> dict[str, Any]:
    return {"pending": sink.pending, "state": sink.state, "is_served": sink.is_served}


def _whereabouts(client: OrchestratorClient, document: dict[str, Any], report: FlushReport | None) -> str:
    """For a person: where the event is now, and who sees to the rest."""
    if not document["recorded"]:
        return "Not recorded: orchclient is disabled (ORCHCLIENT_MODE)"
    if report is not None:
        why = next((f" ({each.state}: {each.reason})" for each in report.destinations.values() if each.pending), "")
        counts = f"{plural(report.delivered, 'event')} delivered, {plural(report.pending, 'event')} pending"
        return f"Recorded; {counts}{printable(why)}"
    sinks = client.health().sinks
    if not sinks:
        return "Recorded; no destination is configured yet: set ORCHCLIENT_URL"
    left = [sink.name for sink in sinks if not sink.is_served]
    if not left:
        return "Recorded; a process on this host delivers it"
    return f"Recorded; nobody delivers to {', '.join(left)} right now. Deliver: orchclient flush"
