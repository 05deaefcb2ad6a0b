"""What an agent's command is given beside arguments: members as ``key=value`` or JSON, text of a file or of stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from orchclient.cli.remarks import remark

MOST_BYTES = 1_048_576
"""Of a text that is cut anyway: its end says what went wrong. JSON beyond it is more than an event may hold."""


def members(option: str, pairs: Sequence[str], text: str | None) -> dict[str, Any] | None:
    """``key=value`` pairs over the members of a JSON object; None when neither was given.

    Raises a usage error that names the option, never what was given: it may be a secret in the wrong place.
    """
    given = json_value(option, text) if text is not None else {}
    if not isinstance(given, dict):
        raise click.UsageError(f'{option}: expected a JSON object such as {{"file": "app.py"}}')
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not (key and mark):
            raise click.UsageError(f"a pair has the form key=value, such as file=app.py (beside {option})")
        given[key] = value
    return given if given or pairs or text is not None else None


def json_value(option: str, text: str) -> Any:
    """JSON of an option, from stdin when it is ``-``. Raises a usage error with the place of the mistake."""
    source = "stdin" if text == "-" else option
    if text == "-":
        raw = _stdin(option).read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise click.UsageError(f"{option}: more than {MOST_BYTES:,} bytes on stdin: no event holds so much")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise click.UsageError(f"{option}: stdin is not UTF-8 text") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise click.UsageError(f"{option}: {source} is not JSON: {error.msg} at {where}") from None
    except (ValueError, RecursionError):
        raise click.UsageError(f"{option}: {source} is JSON too deep, or with a number too long, to be read") from None


def text_of(option: str, path: str) -> str:
    """The text of a file, or of stdin for ``-``: all of it, or its end when it is longer than 1 MiB."""
    if path == "-":
        return _ending(_stdin(option)).decode(errors="replace")
    try:
        with open(path, "rb") as file:
            return _ending(file).decode(errors="replace")
    except OSError as error:
        raise click.UsageError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _ending(stream: Any) -> bytes:
    kept = b""
    while chunk := stream.read(MOST_BYTES):
        kept = (kept + chunk)[-MOST_BYTES:]
    return kept


def _stdin(option: str) -> Any:
    root = click.get_current_context().find_root()
    taken: dict[str, str] = root.meta
    if before := taken.get("orchclient.stdin"):
        raise click.UsageError(f"both {before} and {option} read stdin: give one of them otherwise")
    taken["orchclient.stdin"] = option
    if sys.stdin is None:
        raise click.UsageError(f"{option}: stdin is closed: there is nothing to read")
    if sys.stdin.isatty():
        remark(f"{option}: reading the terminal; end with Ctrl-D")
    return sys.stdin.buffer
