"""10,000 items that are malformed, oversized, foreign, stale, repeated and reordered: none skipped, none believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchclient.core.judging import Asked, ItemVerdict
from orchclient.outbox import inbox
from tests.faults.fuzzed_inbox import poll_through

ITEMS = 10_000
SEEDS = 4


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_foreign_counts_and_no_item_is_skipped(tmp_path: Path, seed: int) -> None:
    broken, kinds = poll_through(tmp_path, ITEMS // SEEDS, seed)
    print(f"seed {seed}: {sum(kinds.values())} items, {dict(kinds)}")
    assert sum(kinds.values()) == ITEMS // SEEDS
    assert broken == []


def test_an_inbox_that_believes_every_answer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def believes(item: Any, asked: Asked | None, *, came_before: bool = False) -> ItemVerdict:
        return ItemVerdict.ACCEPTED if item.is_decision and not item.problem else ItemVerdict.TOLD

    monkeypatch.setattr(inbox, "judged", believes)
    broken, _ = poll_through(tmp_path, 500, 0)
    assert any("foreign" in law for law in broken)


def test_an_inbox_that_drops_what_it_cannot_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = inbox._received
    monkeypatch.setattr(
        inbox, "_received", lambda con, value, us: received(con, value, us) if isinstance(value, dict) else None
    )
    broken, _ = poll_through(tmp_path, 500, 0)
    assert any("skipped" in law for law in broken)


def test_an_inbox_that_moves_its_cursor_first_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next crash, or here: every third page, then loses its items."""
    stored, pages = inbox.store_page, iter(range(10**9))

    def moves_first(con: Any, sink: str, source: str, items: Any, cursor: str, now_us: int) -> Any:
        return stored(con, sink, source, [] if next(pages) % 3 == 0 else items, cursor, now_us)

    monkeypatch.setattr(inbox, "store_page", moves_first)
    broken, _ = poll_through(tmp_path, 500, 0)
    assert any("skipped" in law for law in broken)
