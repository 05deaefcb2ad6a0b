"""``schemas``: the JSON Schemas of the wire contract as tables, rendered from the files that the package ships."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Schema = Mapping[str, Any]


def shipped() -> dict[str, Schema]:
    """Every schema by its file's name."""
    found = files("orchclient.core.schemas").iterdir()
    return {file.name: json.loads(file.read_text("utf-8")) for file in found if file.name.endswith(".json")}


_COMMON: Schema = shipped()["common.json"]["$defs"]


def table_of(name: str, schema: Schema) -> list[str]:
    """A schema as Markdown: what it is, and a row for each member, those of objects inside with their path."""
    lines = [f"(schema-{name})=", f"### {name}", "", schema.get("description", ""), ""]
    rows = list(definitions(schema)) if "$defs" in schema else list(members(schema))
    if rows:
        head = ("definition", "form", "meaning") if "$defs" in schema else ("member", "form", "meaning")
        lines += [f"| {' | '.join(head)} |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def definitions(schema: Schema) -> Iterator[tuple[str, str, str]]:
    """A row for each definition that others refer to."""
    for name, each in schema["$defs"].items():
        yield f"`{name}`", form_of(each), each.get("description", "")


def members(schema: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """A row for each member, bold when it must be there."""
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        label = f"**`{path}{name}`**" if name in required else f"`{path}{name}`"
        yield label, form_of(each), each.get("description") or meaning_of(each)
        inner, step = (each["items"], f"{name}[].") if isinstance(each.get("items"), Mapping) else (each, f"{name}.")
        yield from members(inner, path + step)


def meaning_of(each: Schema) -> str:
    """What the shared definition says that a value refers to."""
    name = each.get("$ref", "").partition("#/$defs/")[2]
    return str(_COMMON.get(name, {}).get("description", "")) if name else ""


def form_of(each: Schema) -> str:
    """What a value may be, in a few words."""
    if "$ref" in each:
        file, _, definition = each["$ref"].rpartition("#/$defs/")
        name = file or each["$ref"]
        base = f"[{definition or name}](#schema-{name})" if name else f"`{definition}`"
    elif "const" in each:
        base = f"`{json.dumps(each['const'])}`"
    elif "enum" in each:
        base = ", ".join(f"`{value}`" for value in each["enum"])
    else:
        kind = each.get("type", "any")
        base = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return "; ".join([base, *bounds(each)])


_BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minimum": "from {}",
    "maximum": "to {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


def bounds(each: Schema) -> list[str]:
    """The limits of a value, in words."""
    return [words.format(each[name]) for name, words in _BOUNDS.items() if name in each]


class Schemas(SphinxDirective):
    """All schemas, those of events first."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """The tables, read as Markdown."""
        lines = [line for name, schema in sorted(shipped().items()) for line in table_of(name, schema)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Found by Sphinx."""
    app.add_directive("schemas", Schemas)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
