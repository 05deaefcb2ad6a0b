"""The verdict of ``orchclient demo``, and how it reads. Pure, so that it can be shown to fail.

It must not know how the evidence came about: no process, no file, no network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from textwrap import indent
from typing import Any

from attrs import evolve, field, frozen

from orchclient.cli.output import number, table

_WORDS = {
    "task.status.v1": "status, progress",
    "clarification.requested.v1": "question",
    "clarification.withdrawn.v1": "question withdrawn",
    "clarification.consumed.v1": "answer taken",
    "task.completed.v1": "completion",
    "error.escalated.v1": "call for help",
    "agent.heartbeat.v1": "heartbeat",
}
_UNSETTLED = {
    "pending": "still wait in the outbox",
    "parked": "still wait for an earlier event of their task",
    "dead": "were given up",
}


@frozen
class Recorded:
    """One row of the outbox. ``state`` is pending, parked, delivered or dead."""

    id: str
    task: str
    type: str
    state: str = "delivered"

    @property
    def waits(self) -> bool:
        """Whether it is still to be delivered."""
        return self.state in ("pending", "parked")


@frozen
class Evidence:
    """What was seen: rows in the order of recording, ids in the order of arrival, repeats by id."""

    acknowledged: Sequence[str]
    recorded: Sequence[Recorded]
    arrived: Sequence[str]
    repeats: Mapping[str, int] = field(factory=dict)
    record_ms: Sequence[float] = ()
    result_is_right: bool = True


@frozen
class Kind:
    """The counts of one type of event, or of all."""

    type: str
    recorded: int
    delivered: int
    repeats: int
    lost: int


@frozen
class Verdict:
    """The counts, and what is wrong; nothing wrong means that every promise was kept."""

    kinds: Sequence[Kind]
    total: Kind
    acknowledged: int
    pending: int
    dead: int
    order_kept: bool
    median_record_ms: float
    longest_record_ms: float
    problems: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def judged(evidence: Evidence) -> Verdict:
    """The verdict on what was seen."""
    states = Counter(row.state for row in evidence.recorded)
    types = dict.fromkeys(row.type for row in evidence.recorded)
    return Verdict(
        kinds=[_kind(type_, evidence, [row for row in evidence.recorded if row.type == type_]) for type_ in types],
        total=evolve(_kind("total", evidence, evidence.recorded), lost=len(_lost(evidence))),
        acknowledged=len(evidence.acknowledged),
        pending=sum(row.waits for row in evidence.recorded),
        dead=states["dead"],
        order_kept=not _tasks_out_of_order(evidence),
        median_record_ms=median(evidence.record_ms or [0.0]),
        longest_record_ms=max(evidence.record_ms, default=0.0),
        problems=_problems(evidence, states),
    )


def _kind(type_: str, evidence: Evidence, rows: Sequence[Recorded]) -> Kind:
    ids = {row.id for row in rows}
    repeats = sum(evidence.repeats.get(id_, 0) for id_ in ids)
    return Kind(type_, len(rows), len(ids.intersection(evidence.arrived)), repeats, len(ids & _lost(evidence)))


def _lost(evidence: Evidence) -> set[str]:
    """Events that nobody has: they did not arrive, and the outbox does not know them or takes them for delivered."""
    settled = {row.id for row in evidence.recorded if row.state == "delivered"}
    vanished = set(evidence.acknowledged) - {row.id for row in evidence.recorded}
    return (settled | vanished) - set(evidence.arrived)


def _tasks_out_of_order(evidence: Evidence) -> list[str]:
    """Tasks whose events did not arrive in the order in which they were recorded, each once."""
    arrived = frozenset(evidence.arrived)
    sent = _by_task(evidence, (row.id for row in evidence.recorded if row.id in arrived))
    came = _by_task(evidence, evidence.arrived)
    return sorted(task for task in sent if sent[task] != came[task])


def _by_task(evidence: Evidence, ids: Iterable[str]) -> dict[str, list[str]]:
    tasks = {row.id: row.task for row in evidence.recorded}
    lanes: dict[str, list[str]] = {}
    for id_ in ids:
        lanes.setdefault(tasks.get(id_, ""), []).append(id_)
    return lanes


def _problems(evidence: Evidence, states: Counter[str]) -> list[str]:
    recorded, arrived = {row.id for row in evidence.recorded}, set(evidence.arrived)
    found = {
        "acknowledged to the agent, but not in its outbox": set(evidence.acknowledged) - recorded,
        "lost: acknowledged or recorded, but nobody has them": _lost(evidence),
        "arrived, but never recorded": arrived - recorded,
        "kept more than once by the orchestrator": _repeated(evidence.arrived),
        "out of order, tasks": set(_tasks_out_of_order(evidence)),
    }
    told = [f"{what}: {_listed(names)}" for what, names in found.items() if names]
    told += [f"{states[state]} {what}" for state, what in _UNSETTLED.items() if states[state]]
    told += [] if evidence.recorded else ["nothing was recorded"]
    told += [] if evidence.result_is_right else ["the restarted agent did not go on where it stood: its count is wrong"]
    return told


def _repeated(ids: Sequence[str]) -> set[str]:
    return {id_ for id_, times in Counter(ids).items() if times > 1}


def _listed(names: set[str], at_most: int = 3) -> str:
    shown = sorted(names)[:at_most]
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return f"{len(names)} ({', '.join(shown)}{more})"


def document(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values, for JSON."""
    return {
        "ok": verdict.ok,
        "acknowledged": verdict.acknowledged,
        **_counts(verdict.total),
        "pending": verdict.pending,
        "dead": verdict.dead,
        "order_kept": verdict.order_kept,
        "median_record_ms": round(verdict.median_record_ms, 2),
        "longest_record_ms": round(verdict.longest_record_ms, 2),
        "kinds": {kind.type: _counts(kind) for kind in verdict.kinds},
        "problems": list(verdict.problems),
    }


def _counts(kind: Kind) -> dict[str, int]:
    return {"recorded": kind.recorded, "delivered": kind.delivered, "repeats": kind.repeats, "lost": kind.lost}


def summary(verdict: Verdict) -> str:
    """The verdict for people: a table, the promises, and what is wrong."""
    return "\n\n".join([indent(_table(verdict), "   "), indent(_promises(verdict), "   "), _outcome(verdict)])


def _table(verdict: Verdict) -> str:
    headers = ("KIND", "RECORDED", "DELIVERED", "REPEATS FILTERED", "LOST")
    rows = [
        (_WORDS.get(kind.type, kind.type), *map(number, _counts(kind).values()))
        for kind in (*verdict.kinds, verdict.total)
    ]
    return table(headers, rows, right=(1, 2, 3, 4))


def _promises(verdict: Verdict) -> str:
    facts = {
        "Receipts the agent got": number(verdict.acknowledged),
        "Order within each task": "kept" if verdict.order_kept else "NOT KEPT",
        "Still waiting, given up": f"{number(verdict.pending)}, {number(verdict.dead)}",
        "Record call, median": f"{verdict.median_record_ms:.1f} ms",
        "Record call, longest": f"{verdict.longest_record_ms:.1f} ms",
    }
    return "\n".join(f"{name:<24} {fact}" for name, fact in facts.items())


def _outcome(verdict: Verdict) -> str:
    if verdict.ok:
        return "Nothing was lost, and nothing was taken twice."
    return "\n".join(["A promise was broken:", *(f"  - {problem}" for problem in verdict.problems)])
