"""The destination ``database``: the contract, outages, answers back, and agents that are killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from orchclient import OrchestratorClient, destinations
from orchclient.cli import app
from orchclient.core.batch import Batch
from orchclient.core.errors import ConfigError
from orchclient.core.policy import Action, Fate
from orchclient.core.secret import KnownSecrets
from orchclient.server import destination, people
from orchclient.server.database import make_engine, make_session_local
from orchclient.server.destination import DatabaseSink
from orchclient.server.models import Event
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import Message, TaskFilter
from orchclient.server.questions import Decision
from orchclient.server.upgrade import upgrade
from orchclient.sinks.sink import Closed, DirectSink
from orchclient.testing.sink_contract import DirectSinkContract
from tests.server import agents
from tests.server.events import Outbox
from tests.server.test_database import MIRROR, OwnBase, OwnTask
from tests.stopwatch import Stopwatch

WAIT_S = 60.0
PASSWORD = "canary-password-91c2"


def stored(db: str) -> list[str]:
    """The ids of all events, in the order of their sequences."""
    orchestrator = Orchestrator.open(db)
    try:
        with orchestrator.reading() as session:
            return list(session.scalars(select(Event.id).order_by(Event.sequence)))
    finally:
        orchestrator.close()


def batch_of(events: list[dict[str, Any]]) -> Batch:
    return Batch.of_texts([event["id"] for event in events], [json.dumps(event) for event in events])


class TestDatabaseSink(DirectSinkContract):
    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> Iterator[None]:
        self.database, self.made = database, list[DatabaseSink]()
        yield
        for sink in self.made:
            sink.close()

    def make_sink(self) -> DatabaseSink:
        self.made.append(DatabaseSink(self.database))
        return self.made[-1]

    def arrived(self, sink: DirectSink) -> Sequence[str]:
        return stored(self.database)


def test_its_address_is_shown_nowhere() -> None:
    sink = DatabaseSink(f"postgresql://orch:{PASSWORD}@127.0.0.1:1/x")
    verdict = sink.deliver(batch_of([Outbox().status()]), deadline_s=5)
    assert (verdict.action, "refused" in verdict.reason) == (Action.BACK_OFF, True)
    assert PASSWORD not in f"{sink!r} {sink.target} {verdict} {sink.trouble(5)}"
    with pytest.raises(TypeError):
        sink.__reduce__()


# --- What becomes of a batch --------------------------------------------------------------------------------------


@pytest.fixture
def sink(database: str) -> Iterator[DatabaseSink]:
    made = DatabaseSink(database)
    yield made
    made.close()


def test_an_event_that_is_no_event_is_refused_with_the_reason(sink: DatabaseSink) -> None:
    outbox = Outbox()
    events = [outbox.status(), outbox.status(status="no such status"), outbox.status()]
    verdict = sink.deliver(batch_of(events), deadline_s=WAIT_S)
    assert [verdict.items[event["id"]].fate for event in events] == [Fate.DELIVERED, Fate.DEAD, Fate.DELIVERED]
    assert "status" in verdict.items[events[1]["id"]].reason


def test_another_event_of_the_same_sequence_is_a_conflict(sink: DatabaseSink) -> None:
    outbox = Outbox()
    sink.deliver(batch_of([outbox.status(sequence=1)]), deadline_s=WAIT_S)
    copied = outbox.status(sequence=1)
    verdict = sink.deliver(batch_of([copied]), deadline_s=WAIT_S)
    assert verdict.items[copied["id"]].fate is Fate.CONFLICT


def test_a_copied_outbox_goes_on_under_another_source(database: str, tmp_path: Path) -> None:
    def told(outbox: Path, step: str) -> None:
        with OrchestratorClient("a", outbox=outbox, database_url=database) as client:
            client.update_task_status("task", "testing", current_step=step)
            while (report := client.flush(WAIT_S)).pending:  # what is sent under another source comes a little later
                assert report.dead == 0

    told(tmp_path / "outbox.db", "before the copy")
    shutil.copy(tmp_path / "outbox.db", tmp_path / "copy.db")
    told(tmp_path / "outbox.db", "the original")
    told(tmp_path / "copy.db", "the copy")
    assert len(stored(database)) == 3


def test_what_is_no_json_is_looked_for_event_by_event(sink: DatabaseSink) -> None:
    assert sink.deliver(Batch(["1"], [b"{"]), deadline_s=WAIT_S).action is Action.BISECT


def test_a_server_that_says_nothing_costs_the_deadline_and_no_event(tmp_path: Path) -> None:
    with closing(socket.socket()) as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        silent = DatabaseSink(f"postgresql://orch@127.0.0.1:{hole.getsockname()[1]}/x")
        with Stopwatch() as took:
            verdict = silent.deliver(batch_of([Outbox().status()]), deadline_s=0.2)
        assert (verdict.action, took.s < 15) == (Action.BACK_OFF, True)


def test_a_database_that_comes_back_gets_everything(postgres: Any, tmp_path: Path) -> None:
    url = postgres.url()
    with OrchestratorClient("a", outbox=tmp_path / "outbox.db", database_url=url) as client:
        client.update_task_status("task", "in_progress", {"n": 1})
        assert client.flush(WAIT_S)
        postgres.ctl("restart", "-m", "immediate")
        for number in range(20):
            client.update_task_status("task", "in_progress", {"n": number})
        assert client.flush(WAIT_S)
    assert len(stored(url)) == len(set(stored(url))) == 21


def test_what_another_process_holds_for_long_is_cut_by_the_end(tmp_path: Path) -> None:
    from orchclient.server.database import Turns

    db = tmp_path / "o.db"
    made = DatabaseSink(str(db))
    made.deliver(batch_of([Outbox().status()]), deadline_s=WAIT_S)
    other, raised = Turns(db), list[BaseException]()
    other.take()

    def deliver() -> None:
        try:
            made.deliver(batch_of([Outbox().status()]), deadline_s=WAIT_S)
        except Closed as error:
            raised.append(error)

    thread = threading.Thread(target=deliver)
    thread.start()
    while not made._opened or not made._opened.engine.pool.checkedout():  # type: ignore[attr-defined]
        time.sleep(0.001)
    made.close()
    thread.join(5)
    other.give()
    assert len(raised) == 1
    assert made.deliver(batch_of([Outbox().status()]), deadline_s=WAIT_S).action is Action.SETTLE
    made.close()


# --- There and back -----------------------------------------------------------------------------------------------


def test_people_answer_through_the_tables_and_the_agent_hears_of_it(database: str, tmp_path: Path) -> None:
    people_side = Orchestrator.open(database)
    with (
        closing(people_side),
        OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=database) as client,
    ):
        question = client.request_clarification("task-1", "Which one?", options=["a", "b"])
        handed_in = client.report_completion("task-1", None, {"tests_passed": 3}, review=True)
        assert client.flush(WAIT_S)
        assert handed_in.review is not None
        person = {"kind": "human", "id": "ada"}
        answers = [{"question_id": "q1", "options": ["b"]}]
        people_side.answer(question.id, Decision("answered", person, answers))
        people_side.decide(handed_in.event_id, Decision("approved", person))
        answer, decision = question.wait(WAIT_S), handed_in.review.wait(WAIT_S)
        assert answer is not None
        assert decision is not None
        assert (answer.choice, decision.outcome) == ("b", "approved")
        assert abs(answer.answered_at - datetime.now(UTC)) < timedelta(minutes=5)  # when nothing else was said


def test_items_are_acknowledged_when_they_are_stored(database: str, tmp_path: Path) -> None:
    with (
        closing(Orchestrator.open(database)) as people_side,
        OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=database) as client,
    ):
        client.request_clarification("task-1", "Which one?")
        assert client.flush(WAIT_S)
        assert people_side.message(Message("task-1", "hello", {"kind": "human", "id": "ada"}))
        until = time.monotonic() + WAIT_S
        while True:
            with people_side.reading() as session:
                if people.counts(session)["inbox_pending"] == 0:
                    break
            assert time.monotonic() < until
            time.sleep(0.01)
        assert [message.text for message in client.task("task-1").messages] == ["hello"]


def test_an_end_does_not_wait_for_the_look_for_answers(database: str, tmp_path: Path) -> None:
    client = OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=database)
    client.request_clarification("task-1", "Which one?")
    assert client.flush(WAIT_S)
    with Stopwatch() as took:
        client.close()
    assert took.s < 2.5


def test_an_end_cuts_a_database_that_has_stopped_answering(postgres: Any, tmp_path: Path) -> None:
    url = postgres.url()
    client = OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=url)
    client.request_clarification("task-1", "Which one?")
    assert client.flush(WAIT_S)
    with closing(Orchestrator.open(url)) as orchestrator, orchestrator.reading() as session:
        backends = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        stopped = list(session.scalars(text(backends)))
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        client.update_task_status("task-1", "testing")
        with Stopwatch() as took:
            client.close()
        assert took.s < 5  # 2 s that the exchange under way is given; its deadline would be 10 s
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    with OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=url) as client:
        assert client.flush(WAIT_S)
    assert len(stored(url)) == 2


def test_a_question_nobody_answered_is_settled_without_a_server(database: str, tmp_path: Path) -> None:
    with OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", database_url=database) as client:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        question = client.request_clarification("task-1", "Which one?", deadline=soon)
        answer = question.wait(WAIT_S)
        assert answer is not None
        assert answer.outcome == "expired"


def test_an_application_brings_its_sessions_and_models(database: str, tmp_path: Path) -> None:
    engine = make_engine(database)
    upgrade(engine)
    sessions = make_session_local(engine)
    with sessions.begin() as session:
        OwnBase.metadata.create_all(session.connection())
    own = DatabaseSink(sessions, mirror=MIRROR)
    with OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", sinks=[own]) as client:
        client.update_task_status("task-1", "testing")
        assert client.flush(WAIT_S)
    with sessions() as session:  # closing the client leaves the application's engine alone
        assert [(task.name, task.state) for task in session.scalars(select(OwnTask))] == [("task-1", "testing")]
    engine.dispose()


# --- Killed, forked, several --------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.release)])
def test_an_agent_that_is_killed_around_the_commit_loses_and_doubles_nothing(
    database: str, tmp_path: Path, kills: int
) -> None:
    outbox, chance = str(tmp_path / "outbox.db"), random.Random(kills)
    Orchestrator.open(database).close()
    for number in range(kills):
        life = (outbox, database, chance.randint(1, 4), number % 2 == 0, 30)
        assert agents.ended([agents.run(agents.killed_agent, *life)]) == [-9]
    assert agents.ended([agents.run(agents.whole_agent, outbox, database, 1, "task")]) == [0]
    found = stored(database)
    assert len(found) == len(set(found))
    assert found == recorded(outbox)
    assert reports(database) == [{"highest": len(found), "gaps": []}]


def test_the_harness_finds_a_destination_that_says_so_too_early(tmp_path: Path) -> None:
    outbox, db = str(tmp_path / "outbox.db"), str(tmp_path / "o.db")
    assert agents.ended([agents.run(agents.early_agent, outbox, db, 2)]) == [0]
    assert stored(db) != recorded(outbox)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("events", [100, pytest.param(10_000, marks=pytest.mark.release)])
def test_four_agents_on_one_database_lose_and_double_nothing(database: str, tmp_path: Path, events: int) -> None:
    names = [f"agent-{number}" for number in range(4)]
    runs = [agents.run(agents.whole_agent, str(tmp_path / f"{name}.db"), database, events, name) for name in names]
    assert agents.ended(runs) == [0] * 4
    found = stored(database)
    assert len(found) == len(set(found)) == 4 * events
    assert reports(database) == [{"highest": events, "gaps": []}] * 4
    with closing(Orchestrator.open(database)) as orchestrator, orchestrator.reading() as session:
        tasks = {task.task_id: task.metadata["n"] for task in people.tasks(session, TaskFilter())}
    assert tasks == {f"{name}-{n}": max(range(n, events, 3)) for name in names for n in range(3)}


@pytest.mark.parametrize("program", [agents.forking_agent, agents.heir])
def test_a_fork_harms_neither_the_parent_nor_the_child(database: str, tmp_path: Path, program: Any) -> None:
    outbox = str(tmp_path / "outbox.db")
    assert agents.ended([agents.run(program, outbox, database)]) == [0]
    assert stored(database) == recorded(outbox)


def recorded(outbox: str) -> list[str]:
    import sqlite3

    with closing(sqlite3.connect(outbox)) as con:
        rows = con.execute("SELECT body FROM events ORDER BY seq").fetchall()
    return [json.loads("{" + (body if isinstance(body, str) else body.decode()))["id"] for (body,) in rows]


def reports(db: str) -> list[dict[str, object]]:
    from orchclient.server.models import Source

    with closing(Orchestrator.open(db)) as orchestrator:
        with orchestrator.reading() as session:
            names = list(session.scalars(select(Source.name)))
            assert session.execute(select(func.count()).select_from(Event)).scalar_one() > 0
        return [orchestrator.report(name) for name in names]


# --- Settings and commands ----------------------------------------------------------------------------------------


def sinks_of(**table: Any) -> Any:
    from orchclient import config

    settings = config.load({}, sinks={"store": {"kind": "database", **table}})
    return destinations.configured(settings, KnownSecrets())


def test_a_table_names_a_file_or_where_the_address_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_URL", f"postgresql://orch:{PASSWORD}@db/x")
    (sink,) = sinks_of(database_url_env="STORE_URL")
    (other,) = sinks_of(path=str(tmp_path / "o.db"))
    assert (sink.name, sink.kind, other.kind) == ("store", "database", "database")
    assert sink.target != other.target


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "path"),
        ({"path": "o.db", "database_url_env": "HOME"}, "one of"),
        ({"database_url": f"postgresql://orch:{PASSWORD}@db/x"}, "database_url_file or _env"),
        ({"path": "o.db", "hosts": []}, "unknown option 'hosts'"),
    ],
)
def test_a_table_that_is_not_usable_is_refused_in_plain_words(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        sinks_of(**table)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("missing", "url", "extra"), [("sqlalchemy", "o.db", "server"), ("psycopg", "postgresql://db/x", "postgres")]
)
def test_a_missing_extra_is_named(missing: str, url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(ConfigError, match=rf"pip install 'orchclient\[{extra}\]'"):
        DatabaseSink(url)


def test_making_the_client_does_not_load_sqlalchemy(tmp_path: Path) -> None:
    program = (
        "import sys, orchclient\n"
        f"client = orchclient.OrchestratorClient('a', outbox={str(tmp_path / 'a.db')!r}, database_url='o.db')\n"
        "sys.exit('sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=WAIT_S, check=False).returncode == 0


def test_doctor_and_verify_ask_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "o.db"
    monkeypatch.setenv("ORCHCLIENT_DB", str(tmp_path / "outbox.db"))
    monkeypatch.setenv("ORCHCLIENT_DATABASE_URL", str(db))
    with OrchestratorClient("a") as client:
        for number in range(5):
            client.update_task_status("task", "in_progress", {"n": number})
        assert client.flush(WAIT_S)
    with closing(Orchestrator.open(str(db))) as orchestrator:
        restored = Event.__table__.delete().where(Event.sequence > 3)
        orchestrator.writing(lambda session: session.execute(restored))
        from orchclient.server.models import Source, Span

        orchestrator.writing(lambda session: session.execute(Span.__table__.update().values(last=3)))
        orchestrator.writing(lambda session: session.execute(Source.__table__.update().values(highest=3)))
    assert "database answers" in said(capsys, "doctor")
    assert json.loads(said(capsys, "verify", "--json"))["destinations"]["database"]["missing"] == 2
    assert json.loads(said(capsys, "verify", "--repair", "--json"))["destinations"]["database"]["sent_again"] == 2
    assert len(stored(str(db))) == 5
    monkeypatch.setenv("ORCHCLIENT_DATABASE_URL", f"postgresql://orch:{PASSWORD}@127.0.0.1:1/x")
    told = said(capsys, "doctor") + said(capsys, "verify")
    assert "refused" in told
    assert PASSWORD not in told


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        app.run(list(arguments))
    captured = capsys.readouterr()
    return captured.out + captured.err
