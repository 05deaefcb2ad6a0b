"""A page of the inbox as a value, read from bytes that nobody vouches for. Pure; what an item says is judged elsewhere.

Whatever is wrong with a page refuses all of it, so that no item is skipped; what is wrong with an item does not.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from attrs import field, frozen

from orchclient.core.jsontext import storable
from orchclient.core.limits import CURSOR_CHARS, PAGE_BYTES, PAGE_ITEMS


class PageRefused(ValueError):
    """Why a page counts as no answer, in our own words."""


@frozen
class Page:
    """Items in the receiver's order, each any JSON value, and the position after the last one."""

    items: tuple[Any, ...] = field(repr=False)
    cursor: str = field(repr=False)
    has_more: bool = False


def page_of(body: bytes) -> Page:
    """The page in an answer's body. Raises ``PageRefused``."""
    document = _document(body)
    items, cursor, has_more = (document.get(member) for member in ("items", "cursor", "has_more"))
    if not isinstance(items, list):
        raise PageRefused("the page has no list of items")
    if len(items) > PAGE_ITEMS:
        raise PageRefused(f"the page has {len(items)} items, {PAGE_ITEMS} at most")
    if not isinstance(cursor, str) or not 0 < len(cursor) <= CURSOR_CHARS:
        raise PageRefused(f"the page has no cursor of 1 to {CURSOR_CHARS} characters")
    if not isinstance(has_more, bool):
        raise PageRefused("the page does not say whether it has_more")
    return Page(tuple(items), cursor, has_more)


def _document(body: bytes) -> dict[str, Any]:
    if len(body) > PAGE_BYTES:
        raise PageRefused(f"the page has {len(body)} bytes, {PAGE_BYTES} at most")
    try:
        text = body.decode()
        if "\\ud" in text or "\\uD" in text:  # a lone half of a surrogate pair is no text that could be stored
            text = storable(json.dumps(json.loads(text), ensure_ascii=False))
        document = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise PageRefused("the page is nested too deeply") from None
    except ValueError:
        raise PageRefused("the page is not JSON") from None
    if not isinstance(document, dict):
        raise PageRefused("the page is not a JSON object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is beyond every number")
    return number
