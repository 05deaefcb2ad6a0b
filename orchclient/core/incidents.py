"""Errors that are one trouble: which one came first, how many there were. Pure.

Errors of a task with one ``dedup_key`` are one incident until it is resolved; the next one with the key opens another.
"""

from __future__ import annotations

from attrs import evolve, frozen

from orchclient.core.events import EventType
from orchclient.core.ids import checked_id
from orchclient.core.jsontext import members_text
from orchclient.core.limits import REASON_CHARS
from orchclient.core.verbs import Draft, checked_text


@frozen
class Incident:
    """A trouble of a task, by its errors so far. ``key`` is None for an error that has none."""

    task: str
    key: str | None
    first_id: str
    last_id: str
    count: int = 1

    def repeated(self, event_id: str) -> Incident:
        """After one more error."""
        return evolve(self, last_id=event_id, count=self.count + 1)

    @property
    def members(self) -> str:
        """What its newest error tells of it, behind its own members: nothing when it is the first."""
        if self.count == 1:
            return ""
        return members_text({"count": self.count, "first_id": self.first_id})


def resolution(incident: Incident, note: str | None) -> Draft:
    """The incident is over."""
    data: dict[str, object] = {"error_id": incident.first_id, "count": incident.count}
    if incident.key is not None:
        data["dedup_key"] = incident.key
    if note is not None:
        data["note"] = checked_text("note", note, REASON_CHARS)
    return Draft(EventType.ERROR_RESOLVED, incident.task, members_text(data))


def checked_key(key: str) -> str:
    """The key of an incident."""
    return checked_id("dedup_key", key)
