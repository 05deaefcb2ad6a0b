"""What a command prints with ``--json`` against the schema that is published for it, member by member."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from orchclient.cli.app import _COMMANDS

FILES = files("orchclient.cli.schemas")


def schema(name: str) -> dict[str, Any]:
    """A published schema."""
    found: dict[str, Any] = json.loads(FILES.joinpath(f"{name}.json").read_text())
    return found


def strict(part: Any) -> Any:
    """The same, refusing members that are not described: a document must not say more than is published."""
    if isinstance(part, list):
        return [strict(each) for each in part]
    if not isinstance(part, dict):
        return part
    made = {name: strict(value) for name, value in part.items()}
    if isinstance(part.get("properties"), dict) and "required" in part:
        made.setdefault("additionalProperties", False)
    return made


@cache
def validator(command: str) -> Draft202012Validator | None:
    """What holds a command's documents against its schema; None for a command that publishes none."""
    if not FILES.joinpath(f"{command}.json").is_file():
        return None
    common = strict(schema("common"))
    registry = Registry().with_resource("common.json", Resource.from_contents(common))
    registry = registry.with_resource(common["$id"], Resource.from_contents(common))
    whole = {name: value for name, value in strict(schema(command)).items() if name != "$id"}
    return Draft202012Validator(whole, registry=registry)


def complaints(arguments: tuple[str, ...], document: Any) -> list[str]:
    """What is wrong with the document of a command that was typed so."""
    command = next((word for word in arguments if word in _COMMANDS), "")
    found = validator(command) if command else None
    if found is None:
        return []
    return [_deepest(error) for error in found.iter_errors(document)]


def _deepest(error: Any) -> str:
    """The complaint about the form that fits best; the others say nothing of use."""
    inner = min(error.context, key=lambda each: (len(each.context), -len(each.absolute_path)), default=error)
    return f"{'/'.join(map(str, inner.absolute_path)) or '.'}: {inner.message[:200]}"
