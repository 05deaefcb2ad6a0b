"""``orchclient completion``: the shell's own completion of commands, options, destinations, tasks and event ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from orchclient.cli.opening import json_option, look_into, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit
from orchclient.core.errors import OrchClientError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from orchclient.outbox.glance import Glance

SHELLS = ("bash", "zsh", "fish", "powershell")
VARIABLE = "_ORCHCLIENT_COMPLETE"
MOST = 50

T = TypeVar("T")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion_command(ctx: click.Context, shell: str, as_json: bool) -> int:
    """Print the script that makes a shell complete commands, options, destinations, tasks and event ids.

    \b
    Examples: eval "$(orchclient completion bash)"        # in ~/.bashrc
              eval "$(orchclient completion zsh)"         # in ~/.zshrc, behind compinit
              orchclient completion fish > ~/.config/fish/completions/orchclient.fish
              orchclient completion powershell | Out-String | Invoke-Expression    # in $PROFILE
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"the click installed here knows no {shell}: pip install --upgrade 'click>=8.5'", ctx)
    script = found(ctx.find_root().command, {}, "orchclient", VARIABLE).source()
    emit({"ok": True, "shell": shell, "script": script}, script, as_json=as_json)
    return ExitCode.DONE


def _items(found: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """What begins so, each with what it is."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name, help=text or None) for name, text in found if name.startswith(incomplete)]


def destinations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of destinations of the outbox."""
    from orchclient.outbox import cursors

    names = _asked(ctx, lambda outbox: [row.name for row in outbox.query(cursors.sinks)])
    return _items([(name, "") for name in names], incomplete)


def tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tasks of the newest events."""
    names = dict.fromkeys(task for _, _, task in _newest(ctx))
    return _items([(name, "") for name in names], incomplete)


def events(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of the newest events, with what they are."""
    return _items([(id_, f"{type_} {task}") for id_, type_, task in _newest(ctx)], incomplete)


def requests(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Ids of what waits for a person."""
    from orchclient.outbox import requests as stored

    found = _asked(ctx, lambda outbox: [(each.id, each.task) for each in outbox.query(stored.open_ones)])
    return _items(found, incomplete)


def _newest(ctx: click.Context) -> list[tuple[str, str, str]]:
    from orchclient.outbox import listing

    def ask(outbox: Glance) -> list[tuple[str, str, str]]:
        found = outbox.query(lambda con: listing.events(con, limit=MOST))
        return [(each.entry.id, each.entry.type, each.entry.task) for each in found]

    return _asked(ctx, ask)


def _asked(ctx: click.Context, ask: Callable[[Glance], list[T]]) -> list[T]:
    """What the outbox knows; nothing when it cannot be read: a shell that completes is no place for errors."""
    try:
        settings = settings_of(ctx)
        outbox = look_into(settings) if outbox_path(settings).exists() else None
        if outbox is None:
            return []
        try:
            return ask(outbox)
        finally:
            outbox.close()
    except OrchClientError:
        return []
