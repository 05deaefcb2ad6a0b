"""Incidents: errors that are one trouble, from the first call for help until it is over."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchclient.server.bulk import insert_new
from orchclient.server.models import Incident
from orchclient.server.reading import Arrival


def escalated(session: Session, event: Arrival) -> None:
    """An agent calls for help: a new incident, or one more error of one that is known."""
    data = event.data
    found = _of(session, event)
    if found is None:
        words = (data["error_type"], data["error_message"], data["priority"], data["fatal"])
        row = (event.task, data.get("first_id", event.id), data.get("dedup_key"), event.agent, *words)
        insert_new(session, Incident, [(*row, data.get("count", 1), "open", event.time_us, event.time_us, *_UNTOLD)])
        return
    found.count = max(found.count, data.get("count", found.count + 1)) if found.error_type else found.count
    found.first_us = min(found.first_us, event.time_us)
    if event.time_us >= found.last_us or not found.error_type:
        found.error_type, found.error_message, found.agent_id = data["error_type"], data["error_message"], event.agent
        found.priority, found.fatal, found.key = data["priority"], data["fatal"], data.get("dedup_key")
        found.last_us = max(found.last_us, event.time_us)
        if found.state == "dismissed":  # it happened again: people are asked again
            found.state, found.dismissed_us, found.dismissed_by = "open", None, None
    session.flush()


_UNTOLD: Final = (None, None, None)
"""Of a new incident: how it ended, and who set it aside when."""


def resolved(session: Session, event: Arrival) -> None:
    """It is over. The word may come before the errors: then it waits for them."""
    data = event.data
    nothing = (event.agent, "", "", event.priority, False, data["count"], "open", event.time_us, event.time_us)
    insert_new(session, Incident, [(event.task, data["error_id"], data.get("dedup_key"), *nothing, *_UNTOLD)])
    found = session.get_one(Incident, (event.task, data["error_id"]), with_for_update=True)
    found.state, found.note, found.count = "resolved", data.get("note"), max(found.count, data["count"])
    found.last_us = max(found.last_us, event.time_us)
    session.flush()


def _of(session: Session, event: Arrival) -> Incident | None:
    """The incident that an error belongs to: by its first error, else the one with its key that is not over."""
    data = event.data
    first, key = data.get("first_id", event.id), data.get("dedup_key")
    found = session.get(Incident, (event.task, first), with_for_update=True)
    if found is not None or "first_id" in data or key is None:
        return found
    same = select(Incident).where(Incident.task_id == event.task, Incident.key == key, Incident.state != "resolved")
    return session.scalars(same.with_for_update()).first()
