"""The JSON Schemas of the wire contract as functions: a batch of 500 events is checked in milliseconds.

A general validator takes a millisecond for one event. Only the keywords that the contract uses are known here; another
one is an error when the schema is loaded, so that no rule is passed over in silence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

Check = Callable[[Any], str]
"""What is wrong with a value, as ``.member: words``; empty when nothing is."""

_NOTES: Final = frozenset({"$schema", "$id", "title", "description", "$defs"})
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: type(value) is dict,
    "array": lambda value: type(value) is list,
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "null": lambda value: value is None,
    "number": lambda value: type(value) in (int, float),
    "integer": lambda value: type(value) is int or (type(value) is float and value.is_integer()),
}


@cache
def shape(name: str) -> Check:
    """The check of a schema of the package, such as ``task.status.v1.json``."""
    return compiled(document(name))


@cache
def document(name: str) -> dict[str, Any]:
    """A schema of the package as it stands in its file."""
    text = files("orchclient.core.schemas").joinpath(name).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def known_types() -> Mapping[str, Check]:
    """The types of events that an agent sends, with their prefix, and the check of their data."""
    rules = document("envelope.json")["allOf"]
    return {rule["if"]["properties"]["type"]["const"]: _data_check(rule["then"]) for rule in rules}


@cache
def envelope() -> Check:
    """The check of an outbound event's attributes, without its data."""
    return compiled({key: value for key, value in document("envelope.json").items() if key != "allOf"})


def pattern(definition: str) -> str:
    """The pattern of a shared definition, as Python reads it from the beginning to the end of a text."""
    found: str = document("common.json")["$defs"][definition]["pattern"]
    return found.removeprefix("^").removesuffix("$") + r"\Z"


def _data_check(rule: Mapping[str, Any]) -> Check:
    return compiled({"properties": rule["properties"]})


def compiled(schema: Mapping[str, Any]) -> Check:
    """One function for a schema. Raises ``ValueError`` for a keyword that is not known."""
    unknown = schema.keys() - _KEYWORDS.keys() - _NOTES - _PARTNERS
    if unknown:
        raise ValueError(f"this checker does not know the keyword {min(unknown)}")
    makers = dict.fromkeys(make for keyword, make in _KEYWORDS.items() if keyword in schema)
    checks = [make(schema) for make in makers]
    return checks[0] if len(checks) == 1 else _all(checks)


def _all(checks: list[Check]) -> Check:
    def check(value: Any) -> str:
        for each in checks:
            found = each(value)
            if found:
                return found
        return ""

    return check


_PLAIN: Final = {"object": dict, "array": list, "string": str, "boolean": bool}


def _type(schema: Mapping[str, Any]) -> Check:
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    tests = [_TYPES[name] for name in names]
    words = f": must be {' or '.join(names)}"
    if len(names) == 1 and (plain := _PLAIN.get(names[0])) is not None:
        return lambda value: "" if type(value) is plain else words
    if len(tests) == 1:
        test = tests[0]
        return lambda value: "" if test(value) else words
    return lambda value: "" if any(test(value) for test in tests) else words


def _const(schema: Mapping[str, Any]) -> Check:
    wanted = schema["const"]
    words = f": must be {json.dumps(wanted)}"
    return lambda value: "" if value == wanted and (type(value) is bool) == (type(wanted) is bool) else words


def _enum(schema: Mapping[str, Any]) -> Check:
    choices = schema["enum"]
    words = f": must be one of {', '.join(choices)}"
    return lambda value: "" if value in choices else words


def _text(schema: Mapping[str, Any]) -> Check:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 2**31)
    words = f": must have {least} to {most} characters"
    return lambda value: "" if type(value) is not str or least <= len(value) <= most else words


def _pattern(schema: Mapping[str, Any]) -> Check:
    # JSON Schema's $ is the end of the text; Python's also lets a line end follow.
    source = schema["pattern"]
    found = re.compile(source[:-1] + r"\Z" if source.endswith("$") else source).search
    return lambda value: "" if type(value) is not str or found(value) else f": must match {source}"


def _bounds(schema: Mapping[str, Any]) -> Check:
    least, most = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    words = f": must be from {least} to {most}"
    return lambda value: "" if type(value) not in (int, float) or least <= value <= most else words


