"""``orchclient mcp``: the verbs as tools of the Model Context Protocol, so that any agent host can use the outbox."""

from __future__ import annotations

from typing import Any

import click

from orchclient.cli.agent import agent_option, name_of
from orchclient.cli.output import ExitCode
from orchclient.core.errors import ConfigError


@click.command("mcp")
@agent_option
@click.pass_context
def mcp_command(ctx: click.Context, agent: str | None) -> int:
    """Serve the verbs as tools over stdio, for an agent host that speaks the Model Context Protocol.

    Needs the extra mcp. The host starts it and ends it by closing its stdin. Meanwhile it delivers what is recorded, as
    an agent does; what is left stays in the outbox. stdout belongs to the protocol, log lines go to stderr.

    \b
    Example: orchclient mcp --agent reviewer
    """
    try:
        from orchclient.cli.mcp_tools import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the MCP server needs {error.name}: pip install 'orchclient[mcp]'") from None
    from orchclient.client import OrchestratorClient

    flags: dict[str, Any] = ctx.find_root().obj or {}
    files = {"config_file": flags["config_file"]} if flags.get("config_file") else {}
    with OrchestratorClient(name_of(ctx, agent), outbox=flags.get("db"), **files) as client:
        serve(client)
    return ExitCode.DONE
