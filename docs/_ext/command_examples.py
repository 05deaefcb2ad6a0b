"""The examples of a command's help as a block of code, which can be copied, in place of lines of prose."""

from __future__ import annotations

import re

import click
from sphinx.application import Sphinx

_LINE = re.compile(r"\| (?:Examples?:)?(.*)")


def as_code(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """``| Examples: orchclient status`` and the lines below it, by sphinx-click, as a block."""
    begins = next((number for number, line in enumerate(lines) if re.match(r"\| Examples?:", line)), None)
    if begins is None:
        return
    typed = [found[1] for line in lines[begins:] if (found := _LINE.match(line))]
    rest = [line for line in lines[begins:] if not _LINE.match(line)]
    margin = min(len(line) - len(line.lstrip()) for line in typed[1:]) if len(typed) > 1 else 0
    code = [typed[0].strip(), *(line[margin:] for line in typed[1:])]
    lines[begins:] = [".. code-block:: sh", "", *(f"   {line}" for line in code), "", *rest]


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("sphinx-click-process-description", as_code)
    return {"parallel_read_safe": True}
