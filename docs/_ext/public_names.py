"""Links from signatures to what is documented, and no signature for what an agent never makes itself.

A class is made in one module and public under another name; an annotation may be a text that Sphinx cannot evaluate.
Its last word leads to what is documented under that word: of two, to the one with the shorter name.
"""

from __future__ import annotations

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from orchclient.core import message, noise, source_report, telling
from orchclient.sinks import sink

MADE_BY_THE_CLIENT = frozenset(
    {"Task", "Clarification", "Completion", "Review", "Escalation", "Transaction", "OwnStatements"}
    | {"Fault", "SeenRequest", "Shown", "Seen"}
)
"""Handles and what tests are shown: how they are constructed is nobody's business."""


# Imported there for type checkers only; there are two classes of the name Message, so a guess would be wrong.
for _named in (message.Message, noise.NoiseRules, source_report.SourceReport, telling.Told):
    setattr(sink, _named.__name__, _named)


def resolved(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """The link to what is documented under the last word of a name, if anything is."""
    if node.get("refdomain") != "py":
        return None
    word = node.get("reftarget", "").rpartition(".")[2]
    domain = env.domains.python_domain
    found = sorted((name for name in domain.objects if name.rpartition(".")[2] == word), key=lambda name: len(name))
    if not word or not found:
        return None
    # "obj" finds data as well: a type alias is documented as such
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)


def without_constructor(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Nothing in the parentheses of a class that the client makes."""
    is_handle = what == "class" and name.rpartition(".")[2] in MADE_BY_THE_CLIENT
    return ("", None) if is_handle else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Found by Sphinx."""
    app.connect("missing-reference", resolved)
    app.connect("autodoc-process-signature", without_constructor)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
