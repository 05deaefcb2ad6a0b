"""``orchclient config``: what holds here, where each value came from, and a file to begin with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from orchclient import config
from orchclient.cli.config_file import PAGE, SPOKEN
from orchclient.cli.groups import Group
from orchclient.cli.opening import json_option, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, printable, room, table
from orchclient.core.errors import ConfigError, OrchClientError
from orchclient.core.redaction import Redactor
from orchclient.core.schedule import Schedule
from orchclient.core.secret import Secret
from orchclient.origins import DEFAULT, PREFIX, variable_of

HIDDEN = "(hidden)"
_OF_SERVE = ("DB", "HOST", "PORT", "TRUSTED_HOST", "TRUSTED_PROXY", "RETENTION", "LOG", "SIGNING_SECRET")
_OTHERS = ("CONFIG", "COMPLETE", *(f"SERVE_{name}" for name in _OF_SERVE))
"""Names behind the prefix that are no settings of a client."""


@click.group("config", cls=Group, invoke_without_command=True)
@json_option
@click.pass_context
def config_command(ctx: click.Context, as_json: bool) -> int | None:
    """What is configured and where each value came from; without a command as config show.

    \b
    Examples: orchclient config show
              orchclient config init
    """
    return _show(ctx, as_json=as_json) if ctx.invoked_subcommand is None else None


@config_command.command("show")
@json_option
@click.pass_context
def show_command(ctx: click.Context, as_json: bool) -> int:
    """Every setting with its value and where it came from: a flag, a variable, a line of a file, or the default.

    Secrets are not shown. Variables that look like a setting and are none are named.

    \b
    Example: orchclient config show --json
    """
    return _show(ctx, as_json=as_json)


def _show(ctx: click.Context, *, as_json: bool) -> int:
    settings = settings_of(ctx)
    shown = [name for name in SPOKEN if name != "token_file"]  # which is where a token came from
    rows = {name: (_shown(settings, name), settings.origins.get(name, DEFAULT)) for name in shown}
    unread = list(strangers(settings, os.environ))
    document = {
        "ok": True,
        "files": [{"path": str(path), "exists": path.is_file()} for path in _files(ctx)],
        "settings": {name: {"value": value, "origin": origin} for name, (value, origin) in rows.items()},
        "unknown_variables": unread,
    }
    emit(document, _text(ctx, rows, unread), as_json=as_json)
    return ExitCode.DONE


def _shown(settings: config.Settings, name: str) -> Any:
    """A value as a program may read it; a secret as a mark."""
    if name == "sinks":
        return Redactor().redact({sink: dict(options) for sink, options in settings.sinks.items()})
    if name == "db":
        return str(outbox_path(settings))
    value = getattr(settings, name)
    if isinstance(value, Secret) or callable(value):
        return HIDDEN
    if isinstance(value, Schedule):
        return ",".join(map(_duration, (*value.after_s, value.every_s))) if value.every_s else "off"
    if name == "heartbeat":
        return value or "off"
    if name == "url" and value:
        return Redactor().redact_text(value)
    return list(value) if isinstance(value, tuple) else value


_UNITS = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def _duration(seconds: float) -> str:
    """As a setting is written: ``7d``, ``15m``, ``250ms``."""
    unit = next(((size, word) for size, word in _UNITS if seconds >= size and seconds % size == 0), None)
    return f"{seconds / unit[0]:.0f}{unit[1]}" if unit else f"{seconds * 1000:g}ms"


def _text(ctx: click.Context, rows: Mapping[str, tuple[Any, str]], unread: list[dict[str, str]]) -> str:
    lines = [(name, _words(name, value), origin) for name, (value, origin) in rows.items()]
    left = room() - max(len(row[0]) for row in lines) - 4  # for a value and where it came from
    width = max(left - max(len(row[2]) for row in lines), left // 2)
    cells = [(name, _cut(value, width), origin) for name, value, origin in lines]
    last = left - max(len(row[1]) for row in cells)
    parts = [table(("SETTING", "VALUE", "FROM"), [(name, value, _end(origin, last)) for name, value, origin in cells])]
    files = [f"File     {path}{'' if path.is_file() else '  (not there)'}" for path in _files(ctx)]
    parts.append("\n".join(files) or f"File     none ({os.devnull} is named)")
    if unread:
        parts.append("\n".join(f"{each['name']} is no setting: {each['hint']}" for each in unread))
    return "\n\n".join(parts)


def _words(name: str, value: Any) -> str:
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if name == "sinks":
        return ", ".join(f"{sink} ({options.get('kind')})" for sink, options in value.items())
    if name in ("request_timeout", "shutdown_timeout", "retention", "heartbeat") and value != "off":
        return _duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else printable(str(value))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _end(text: str, width: int) -> str:
    """The end of a long path tells most: the file, and the line."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def strangers(settings: config.Settings, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """Variables that nobody reads: a typing error goes unnoticed otherwise."""
    known = {variable_of(name): None for name in config.names()} | dict.fromkeys(PREFIX + each for each in _OTHERS)
    named = {value for table_ in settings.sinks.values() for option, value in table_.items() if option.endswith("_env")}
    found = sorted(name for name in environ if name.startswith(PREFIX) and name not in known and name not in named)
    return [{"name": name, "hint": _hint(name, list(known))} for name in found]


def _hint(name: str, known: Sequence[str]) -> str:
    """By what stands behind the prefix: with it all of them are alike."""
    near = get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], 1)
    return f"did you mean {PREFIX}{near[0]}?" if near else "orchclient config show names those there are"


def _files(ctx: click.Context) -> list[Path]:
    return config.files(os.environ, (ctx.find_root().obj or {}).get("config_file"))


def _first_file(ctx: click.Context) -> Path:
    found = _files(ctx)
    if not found:
        raise ConfigError(f"{os.devnull} is named as the file of settings, so none is read: unset ORCHCLIENT_CONFIG")
    return found[0]


@config_command.command("path")
@json_option
@click.pass_context
def path_command(ctx: click.Context, as_json: bool) -> int:
    """The file that config init would write and that is read: the named one, else the user's.

    \b
    Example: $EDITOR "$(orchclient config path)"
    """
    path = _first_file(ctx)
    emit({"ok": True, "path": str(path), "exists": path.is_file()}, str(path), as_json=as_json)
    return ExitCode.DONE


@config_command.command("init")
@json_option
@click.pass_context
def init_command(ctx: click.Context, as_json: bool) -> int:
    """Write a file with every setting, commented out, for you to edit; never over one that is there.

    It is readable for you alone. With --config FILE it is written there. Exit code 1: there is one already.

    \b
    Example: orchclient config init
    """
    path = _first_file(ctx).absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileExistsError:
        raise OrchClientError(f"{path} is there already, and stays as it is: edit it, or move it away first") from None
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be written: {error.strerror}") from None
    with open(handle, "w", encoding="utf-8") as file:
        file.write(PAGE)
    emit({"ok": True, "path": str(path)}, f"Written: {path}", as_json=as_json)
    return ExitCode.DONE
