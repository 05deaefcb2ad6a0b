"""The examples in docstrings as code: an indented paragraph between others, which Sphinx would take for a quotation.

And the dash behind an argument's name, which smart quotes would make. They are off: they spoil options such as --help.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_OPENERS = (":", ".. ", "- ", "* ")


def as_code(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put ``::`` before each."""
    number = 2
    while number < len(lines):
        before, blank, here = lines[number - 2 : number + 1]
        is_text = before.strip() and not before.startswith((" ", *_OPENERS)) and not before.endswith("::")
        if here.startswith("    ") and not blank.strip() and is_text and not _is_in_field(lines, number):
            lines[number:number] = ["::", ""]
            number += 2
        number += 1


def _is_in_field(lines: list[str], number: int) -> bool:
    """Whether the paragraph above belongs to ``:param x:`` or to a list."""
    paragraph = number - 2
    while paragraph and lines[paragraph - 1].strip():
        paragraph -= 1
    return lines[paragraph].startswith(_OPENERS)


def dashed(app: Sphinx, tree: nodes.document) -> None:
    """Make `` -- ``, which Sphinx writes behind an argument, one dash."""
    for text in list(tree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", dashed)
    app.connect("autodoc-process-docstring", as_code)
    return {"parallel_read_safe": True}
