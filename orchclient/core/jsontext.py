"""JSON text of whatever an agent passes, or an ``InvalidEvent`` that names the place inside it.

The C encoder does the work; dates, paths, UUIDs and enums are turned by a table when it meets one, attrs classes
and dataclasses by cattrs, which is imported at that moment and not before.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any

from orchclient.core.errors import InvalidEvent

_SCALARS: dict[type, Callable[[Any], Any]] = {
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: timedelta.total_seconds,
    Decimal: str,
    set: list,
    frozenset: list,
}
_FAMILIES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Enum, lambda member: member.value),
    (PurePath, str),
    (Mapping, dict),
    *_SCALARS.items(),
)


def _plain(value: Any) -> Any:
    """The encoder's question about a value it does not know."""
    uuid = sys.modules.get("uuid")  # who has a UUID has imported it; importing it for all takes 6 ms
    if uuid is not None and isinstance(value, uuid.UUID):
        return str(value)
    direct = _SCALARS.get(type(value))
    if direct:
        return direct(value)
    for family, convert in _FAMILIES:
        if isinstance(value, family):
            return convert(value)
    if hasattr(type(value), "__attrs_attrs__") or hasattr(type(value), "__dataclass_fields__"):
        return _converter().unstructure(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _converter() -> Any:
    from cattrs import Converter  # 50 ms: only for agents that pass classes

    return Converter(unstruct_collection_overrides={})


_CIRCULAR_IS_TOO_DEEP = None  # no table of visited containers: a circle ends in RecursionError
_make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
_quote: Any = json.encoder.encode_basestring


def _encoder() -> Callable[[Any], str]:
    """The standard encoder, made once: ``json.dumps`` makes one at every call, a third of its price for an event."""
    if _make_encoder is None:
        return json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain).encode
    chunks = _make_encoder(_CIRCULAR_IS_TOO_DEEP, _plain, _quote, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


encode: Callable[[Any], str] = _encoder()
"""Compact JSON text of plain values; raises ``ValueError``, ``TypeError`` or ``RecursionError`` for others."""

quote: Callable[[str], str] = _quote
"""The JSON text of one string."""


def json_text(members: Mapping[str, Any]) -> str:
    """JSON text of an event's data, whose members are the arguments of the verb.

    Lone surrogates (undecodable file names, broken text) become U+FFFD, since no receiver could read them. Raises
    ``InvalidEvent`` with the argument and the JSON path of the first value that has no JSON form, or of an object in
    which two keys become one name.
    """
    try:
        text = encode(members)
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid(members, error) from None
    for argument, value in members.items():
        if type(value) in _CONTAINERS:
            _refuse_doubled_names(argument, value, "$")
    return storable(text)


_CONTAINERS = frozenset({dict, list, tuple})
_TEXT_ONLY = {str}


def _refuse_doubled_names(argument: str, value: Any, path: str) -> None:
    """An object may have a name once (docs/wire.md); in Python ``1`` and ``"1"`` are two keys, in JSON one name."""
    is_object = type(value) is dict
    if is_object and not _TEXT_ONLY.issuperset(map(type, value)):
        names = Counter(name if isinstance(name, str) else encode(name) for name in value)
        doubled = [name for name, count in names.items() if count > 1]
        if doubled:
            raise InvalidEvent(argument, f"has two keys that are both {doubled[0]!r:.60} as text: rename one", path)
    for key, item in value.items() if is_object else enumerate(value):
        if type(item) in _CONTAINERS:
            _refuse_doubled_names(argument, item, f"{path}.{key}" if is_object else f"{path}[{key}]")


def object_text(argument: str, value: Mapping[str, Any]) -> str:
    """JSON text of one argument's object, as it stands inside the text of more; surrogates are left to that.

    Raises ``InvalidEvent`` as ``json_text`` does.
    """
    try:
        text = encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid({argument: value}, error) from None
    if type(value) in _CONTAINERS:
        _refuse_doubled_names(argument, value, "$")
    return text


def members_text(members: Mapping[str, Any]) -> str:
    """The members as they stand behind others in an object: ``,"a":1,"b":2``. Raises ``InvalidEvent``."""
    return f",{json_text(members)[1:-1]}" if members else ""


def storable(text: str) -> str:
    """JSON text without lone surrogates."""
    return text if text.isascii() else _without_surrogates(text)


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _invalid(members: Mapping[str, Any], error: Exception) -> InvalidEvent:
    for argument, value in members.items():
        found = _first_problem(value, "$", 0)
        if found:
            return InvalidEvent(argument, found[1], found[0])
    return InvalidEvent(next(iter(members), "data"), f"cannot be stored as JSON: {error}")


_MAX_DEPTH = 200


def _first_problem(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    """Path and description of the first value below ``value`` that has no JSON form."""
    if depth > _MAX_DEPTH:
        return path[:200], f"is nested deeper than {_MAX_DEPTH} levels, or contains itself"
    if isinstance(value, dict):
        return _first_problem_in_object(value, path, depth)
    if isinstance(value, list | tuple):
        return _first_of(_first_problem(item, f"{path}[{n}]", depth + 1) for n, item in enumerate(value))
    return _scalar_problem(value, path, depth)


def _first_problem_in_object(value: dict[Any, Any], path: str, depth: int) -> tuple[str, str] | None:
    for key in value:
        if not isinstance(key, str | int | float | bool | None):
            return path, f"has a key of type {type(key).__name__}: JSON keys are text"
    return _first_of(_first_problem(item, f"{path}.{key}", depth + 1) for key, item in value.items())


def _first_of(problems: Any) -> tuple[str, str] | None:
    return next((problem for problem in problems if problem), None)


def _scalar_problem(value: Any, path: str, depth: int) -> tuple[str, str] | None:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return path, f"is {value}: JSON has no such number; use None or text"
    if isinstance(value, bytes | bytearray | memoryview):
        return path, f"is {type(value).__name__}: decode it to text or encode it as base64 first"
    try:
        encode(value)
    except TypeError as error:
        return path, f"{error}; use text, numbers, lists, dicts, dates, paths, enums, UUIDs or attrs classes"
    except (ValueError, RecursionError) as error:
        return path, f"cannot be stored as JSON: {error}"
    return None
