"""A person sets an error aside: it is off the list of what needs people, until it happens again.

Its agent may be gone, and then nobody else would ever end it. Who did it stands with the error, and in the history of
its task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen
from sqlalchemy.orm import Session

from orchclient.server.bulk import insert_new, json_column
from orchclient.server.mirror import Mirror
from orchclient.server.models import Incident, Log, Task

FROM_PEOPLE: Final = 2**53
"""Lines of the trail that no event tells stand behind every sequence that the wire contract allows."""


@frozen
class Dismissal:
    """Which error, who set it aside, and why."""

    task_id: str
    incident_id: str
    responder: Mapping[str, Any]
    reason: str | None = None
    channel: str | None = None


def dismiss(session: Session, said: Dismissal, mirror: Mirror | None, now_us: int) -> bool:
    """Set an error aside if it is open; false when there is none of that name."""
    found = session.get(Incident, (said.task_id, said.incident_id), with_for_update=True)
    if found is None or not found.error_type:
        return False
    if found.state == "open":
        found.state, found.dismissed_us, found.dismissed_by = "dismissed", now_us, dict(said.responder)
        session.flush()
        _note(session, found, said, mirror, now_us)
    return True


def _note(session: Session, incident: Incident, said: Dismissal, mirror: Mirror | None, now_us: int) -> None:
    task = session.get(Task, said.task_id)
    if task is None:
        return
    who = str(said.responder.get("display") or said.responder.get("id"))
    words = f"{who} set {incident.error_type} aside" + (f": {said.reason}" if said.reason else "")
    told = {"error_id": incident.id, "responder": said.responder, "reason": said.reason, "channel": said.channel}
    metadata = json_column({name: value for name, value in told.items() if value is not None})
    place = (task.source_id, FROM_PEOPLE + now_us)
    line = (*place, task.task_id, incident.agent_id, "info", words, metadata, now_us, now_us)
    insert_new(session, Log, [line])
    if mirror is not None:
        mirror.reflect(session, [], [line])
