"""What an inbox item means for what this outbox asked. Pure: the item and what is known go in, a verdict comes out.

The first valid answer settles a request; whatever comes then is late. An answer for something else than what was asked
is stale, whoever gave it, and never an approval. A timeout is never a person's "no".
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from orchclient.core.inbox_items import SEEN, InboxItem


class RequestKind(StrEnum):
    """What a person is asked for."""

    QUESTION = "question"
    REVIEW = "review"


class RequestState(StrEnum):
    """Where a request stands. From ``answered`` on it is settled, and changes no more."""

    OPEN = "open"
    SEEN = "seen"  # a person opened it
    ANSWERED = "answered"
    DECLINED = "declined"  # a person does not want to decide; not a no
    EXPIRED = "expired"  # nobody decided in time
    WITHDRAWN = "withdrawn"  # the agent needs no answer any more

    @property
    def is_open(self) -> bool:
        """Whether an answer would still settle it."""
        return self in (RequestState.OPEN, RequestState.SEEN)


class ItemVerdict(StrEnum):
    """What became of one item. All are kept and acknowledged."""

    ACCEPTED = "accepted"  # it settled its request
    SEEN = "seen"
    TOLD = "told"  # a word to the agent that nobody asked for
    LATE = "late"  # its request was settled, or withdrawn, before
    STALE = "stale"  # for other content than was asked
    REPEAT = "repeat"  # the same answer came before, in another item
    FOREIGN = "foreign"  # nothing of the kind was asked here
    UNREADABLE = "unreadable"  # breaks its schema
    UNKNOWN = "unknown"  # of a type that this client does not know


@frozen
class Asked:
    """What is known of a request when an item about it comes."""

    id: str
    kind: RequestKind
    task: str
    digest: str  # of what was asked; empty for a review
    state: RequestState


_KINDS = {"clarification.answered.v1": RequestKind.QUESTION, "review.decided.v1": RequestKind.REVIEW}
_SETTLES = {"declined": RequestState.DECLINED, "expired": RequestState.EXPIRED}


def judged(item: InboxItem, asked: Asked | None, *, came_before: bool = False) -> ItemVerdict:
    """The verdict on an item that is new. ``came_before``: its answer came before, in an item that counted."""
    if item.problem:
        return ItemVerdict.UNREADABLE
    if not item.is_known:
        return ItemVerdict.UNKNOWN
    if item.type == SEEN:
        return ItemVerdict.SEEN if _is_about(item, asked, RequestKind.QUESTION) else ItemVerdict.FOREIGN
    if not item.is_decision:
        return ItemVerdict.TOLD
    if not _is_about(item, asked, _KINDS[item.type]) or asked is None:
        return ItemVerdict.FOREIGN
    if came_before:
        return ItemVerdict.REPEAT
    if asked.kind is RequestKind.QUESTION and item.data["content_digest"] != asked.digest:
        return ItemVerdict.STALE
    is_late = bool(item.data.get("late")) or not asked.state.is_open
    return ItemVerdict.LATE if is_late else ItemVerdict.ACCEPTED


def _is_about(item: InboxItem, asked: Asked | None, kind: RequestKind) -> bool:
    return asked is not None and asked.id == item.request_id and asked.task == item.task and asked.kind is kind


def settled_state(outcome: str) -> RequestState:
    """Where a request stands after a decision."""
    return _SETTLES.get(outcome, RequestState.ANSWERED)
