"""The delivery decision: what an answer means for the events that were sent. A pure function and one table.

Sources: the product's decision table (docs/wire.md, "What the client does with an answer"); Retry-After is RFC 9110,
section 10.2.3. Servers are not trusted: only ids that were in the request count, every text is escaped and cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

from attrs import evolve, field, frozen

from orchclient.core.http import HttpOutcome, HttpReply, NoReply
from orchclient.core.secret import Redact, as_it_is
from orchclient.core.timestamps import microseconds

RETRY_AFTER_CAP_S = 3600.0
TEXT_CAP = 200


class Action(StrEnum):
    """What to do with a batch after an attempt."""

    SETTLE = "settle"  # each event as ``Verdict.items`` says
    BACK_OFF = "back_off"  # the destination is in trouble: wait and send again, no attempt limit
    PAUSE = "pause"  # the destination refuses us: keep everything, probe seldom
    DISABLE = "disable"  # the destination is gone until it is configured again: keep everything
    BISECT = "bisect"  # one of these events is refused: find it
    HALVE = "halve"  # too large: send fewer and remember


class Fate(StrEnum):
    """What became of one event in an attempt."""

    DELIVERED = "delivered"
    DEAD = "dead"
    RETRY = "retry"
    CONFLICT = "conflict"  # the receiver holds another event under this source and sequence
    UNKNOWN = "unknown"  # not in the answer: not delivered


@frozen
class Item:
    """The fate of one event, with the receiver's code and text (printable ASCII, cut)."""

    fate: Fate
    reason: str = ""


@frozen
class Verdict:
    """The decision about one attempt. ``items`` has one entry for each event of the batch when settling."""

    action: Action
    reason: str = ""
    retry_after_s: float = 0.0
    items: Mapping[str, Item] = field(factory=dict)
    inbox_pending: int = 0
    takes_all: bool = False  # everything that was sent has arrived, so that nobody needs to look at each


def without_secrets(verdict: Verdict, redact: Redact) -> Verdict:
    """The verdict with ``redact`` applied to what it says; what it decides stays."""
    if verdict.takes_all:
        return verdict
    items = {
        id_: evolve(item, reason=redact(item.reason)) if item.reason else item for id_, item in verdict.items.items()
    }
    return evolve(verdict, reason=redact(verdict.reason), items=items)


def all_delivered(ids: Sequence[str], inbox_pending: int = 0) -> Verdict:
    """Everything has arrived, for destinations that answer for a batch as a whole."""
    return Verdict(Action.SETTLE, "accepted", 0.0, _Delivered(ids), inbox_pending, takes_all=True)


class _Delivered(Mapping[str, "Item"]):
    """The same fate for all, made out only for whoever asks: nobody does as a rule."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __getitem__(self, id_: str) -> Item:
        if id_ not in self._ids:
            raise KeyError(id_)
        return _DELIVERED

    def __repr__(self) -> str:
        return repr(dict(self))


_DELIVERED = Item(Fate.DELIVERED)


def complete(verdict: Verdict, ids: Sequence[str]) -> Verdict:
    """The verdict with a fate for each event that was sent, and for no other: a dialect may have forgotten some."""
    if verdict.takes_all or verdict.action is not Action.SETTLE or verdict.items.keys() == set(ids):
        return verdict
    return evolve(verdict, items={id_: verdict.items.get(id_, _MISSING) for id_ in ids})


_MISSING = Item(Fate.UNKNOWN, "nothing was said of it")


_BY_STATUS: dict[int, Action] = {
    408: Action.BACK_OFF,
    425: Action.BACK_OFF,
    429: Action.BACK_OFF,
    401: Action.PAUSE,
    403: Action.PAUSE,
    404: Action.PAUSE,
    405: Action.PAUSE,
    407: Action.PAUSE,
    410: Action.DISABLE,
    413: Action.HALVE,
    501: Action.BISECT,
    505: Action.BISECT,
}
_BY_CLASS: dict[int, Action] = {
    1: Action.BACK_OFF,
    2: Action.SETTLE,
    3: Action.PAUSE,
    4: Action.BISECT,
    5: Action.BACK_OFF,
}
_FATES = {"accepted": Fate.DELIVERED, "duplicate": Fate.DELIVERED, "rejected": Fate.DEAD, "retry": Fate.RETRY}


def action_for(status: int) -> Action:
    """The row of the decision table for an HTTP status; a status that is none means trouble at the other end."""
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Action.BACK_OFF)


def decide(outcome: HttpOutcome, ids: Sequence[str], now_us: int, redact: Redact = as_it_is) -> Verdict:
    """What an orchestrator's answer means for the events ``ids`` that were sent, in their order.

    ``redact`` takes secrets out of what the receiver says, before it is cut: half a secret would not be recognised.
    """
    if isinstance(outcome, NoReply):
        # A request that cannot be put on the wire will not be better in a second: somebody has to mend the settings.
        action = Action.PAUSE if outcome.reason == "request" else Action.BACK_OFF
        return Verdict(action, f"{outcome.reason}: {outcome.detail}".rstrip(": "))
    action = action_for(outcome.status)
    if action is Action.SETTLE:
        return _settled(outcome, ids, redact)
    wait_s = _asked_wait_s(outcome, now_us) if action is Action.BACK_OFF else 0.0
    return Verdict(action, _refusal(outcome, redact), wait_s)


def _settled(reply: HttpReply, ids: Sequence[str], redact: Redact) -> Verdict:
    document = _json_object(reply.body)
    if document is None and not _says_plainly_ok(reply):
        return Verdict(Action.BACK_OFF, f"HTTP {reply.status} with an answer that is not a JSON object")
    results = (document or {}).get("results")
    if results is None:
        return all_delivered(ids)
    return answered(results, ids, _inbox_pending(document), redact)


def answered(results: Any, ids: Sequence[str], inbox_pending: int = 0, redact: Redact = as_it_is) -> Verdict:
    """What results (``[{"id", "status", "code", "detail"}, ...]``) mean for the events ``ids`` that were sent."""
    found = _items(results, frozenset(ids), redact) if isinstance(results, list) else {}
    if not found:
        return Verdict(Action.BACK_OFF, "the answer's results name none of the events sent")
    missing = Item(Fate.UNKNOWN, "missing from the answer's results")
    items = {id_: found.get(id_, missing) for id_ in ids}
    return Verdict(Action.SETTLE, "answered per event", items=items, inbox_pending=inbox_pending)


def _says_plainly_ok(reply: HttpReply) -> bool:
    """Whether a 2xx that is no JSON can be believed: empty or plain text, but not a captive portal's page."""
    body = reply.body.strip()
    return not body or (reply.headers.get("content-type", "").startswith("text/plain") and body[:1] not in b"<[{")


