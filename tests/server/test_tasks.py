"""What events make of tasks: the newest word counts, however late or often the others come."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from orchclient.server import people
from orchclient.server.dismissing import Dismissal
from orchclient.server.folding import TaskFold
from orchclient.server.models import Agent, Event, Log
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import TaskFilter
from orchclient.server.reading import Arrival
from tests.server.events import Outbox, batch_of, body_of


def take(orchestrator: Orchestrator, *events: Any) -> list[str]:
    return [result.status for result in orchestrator.ingest(batch_of(list(events))).results]


def task(orchestrator: Orchestrator, task_id: str = "task-1") -> people.TaskView:
    found = page(orchestrator, task_id)
    return found.task


def page(orchestrator: Orchestrator, task_id: str = "task-1") -> people.TaskPage:
    with orchestrator.reading() as session:
        found = people.task_page(session, task_id)
    assert found is not None
    return found


def test_a_task_is_what_its_agent_last_said(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    take(
        orchestrator,
        outbox.status(progress_percentage=10, current_step="a", metadata={"x": 1, "y": {"z": 2}}),
        outbox.status(status="testing", metadata={"y": None, "w": "é\x00"}, attempt=2),
    )
    found = task(orchestrator)
    assert (found.status, found.progress_percentage, found.current_step, found.attempt) == ("testing", 10, "a", 2)
    assert found.metadata == {"x": 1, "y": None, "w": "é�"}


def test_what_is_stored_is_what_was_sent_byte_for_byte(orchestrator: Orchestrator) -> None:
    event = Outbox().status(current_step="é \x00 💡", metadata={"big": 10**30, "small": 1e-7})
    take(orchestrator, event)
    with orchestrator.reading() as session:
        assert session.scalars(select(Event.body)).one() == body_of([event]).decode()[1:-1]


def test_a_late_event_changes_only_what_no_newer_one_has_set(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    first, late = outbox.status(), outbox.status(status="testing", progress_percentage=30, metadata={"a": 1, "b": 1})
    newest = outbox.status(status="completed", metadata={"b": 2})
    take(orchestrator, first, newest)
    take(orchestrator, late)
    found = task(orchestrator)
    assert (found.status, found.progress_percentage, found.metadata) == ("completed", 30, {"a": 1, "b": 2})
    assert len(page(orchestrator).logs) == 3


def test_a_repeat_changes_nothing(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    events = [outbox.status(progress_percentage=n) for n in range(5)]
    take(orchestrator, *events)
    before = page(orchestrator)
    assert take(orchestrator, *events[:3]) == ["duplicate"] * 3
    assert page(orchestrator) == before


def test_across_sources_what_arrives_later_wins(orchestrator: Orchestrator) -> None:
    old, new = Outbox(), Outbox()
    take(orchestrator, old.status(progress_percentage=10, sequence=5), old.status(status="failed", sequence=9))
    take(orchestrator, new.status(status="in_progress"))
    assert task(orchestrator).status == "in_progress"
    assert take(orchestrator, old.status(status="cancelled", progress_percentage=20, sequence=7)) == ["accepted"]
    found = task(orchestrator)
    assert (found.status, found.progress_percentage) == ("in_progress", 20)


def test_completions_errors_and_questions_have_their_effect(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    take(orchestrator, outbox.status("t1"), outbox.question("t1"), outbox.error("t2"), outbox.error("t3", fatal=False))
    take(orchestrator, outbox.completion("t4"))
    states = {name: task(orchestrator, name).status for name in ("t1", "t2", "t3", "t4")}
    assert states == {"t1": "clarification_needed", "t2": "failed", "t3": "pending", "t4": "completed"}
    assert task(orchestrator, "t1").current_step == "Waiting for clarification"
    assert task(orchestrator, "t4").progress_percentage == 100


def test_heartbeats_and_gaps_are_no_tasks(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    take(orchestrator, outbox.status(), outbox.heartbeat(pending=7, dead=2), outbox.gap(1, 2, sequence=9))
    with orchestrator.reading() as session:
        assert [each.task_id for each in people.tasks(session, TaskFilter())] == ["task-1"]
        agent = people.agents(session)[0]
    assert (agent.agent_id, agent.pending, agent.dead, agent.oldest_age_s) == ("backend-7", 7, 2, 0.5)


def test_an_agent_was_last_seen_when_its_events_came(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    take(orchestrator, outbox.heartbeat(pending=7))
    with orchestrator.reading() as session:
        before = session.scalars(select(Agent)).one()
    take(orchestrator, outbox.status())
    with orchestrator.reading() as session:
        after = session.scalars(select(Agent)).one()
    assert after.last_seen_us > before.last_seen_us
    assert (after.first_seen_us, after.pending) == (before.first_seen_us, 7)


def test_every_event_of_a_task_leaves_a_line(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    take(
        orchestrator,
        outbox.status(progress_percentage=12.5, current_step="Reading"),
        outbox.question(text="Which?"),
        outbox.error(priority="critical", error_type="github_api_auth"),
        outbox.completion(review=True),
    )
    with orchestrator.reading() as session:
        lines = [tuple(row) for row in session.execute(select(Log.level, Log.message).order_by(Log.sequence))]
    assert lines == [
        ("info", "in_progress, 12.5 %: Reading"),
        ("warning", "Asks: Which?"),
        ("critical", "github_api_auth: it broke"),
        ("info", "Completed with quality 50, waits for review"),
    ]


def incidents(orchestrator: Orchestrator) -> dict[str, tuple[str, int]]:
    """State and count of each incident, by its id."""
    return {each.id: (each.state, each.count) for each in page(orchestrator).incidents}


def test_errors_are_one_incident_until_it_is_resolved(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    first, alone = outbox.error(dedup_key="auth"), outbox.error()
    take(orchestrator, first, alone, outbox.error(dedup_key="auth", count=2, first_id=first["id"], priority="high"))
    assert incidents(orchestrator) == {first["id"]: ("open", 2), alone["id"]: ("open", 1)}
    assert {each.priority for each in page(orchestrator).incidents} == {"high", "low"}
    over = {"error_id": first["id"], "count": 2, "dedup_key": "auth", "note": "key renewed"}
    take(orchestrator, outbox.event("error.resolved.v1", **over))
    assert incidents(orchestrator)[first["id"]] == ("resolved", 2)
    again = outbox.error(dedup_key="auth")
    take(orchestrator, again)
    assert incidents(orchestrator)[again["id"]] == ("open", 1)
    with orchestrator.reading() as session:
        assert {each.id for each in people.needs(session, 0).incidents} == {alone["id"], again["id"]}


def test_errors_with_one_key_are_one_incident_though_nobody_says_which_came_first(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    first = outbox.error(dedup_key="auth")
    take(orchestrator, first, outbox.error(dedup_key="auth"))
    assert incidents(orchestrator) == {first["id"]: ("open", 2)}


def test_an_error_that_comes_after_the_word_that_it_is_over_stays_resolved(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    first = outbox.error()
    take(orchestrator, outbox.event("error.resolved.v1", error_id=first["id"], count=1))
    assert incidents(orchestrator) == {}
    take(orchestrator, first)
    assert incidents(orchestrator) == {first["id"]: ("resolved", 1)}


def aside(orchestrator: Orchestrator, error: Any, who: str = "ada", reason: str | None = None) -> bool:
    said = Dismissal(error["subject"], error["id"], {"kind": "human", "id": who}, reason, "web")
    return orchestrator.dismiss(said)


def test_an_error_that_a_person_set_aside_is_off_the_list_until_it_happens_again(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    first, other = outbox.error(dedup_key="auth", priority="critical"), outbox.error()
    take(orchestrator, first, other)
    assert aside(orchestrator, first, reason="the agent is gone")
    assert aside(orchestrator, first, "bo")  # who comes second changes nothing
    assert incidents(orchestrator) == {first["id"]: ("dismissed", 1), other["id"]: ("open", 1)}
    found = next(each for each in page(orchestrator).incidents if each.id == first["id"])
    assert found.dismissed_by == {"kind": "human", "id": "ada"}
    assert found.dismissed_us is not None
    with orchestrator.reading() as session:
        assert [each.id for each in people.needs(session, 0).incidents] == [other["id"]]
        assert people.waiting(session) == 0
    (line,) = (line for line in page(orchestrator).logs if not line.is_event)
    assert line.message == f"ada set {first['data']['error_type']} aside: the agent is gone"
    assert line.metadata["responder"] == {"kind": "human", "id": "ada"}
    take(orchestrator, first)  # repeated: it has not happened again
    assert incidents(orchestrator)[first["id"]] == ("dismissed", 1)
    take(orchestrator, outbox.error(dedup_key="auth", priority="critical"))  # of an agent that names no first one
    assert incidents(orchestrator) == {first["id"]: ("open", 2), other["id"]: ("open", 1)}
    assert all(each.dismissed_by is None for each in page(orchestrator).incidents)
    assert aside(orchestrator, first)
    take(orchestrator, outbox.event("error.resolved.v1", error_id=first["id"], count=2))
    assert incidents(orchestrator)[first["id"]] == ("resolved", 2)
    assert aside(orchestrator, first)
    assert incidents(orchestrator)[first["id"]] == ("resolved", 2)


def test_an_older_error_that_comes_late_does_not_undo_what_a_person_did(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    late, first = outbox.error(dedup_key="auth"), outbox.error(dedup_key="auth")
    take(orchestrator, first)
    aside(orchestrator, first)
    take(orchestrator, late)
    assert incidents(orchestrator)[first["id"]] == ("dismissed", 2)


def test_what_is_no_error_cannot_be_set_aside(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    unknown = outbox.error()
    assert not aside(orchestrator, unknown)
    take(orchestrator, outbox.status(), outbox.event("error.resolved.v1", error_id=unknown["id"], count=1))
    assert not aside(orchestrator, unknown)


def test_what_people_did_is_pruned_with_the_rest_of_the_history(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    error = outbox.error()
    take(orchestrator, error)
    aside(orchestrator, error)
    assert len(page(orchestrator).logs) == 2
    orchestrator.prune(2**62)
    assert page(orchestrator).logs == []


def test_a_reminder_leaves_a_line_and_changes_nothing(orchestrator: Orchestrator) -> None:
    outbox = Outbox()
    error = outbox.error(priority="critical", error_type="security_violation")
    take(orchestrator, error)
    before = task(orchestrator)
    about = {"id": error["id"], "type": error["type"], "data": {"error_type": "security_violation"}}
    more = {"number": 3, "waited_s": 18_004, "priority": "critical", "escalated": True}
    assert take(orchestrator, outbox.event("reminder.v1", about=about, **more)) == ["accepted"]
    assert task(orchestrator) == before
    line = page(orchestrator).logs[0]
    assert (line.level, line.message) == ("critical", "Still open after 5 h 0 min")


def test_tasks_are_found_by_state_agent_and_text(orchestrator: Orchestrator) -> None:
    one, two = Outbox(agent="ada"), Outbox(agent="bob")
    take(orchestrator, one.status("alpha"), one.status("beta", status="testing"))
    take(orchestrator, two.status("gamma", current_step="100% of alpha_x"))

    def found(**wanted: Any) -> list[str]:
        with orchestrator.reading() as session:
            return sorted(each.task_id for each in people.tasks(session, TaskFilter(**wanted)))

    assert found() == ["alpha", "beta", "gamma"]
    assert found(status="testing") == ["beta"]
    assert found(agent_id="bob") == ["gamma"]
    assert found(text="alpha") == ["alpha", "gamma"]
    assert found(text="%") == ["gamma"]
    assert len(found(limit=2)) == 2


def test_two_sources_that_make_the_same_new_tasks_at_once_lose_nothing(orchestrator: Orchestrator) -> None:
    from concurrent.futures import ThreadPoolExecutor

    boxes = [Outbox(agent=f"agent-{n}") for n in range(4)]
    names = [f"task-{n}" for n in range(20)]

    def send(box: Outbox) -> None:
        for _ in range(5):
            order = random.sample(names, len(names))
            assert set(take(orchestrator, *(box.status(name, metadata={box.agent: 1}) for name in order))) == {
                "accepted"
            }

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, boxes))
    for name in names:
        assert task(orchestrator, name).metadata == {box.agent: 1 for box in boxes}
    with orchestrator.reading() as session:
        assert len(session.scalars(select(Event.id)).all()) == 4 * 5 * 20


# --- The law ------------------------------------------------------------------------------------------------------

UPDATES = st.fixed_dictionaries(
    {"status": st.sampled_from(["pending", "in_progress", "testing", "failed"])},
    optional={
        "progress_percentage": st.integers(0, 100),
        "current_step": st.sampled_from(["a", "b", "c"]),
        "metadata": st.dictionaries(st.sampled_from(["k", "l", "m"]), st.integers(0, 9), max_size=3),
        "attempt": st.integers(1, 3),
    },
)


def folded(events: list[Arrival]) -> dict[str, Any]:
    fold = TaskFold.begun(events[0], 1, 0)
    for event in events:
        fold.add(event, 1, 0)
    names = ("status", "progress_percentage", "current_step", "task_metadata", "attempt", "agent_id", "updated_us")
    return {name: getattr(fold, name) for name in names}


@settings(max_examples=200, deadline=None)
@given(updates=st.lists(UPDATES, min_size=1, max_size=8), seed=st.randoms())
def test_a_task_is_the_same_whatever_the_order_of_arrival(updates: list[dict[str, Any]], seed: random.Random) -> None:
    outbox = Outbox()
    events = [each for each in batch_of([outbox.status(**update) for update in updates]) if isinstance(each, Arrival)]
    in_order = folded(events)
    seed.shuffle(events)
    assert folded(events) == in_order


def test_the_law_finds_a_fold_that_takes_what_comes_last() -> None:
    def plain(events: list[Arrival]) -> str:
        return str([event.data["status"] for event in events][-1])

    outbox = Outbox()
    first, second = batch_of([outbox.status(status="testing"), outbox.status(status="failed")])
    assert isinstance(first, Arrival)
    assert isinstance(second, Arrival)
    assert plain([first, second]) != plain([second, first])
    assert folded([first, second]) == folded([second, first])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sequence": "0" * 20}, "sequence"),
        ({"sequence": 41}, "sequence"),
        ({"partitionkey": "other"}, "partitionkey"),
        ({"time": "2026-02-31T00:00:00.000000Z"}, "time"),
        ({"data": {"task_id": "other", "status": "testing"}}, "task_id"),
        ({"data": {"task_id": "task-1", "status": "idle"}}, "status"),
        ({"dataschema": "https://orchclient.dev/schemas/gap.v1.json"}, "dataschema"),
        ({"novelty": 1.5}, "novelty"),
        ({"data": {"task_id": "task-1", "status": "testing", "current_step": "\ud800"}}, "surrogate"),
    ],
)
def test_an_event_that_breaks_the_contract_is_rejected_with_the_place(
    orchestrator: Orchestrator, change: dict[str, Any], words: str
) -> None:
    bad = Outbox().status() | change
    result = orchestrator.ingest(batch_of([bad])).results[0]
    assert (result.status, result.code) == ("rejected", "invalid")
    assert words in result.detail
