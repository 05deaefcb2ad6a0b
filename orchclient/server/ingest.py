"""Takes a batch of events in: one transaction, in which every event is stored once and everything it changes changes.

Must not know HTTP. The caller commits, and answers only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from attrs import define, field, frozen
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from orchclient.core.events import EventType
from orchclient.core.ranges import Range
from orchclient.server import inbox, incidents, questions, spans
from orchclient.server.access import Forbidden
from orchclient.server.bulk import Repeated, add, insert_new, upsert
from orchclient.server.folding import TaskFold, changes_a_task, log_row, tells_of_a_task
from orchclient.server.inbox import Item
from orchclient.server.mirror import Mirror
from orchclient.server.models import Agent, Event, Log, Source, Task
from orchclient.server.reading import Arrival, Spoiled


class Result(NamedTuple):
    """What is answered for one event."""

    id: str
    status: str
    code: str = ""
    detail: str = ""

    def members(self) -> dict[str, str]:
        """As the wire wants it."""
        if not self.code:
            return {"id": self.id, "status": self.status}
        detail = {"detail": self.detail} if self.detail else {}
        return {"id": self.id, "status": self.status, "code": self.code, **detail}


@frozen
class Taken:
    """The answer to a batch, and the sources into whose inbox something was put."""

    results: Sequence[Result]
    pending: int = 0
    rung: set[int] = field(factory=set)


class Repeats(Exception):
    """Something of the batch is stored already: take it in again, carefully."""


@frozen
class Origin:
    """Who sends, and how this orchestrator calls itself."""

    owner: str | None = None
    url: str = "urn:orchclient:orchestrator"
    mirror: Mirror | None = None


def ingest(
    session: Session, batch: Sequence[Arrival | Spoiled], origin: Origin, now_us: int, *, careful: bool = False
) -> Taken:
    """Take a batch in. Nothing is committed here.

    Raises ``Forbidden`` when a source belongs to another credential, and ``Repeats`` when not ``careful`` and an event
    turns out to be stored already: roll back then, and call again with ``careful``.
    """
    arrivals = [event for event in batch if isinstance(event, Arrival)]
    sources = _locked_sources(session, arrivals, origin.owner, now_us)
    careful = careful or _may_repeat(arrivals, sources)
    results = _judged(session, batch, sources) if careful else [_spoken_for(event) for event in batch]
    fresh = _fresh(batch, results)
    write = insert_new if careful else add
    try:
        write(session, Event, [_event_row(event, sources[event.source], now_us) for event in fresh])
        items = _applied(session, fresh, sources, origin, now_us, write)
    except Repeated as error:
        raise Repeats from error
    rung = inbox.put(session, items, origin.url, now_us)
    waiting = inbox.pending(session, sorted(source.id for source in sources.values()))
    return Taken(results, waiting, rung)


# --- Sources ------------------------------------------------------------------------------------------------------


@define
class SourceRow:
    """A source while its events are taken in."""

    id: int
    name: str
    owner: str | None
    highest: int


_SOURCE: Final = (
    select(*(Source.__table__.c[name] for name in ("id", "name", "owner", "highest")))
    .where(Source.name == bindparam("wanted"))
    .with_for_update()
)
_SEEN: Final = (
    update(Source.__table__)  # type: ignore[arg-type]
    .where(Source.id == bindparam("source"))
    .values(owner=bindparam("its_owner"), highest=bindparam("reached"), last_seen_us=bindparam("now_us"))
)


def _locked_sources(
    session: Session, arrivals: Iterable[Arrival], owner: str | None, now_us: int
) -> dict[str, SourceRow]:
    """The rows of the sources, locked: what comes of one source comes one after the other."""
    names = sorted({event.source for event in arrivals})
    return {name: locked_source(session, name, owner, now_us) for name in names}


def locked_source(session: Session, name: str, owner: str | None, now_us: int) -> SourceRow:
    """The row of a source, made if it is new, bound to the credential that uses it first. Raises ``Forbidden``."""
    connection = session.connection()
    row = connection.execute(_SOURCE, {"wanted": name}).one_or_none()
    if row is None:
        known = {"name": name, "owner": owner, "highest": 0, "first_seen_us": now_us, "last_seen_us": now_us}
        _insert_source(session, known)
        row = connection.execute(_SOURCE, {"wanted": name}).one()
    found = SourceRow(*row)
    if found.owner is None and owner is not None:
        found.owner = owner
        _seen(session, found, now_us)
    if found.owner is not None and found.owner != owner:
        raise Forbidden(f"the source {name} belongs to another credential")
    return found


def _seen(session: Session, source: SourceRow, now_us: int) -> None:
    values = {"source": source.id, "its_owner": source.owner, "reached": source.highest, "now_us": now_us}
    session.connection().execute(_SEEN, values)


def _insert_source(session: Session, known: dict[str, Any]) -> None:
    dialect = postgresql if session.connection().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(Source).values(known).on_conflict_do_nothing())


# --- Which are new ------------------------------------------------------------------------------------------------


def _may_repeat(arrivals: Sequence[Arrival], sources: dict[str, SourceRow]) -> bool:
    """Whether a sequence is not above everything before it: in the stored, or in the batch itself."""
    reached = {name: source.highest for name, source in sources.items()}
    for event in arrivals:
        if event.sequence <= reached[event.source]:
            return True
        reached[event.source] = event.sequence
    return False


def _spoken_for(event: Arrival | Spoiled) -> Result:
    if isinstance(event, Spoiled):
        return Result(event.id, "rejected", "invalid", event.detail)
    return Result(event.id, "accepted", "" if event.kind else "ignored_type")


def _judged(session: Session, batch: Sequence[Arrival | Spoiled], sources: dict[str, SourceRow]) -> list[Result]:
    """Each event by what is stored, and by what came before it in the request."""
    arrivals = [event for event in batch if isinstance(event, Arrival)]
    ids, places = _stored(session, arrivals, sources)
    held: set[tuple[str, str]] = set()
    results = []
    for event in batch:
        result = _spoken_for(event)
        if isinstance(event, Arrival):
            source_id, lane = sources[event.source].id, (event.source, event.task)
            holder = places.get((source_id, event.sequence))
            if (source_id, event.id) in ids:
                result = Result(event.id, "duplicate")
            elif lane in held:
                result = Result(event.id, "retry", "task_waits")
            elif holder is not None:
                # It comes again under another source, and the task's later events must come after it.
                result = Result(event.id, "rejected", "sequence_conflict", f"sequence {event.sequence} is {holder}")
                held.add(lane)
            else:
                ids.add((source_id, event.id))
                places[source_id, event.sequence] = event.id
        results.append(result)
    return results


def _stored(
    session: Session, arrivals: Sequence[Arrival], sources: dict[str, SourceRow]
) -> tuple[set[tuple[int, str]], dict[tuple[int, int], str]]:
    """The ids among these that are stored, and the ids that hold their sequences."""
    ids: set[tuple[int, str]] = set()
    places: dict[tuple[int, int], str] = {}
    columns = (Event.sequence, Event.id)
    for source in sources.values():
        own = [event for event in arrivals if event.source == source.name]
        of_source = select(*columns).where(Event.source_id == source.id)
        known = session.execute(of_source.where(Event.id.in_([event.id for event in own])))
        ids |= {(source.id, event_id) for _, event_id in known}
        taken = session.execute(of_source.where(Event.sequence.in_([event.sequence for event in own])))
        places |= {(source.id, sequence): event_id for sequence, event_id in taken}
    return ids, places


def _fresh(batch: Sequence[Arrival | Spoiled], results: Sequence[Result]) -> list[Arrival]:
    """What is to be stored, in the order of the sequence: an order of arrival means nothing within a source."""
    pairs = zip(batch, results, strict=True)
    fresh = [event for event, result in pairs if isinstance(event, Arrival) and result.status == "accepted"]
    return sorted(fresh, key=lambda event: event.sequence)


def _event_row(event: Arrival, source: SourceRow, now_us: int) -> tuple[Any, ...]:
    return (
        source.id,
        event.sequence,
        event.id,
        event.type,
        event.task,
        event.agent,
        event.time_us,
        now_us,
        event.body,
    )


# --- What they change ---------------------------------------------------------------------------------------------


def _applied(
    session: Session,
    fresh: Sequence[Arrival],
    sources: dict[str, SourceRow],
    origin: Origin,
    now_us: int,
    write_lines: Callable[[Session, type[Log], Sequence[Any]], Any],
) -> list[Item]:
    for source in sources.values():
        _advance(session, source, [event for event in fresh if event.source == source.name], now_us)
    _explain_others(session, fresh, origin.owner)
    items = _asked_and_answered(session, fresh, sources, now_us)
    told = [event for event in fresh if tells_of_a_task(event)]
    tasks = _folded(session, [event for event in told if changes_a_task(event)], sources, now_us)
    upsert(session, Task, [task.row() for task in tasks])
    logs = [log_row(event, sources[event.source].id, now_us) for event in told]
    write_lines(session, Log, logs)
    _tell_of_agents(session, fresh, sources, now_us)
    if origin.mirror is not None:
        origin.mirror.reflect(session, tasks, logs)
    return items


def _advance(session: Session, source: SourceRow, events: Sequence[Arrival], now_us: int) -> None:
    covered: list[Range] = [span for event in events for span in event.covers]
    spans.cover(session, source.id, covered)
    source.highest = max([source.highest, *(event.sequence for event in events)])
    _seen(session, source, now_us)


def _explain_others(session: Session, fresh: Sequence[Arrival], owner: str | None) -> None:
    """Gaps of another source: an outbox that had one before, or took the recording of another in.

    Of a source that is not known, or whose credential is another one, nothing is believed, and nothing is refused.
    """
    for event in fresh:
        if not event.explains:
            continue
        row = session.connection().execute(_SOURCE, {"wanted": event.explains}).one_or_none()
        if row is not None and row.owner in (None, owner):
            spans.cover(session, row.id, [event.explained])


def _folded(session: Session, told: Sequence[Arrival], sources: dict[str, SourceRow], now_us: int) -> list[TaskFold]:
    tasks = _locked_tasks(session, told, sources, now_us)
    for event in told:
        tasks[event.task].add(event, sources[event.source].id, now_us)
    return list(tasks.values())


def _locked_tasks(
    session: Session, told: Sequence[Arrival], sources: dict[str, SourceRow], now_us: int
) -> dict[str, TaskFold]:
    """The tasks of these events, locked in the order of their ids; new ones are made, so that all can be locked."""
    first = {event.task: event for event in reversed(told)}
    names = sorted(first)
    found = _rows_of_tasks(session, names)
    missing = [name for name in names if name not in found]
    if missing:
        begun = [TaskFold.begun(first[name], sources[first[name].source].id, now_us) for name in missing]
        insert_new(session, Task, [task.row() for task in begun])
        found |= _rows_of_tasks(session, missing)
    return {name: found[name] for name in names}


def _rows_of_tasks(session: Session, names: Sequence[str]) -> dict[str, TaskFold]:
    if not names:
        return {}
    rows = session.connection().execute(_TASKS, {"names": names})
    return {row[0]: TaskFold.of_row(row) for row in rows}


_TASKS: Final = (
    select(Task.__table__)
    .where(Task.task_id.in_(bindparam("names", expanding=True)))
    .order_by(Task.task_id)
    .with_for_update()
)


def _tell_of_agents(session: Session, fresh: Sequence[Arrival], sources: dict[str, SourceRow], now_us: int) -> None:
    """That the agents spoke. What an agent said of its outbox stays until it says something newer."""
    newest = {event.agent: event for event in fresh}
    reports = {event.agent: event for event in fresh if event.kind == EventType.AGENT_HEARTBEAT}
    if reports:
        upsert(session, Agent, _reported(session, newest, reports, sources, now_us))
        return
    unsaid = (None,) * 4
    rows = [(name, sources[newest[name].source].id, now_us, now_us, *unsaid) for name in sorted(newest)]
    upsert(session, Agent, rows, only=("source_id", "last_seen_us"))


def _reported(
    session: Session,
    newest: dict[str, Arrival],
    reports: dict[str, Arrival],
    sources: dict[str, SourceRow],
    now_us: int,
) -> list[tuple[Any, ...]]:
    known_rows = select(Agent).where(Agent.agent_id.in_(newest)).order_by(Agent.agent_id).with_for_update()
    known = {agent.agent_id: agent for agent in session.scalars(known_rows)}
    rows = []
    for name in sorted(newest):
        before, report = known.get(name), reports.get(name)
        said: tuple[Any, ...] = (None,) * 4
        if before is not None:
            said = (before.pending, before.dead, before.oldest_age_s, before.reported_us)
        if report is not None and report.time_us >= (said[3] or 0):
            outbox = report.data["outbox"]
            said = (outbox["pending"], outbox["dead"], float(outbox["oldest_age_s"]), report.time_us)
        first_seen = before.first_seen_us if before is not None else now_us
        rows.append((name, sources[newest[name].source].id, first_seen, now_us, *said))
    return rows


def _asked_and_answered(
    session: Session, fresh: Sequence[Arrival], sources: dict[str, SourceRow], now_us: int
) -> list[Item]:
    items: list[Item] = []
    for event in fresh:
        handler = questions.HANDLERS.get(event.kind)
        if handler is not None:
            items += handler(session, event, sources[event.source].id, now_us) or ()
        elif event.kind == EventType.ERROR_ESCALATED:
            incidents.escalated(session, event)
        elif event.kind == EventType.ERROR_RESOLVED:
            incidents.resolved(session, event)
    return items