def _items(results: list[Any], asked: frozenset[str], redact: Redact) -> dict[str, Item]:
    """Fates by id, for ids that were asked about; the first entry of an id counts."""
    items: dict[str, Item] = {}
    for result in results[: 4 * len(asked) + 16]:
        if not isinstance(result, dict):
            continue
        id_, status = result.get("id"), result.get("status")
        if isinstance(id_, str) and id_ in asked and isinstance(status, str) and status in _FATES:
            items.setdefault(id_, Item(_fate(status, result.get("code")), _reason(result, redact)))
    return items


def _fate(status: str, code: object) -> Fate:
    return Fate.CONFLICT if status == "rejected" and code == "sequence_conflict" else _FATES[status]


def _reason(result: Mapping[str, Any], redact: Redact) -> str:
    return _said((result.get("code"), result.get("detail")), redact)


def _said(parts: Iterable[object], redact: Redact) -> str:
    return ": ".join(printable(redact(part)) for part in parts if isinstance(part, str) and part)


def _inbox_pending(document: Mapping[str, Any] | None) -> int:
    inbox = document.get("inbox") if document else None
    pending = inbox.get("pending") if isinstance(inbox, dict) else None
    return pending if isinstance(pending, int) and 0 <= pending < 2**31 else 0


def _refusal(reply: HttpReply, redact: Redact) -> str:
    """The status and what the receiver says of it (RFC 9457: title and detail), as one printable line."""
    problem = _json_object(reply.body) or {}
    said = _said((problem.get("title"), problem.get("detail")), redact)
    return f"HTTP {reply.status}" + (f" {said}" if said else "")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def printable(text: str, cap: int = TEXT_CAP) -> str:
    """Text from outside as printable ASCII of at most ``cap`` characters: safe in a log, a table and a terminal."""
    escaped = ascii(text[:cap])[1:-1]
    return escaped if len(escaped) <= cap else escaped[: cap - 3] + "..."


def _asked_wait_s(reply: HttpReply, now_us: int) -> float:
    """How long the receiver asks to wait; an instant is seen by the receiver's own clock, when the reply tells it."""
    asked = reply.headers.get("retry-after")
    if asked is None:
        return 0.0
    with suppress(KeyError, TypeError, ValueError, OverflowError, IndexError):
        now_us = _instant_us(reply.headers["date"])
    return retry_after_s(asked, now_us)


def retry_after_s(value: str | None, now_us: int) -> float:
    """Seconds of a Retry-After header (a number or an HTTP date), clamped to 0 to 3600; 0 when it is unusable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_CAP_S)
    try:
        seconds = float(text) if text.replace(".", "", 1).isdigit() else _seconds_until(text, now_us)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0
    return bounded_wait_s(seconds)


def bounded_wait_s(asked_s: float) -> float:
    """Seconds that a dialect wants to wait, within what any receiver may ask for; 0 for what is no number."""
    return min(max(0.0, asked_s), RETRY_AFTER_CAP_S)  # in this order NaN becomes 0


def _seconds_until(http_date: str, now_us: int) -> float:
    return (_instant_us(http_date) - now_us) / 1e6


def _instant_us(http_date: str) -> int:
    from email.utils import parsedate_to_datetime  # a heavy module for a rare header

    moment = parsedate_to_datetime(http_date)
    if moment.tzinfo is None:
        raise ValueError("a date without a zone")
    return microseconds(moment)
