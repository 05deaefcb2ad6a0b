"""A page of the inbox: all of it or nothing, whatever the bytes are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchclient.core.inbox_page import Page, PageRefused, page_of


def page(**members: Any) -> bytes:
    return json.dumps({"items": [], "cursor": "c-1", "has_more": False} | members).encode()


def test_items_come_as_they_are_in_the_order_of_the_receiver() -> None:
    items = ({"id": "2"}, {"id": "1"}, "no event at all", None, 7)
    assert page_of(page(items=list(items), has_more=True)) == Page(items, "c-1", True)


def test_members_that_are_not_known_are_ignored() -> None:
    assert page_of(page(more="to come")) == Page((), "c-1")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"<!doctype html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (page()[:-1], "not JSON"),
        (b"[" * 100_000, "bytes|nested"),
        (b"[" * 30_000, "nested"),
        (b"[]", "not a JSON object"),
        (page(items=[float("nan")]), "not JSON"),
        (b'{"items": [1e999], "cursor": "c", "has_more": false}', "not JSON"),
        (page(items={}), "no list"),
        (page(items=[{}] * 101), "101 items, 100 at most"),
        (page(cursor=None), "no cursor"),
        (page(cursor=""), "no cursor"),
        (page(cursor="c" * 513), "no cursor"),
        (page(cursor=7), "no cursor"),
        (page(has_more=None), "has_more"),
        (page(has_more=1), "has_more"),
        (page(items=["x" * 70_000]), "bytes, 65536 at most"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else None,
)
def test_what_is_wrong_with_a_page_refuses_all_of_it(body: bytes, reason: str) -> None:
    with pytest.raises(PageRefused, match=reason):
        page_of(body)


def test_text_that_no_file_could_hold_is_replaced() -> None:
    found = page_of(b'{"items": ["\\ud800 and \\ud83d\\ude00"], "cursor": "c\\udfff", "has_more": false}')
    assert (found.items, found.cursor) == (("\ufffd and \U0001f600",), "c\ufffd")
