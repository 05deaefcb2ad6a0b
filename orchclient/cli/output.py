"""How results look: exit codes, one JSON document, tables that fit the terminal, words for ages and sizes."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import click

from orchclient.cli.colour import styled
from orchclient.core.errors import OrchClientError


class ExitCode(IntEnum):
    """How a command ended; the same for every format of output."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    PENDING = 3
    DEAD = 4
    BUSY = 5
    REFUSED = 6
    OTHERWISE = 7
    EXPIRED = 8
    INTERRUPTED = 130


class Unwritable(OrchClientError):
    """The result could not be written to stdout."""


def json_document(value: Any) -> str:
    """The one document that a command prints with ``--json``."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), states: Sequence[int] = ()
) -> str:
    """Columns two spaces apart, numbers to the right, states in their colour; cut where the terminal ends."""
    lines = [list(map(printable, row)) for row in (headers, *rows)]
    widths = [max(columns(line[n]) for line in lines) for n in range(len(headers))]
    return "\n".join(_line(line, widths, right, states) for line in lines)


def fitting(headers: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[int]) -> list[int]:
    """The columns that a table shows: all, or without the first of those that can be spared until the rest fits."""
    lines = [list(map(printable, row)) for row in (headers, *rows)]
    widths = [max(columns(line[n]) + 2 for line in lines) for n in range(len(headers))]
    shown = list(range(len(headers)))
    for each in spare:
        if sum(widths[n] for n in shown) - 2 <= room():
            break
        shown.remove(each)
    return shown


def room() -> int:
    """How many columns there are."""
    return shutil.get_terminal_size((100, 24)).columns


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int], states: Sequence[int]) -> str:
    left, parts = room(), []
    for n, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        space = " " * (width - columns(cell))
        is_last = n == len(cells) - 1
        padded = cell if is_last else space + cell if n in right else cell + space
        shown = cut(padded, left)
        parts.append(styled(cell, shown) if n in states and cell in shown else shown)
        left -= columns(padded) + 2
        if left <= 0:
            break
    return "  ".join(parts).rstrip()


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, most: int) -> str:
    """A text in so many columns, with a mark where it was cut."""
    if columns(text) <= most:
        return text
    kept, left = [], most - 1
    for char in text:
        left -= _columns_of(char)
        if left < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if most > 0 else ""


def printable(text: str, keep: str = "") -> str:
    """Text of an agent or a server without what could steer a terminal, but for characters that are to stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "�" for char in text)


_AGES = ((86_400 * 2, 86_400, "d"), (3600 * 2, 3600, "h"), (120, 60, "min"), (0, 1, "s"))


def age(seconds: float | None) -> str:
    """A duration for people: ``4 s``, ``6 min``, ``3 h``, ``12 d``; ``-`` for none."""
    if seconds is None:
        return "-"
    _, unit, word = next(row for row in _AGES if seconds >= row[0] or row[0] == 0)
    return f"{max(seconds, 0) / unit:.0f} {word}"


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def number(count: int) -> str:
    """A count with thin groups of three."""
    return f"{count:,}".replace(",", " ")


def plural(count: int, word: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{number(count)} {word}{'' if count == 1 else 's'}"


def emit(value: Any, text: str, *, as_json: bool) -> None:
    """Print the result: the document, or the text for people."""
    with written():
        click.echo(json_document(value) if as_json else text)


@contextmanager
def written() -> Iterator[None]:
    """A block that writes the result to stdout. Raises ``Unwritable``, as when its disk is full."""
    try:
        yield
    except BrokenPipeError:  # its reader has enough
        raise
    except OSError as error:
        what = f"the result cannot be written to stdout: {error.strerror or error}; what was done stays done"
        raise Unwritable(what) from error