def _required(schema: Mapping[str, Any]) -> Check:
    names = frozenset(schema["required"])

    def check(value: Any) -> str:
        if type(value) is not dict or names <= value.keys():
            return ""
        return f": has no {min(names - value.keys())}"

    return check


def _members(schema: Mapping[str, Any]) -> Check:
    known = {name: _member(name, each) for name, each in schema.get("properties", {}).items()}
    if "additionalProperties" not in schema and "propertyNames" not in schema:
        return _known_members(known)
    rest = compiled(schema["additionalProperties"]) if "additionalProperties" in schema else None
    names = compiled(schema["propertyNames"]) if "propertyNames" in schema else None

    def check(value: Any) -> str:
        if type(value) is not dict:
            return ""
        for name, member in value.items():
            each = known.get(name)
            if each is None:
                if names is not None and names(name):
                    return f".{name[:60]!r}{names(name)}"
                each = rest
            found = each(member) if each is not None else ""
            if found:
                return f".{name[:60]}{found}"
        return ""

    return check


def _known_members(known: Mapping[str, Check]) -> Check:
    """Only these are looked at, which are fewer than an event has."""
    pairs = tuple(known.items())

    def check(value: Any) -> str:
        if type(value) is not dict:
            return ""
        for name, each in pairs:
            if name in value and (found := each(value[name])):
                return f".{name}{found}"
        return ""

    return check


_NEVER_AGAIN: Final = frozenset({"id", "sequence", "time"})
_SHORT: Final = 64
_REMEMBERED: Final = 1024


def _member(name: str, schema: Mapping[str, Any]) -> Check:
    """The check of one member. Most texts come again in every event: those that were good are remembered."""
    check = compiled(schema)
    if name in _NEVER_AGAIN:
        return check
    good: set[str] = set()

    def remembering(value: Any) -> str:
        if type(value) is not str:
            return check(value)
        if value in good:
            return ""
        found = check(value)
        if not found and len(value) <= _SHORT:
            if len(good) >= _REMEMBERED:
                good.clear()
            good.add(value)
        return found

    return remembering


def _items(schema: Mapping[str, Any]) -> Check:
    least, most = schema.get("minItems", 0), schema.get("maxItems", 2**31)
    each = compiled(schema["items"]) if "items" in schema else None

    def check(value: Any) -> str:
        if type(value) is not list:
            return ""
        if not least <= len(value) <= most:
            return f": must have {least} to {most} entries"
        found = next(((n, words) for n, item in enumerate(value) if each and (words := each(item))), None)
        return f"[{found[0]}]{found[1]}" if found else ""

    return check


def _reference(schema: Mapping[str, Any]) -> Check:
    name, _, pointer = schema["$ref"].partition("#/$defs/")
    return _definition(name, pointer) if pointer else shape(name)


@cache
def _definition(name: str, pointer: str) -> Check:
    return compiled(document(name)["$defs"][pointer])


def _not(schema: Mapping[str, Any]) -> Check:
    refused = compiled(schema["not"])
    words = ": has a form that is not allowed"
    if schema["not"].keys() == {"pattern"}:
        found = re.compile(schema["not"]["pattern"]).search
        return lambda value: words if type(value) is str and found(value) else ""
    return lambda value: "" if refused(value) else words


def _every(schema: Mapping[str, Any]) -> Check:
    return _all([compiled(each) for each in schema["allOf"]])


def _any(schema: Mapping[str, Any]) -> Check:
    choices = [compiled(each) for each in schema["anyOf"]]
    return lambda value: "" if any(not choice(value) for choice in choices) else ": has none of the allowed forms"


def _conditional(schema: Mapping[str, Any]) -> Check:
    test = compiled(schema["if"])
    then = compiled(schema.get("then", {}))
    otherwise = compiled(schema.get("else", {}))
    return lambda value: otherwise(value) if test(value) else then(value)


_KEYWORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Check]]] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "minLength": _text,
    "maxLength": _text,
    "pattern": _pattern,
    "minimum": _bounds,
    "maximum": _bounds,
    "required": _required,
    "properties": _members,
    "propertyNames": _members,
    "additionalProperties": _members,
    "items": _items,
    "minItems": _items,
    "maxItems": _items,
    "$ref": _reference,
    "not": _not,
    "allOf": _every,
    "anyOf": _any,
    "if": _conditional,
}
_PARTNERS: Final = frozenset({"then", "else"})
