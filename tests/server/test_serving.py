"""Servers in earnest: over sockets, in several processes, killed at any moment, with the real client and a shell."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import requests
from attrs import define, field, frozen
from sqlalchemy import func, select

from orchclient import OrchestratorClient
from orchclient.cli import app
from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event as CoreEvent
from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.core.ids import uuid7
from orchclient.delivery.transport import HttpTransport
from orchclient.server import people
from orchclient.server.models import Event
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import Message, TaskFilter
from orchclient.testing import ManualClock
from tests.server.browsing import Page
from tests.server.events import Outbox
from tests.server.servers import Served, answer_before_the_commit, free_port, posted

WAIT_S = 60


def stored(db: str) -> dict[str, int]:
    """How often each event id is stored."""
    orchestrator = Orchestrator.open(db)
    try:
        with orchestrator.reading() as session:
            rows = session.execute(select(Event.id, func.count()).group_by(Event.id)).all()
    finally:
        orchestrator.close()
    return {row[0]: row[1] for row in rows}


def gaps(db: str, outbox: Outbox) -> Any:
    orchestrator = Orchestrator.open(db)
    try:
        return orchestrator.report(outbox.source)["gaps"]
    finally:
        orchestrator.close()


# --- Killed at any moment -----------------------------------------------------------------------------------------


@define
class Sender:
    """An outbox that sends until it is told to end, each batch again until it is answered, as the real one does."""

    port: int
    outbox: Outbox
    acknowledged: list[str] = field(factory=list)
    repeats: int = 0

    def run(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            events = [self.outbox.status(f"task-{n % 3}", progress_percentage=n) for n in range(20)]
            while not self._sent(events):
                if is_over.wait(0.005):
                    return

    def _sent(self, events: list[Any]) -> bool:
        try:
            results = posted(self.port, events)
        except (OSError, HTTPException):
            return False
        assert set(results.values()) <= {"accepted", "duplicate"}, results
        self.repeats += sum(status == "duplicate" for status in results.values())
        self.acknowledged += results
        return True


def killed(served: Served, kills: int, seed: int) -> list[Sender]:
    """Send from two outboxes while the server is killed again and again."""
    chance, is_over = random.Random(seed), threading.Event()
    senders = [Sender(served.port, Outbox(agent=f"agent-{n}")) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(sender.run, is_over) for sender in senders]
        try:
            for _ in range(kills):
                served.start()
                await_answers(senders)
                time.sleep(chance.uniform(0, 0.1))  # when it is killed is what is tried
                served.kill()
            served.start()
            await_answers(senders)
        finally:
            is_over.set()
        for each in sending:
            each.result(WAIT_S)
    served.kill()
    return senders


def await_answers(senders: list[Sender]) -> None:
    """Wait until each sender had one more batch answered."""
    before, until = [len(sender.acknowledged) for sender in senders], time.monotonic() + WAIT_S
    while any(len(sender.acknowledged) == count for sender, count in zip(senders, before, strict=True)):
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.release)])
def test_no_acknowledged_event_is_lost_when_the_server_is_killed(database: str, kills: int) -> None:
    senders = killed(Served(database), kills, seed=kills)
    found = stored(database)
    acknowledged = [event_id for sender in senders for event_id in sender.acknowledged]
    assert len(acknowledged) >= 2 * 20 * kills
    assert [event_id for event_id in acknowledged if found.get(event_id) != 1] == []
    for sender in senders:
        assert gaps(database, sender.outbox) == []


def test_the_harness_finds_a_server_that_answers_before_it_commits(tmp_path: Path) -> None:
    db = str(tmp_path / "o.db")
    Orchestrator.open(db).close()
    senders = killed(Served(db, plant=answer_before_the_commit), 6, seed=1)
    found = stored(db)
    assert [event_id for sender in senders for event_id in sender.acknowledged if event_id not in found]


# --- Several processes on one database ----------------------------------------------------------------------------


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.release)])
def test_two_servers_on_one_database_lose_and_double_nothing(database: str, count: int) -> None:
    outboxes = [Outbox(agent=f"agent-{n}") for n in range(4)]
    each, size = count // len(outboxes), min(500, count // len(outboxes) // 5)

    def send(number: int) -> list[str]:
        """Batches to one server and the other by turns; every tenth twice, to both at the same time."""
        outbox, done = outboxes[number], []
        for first in range(0, each, size):
            steps = range(first, first + size)
            names = [f"shared-{n % 5}" if n % 2 else f"own-{number}" for n in steps]
            events = [outbox.status(name, metadata={outbox.agent: n}) for name, n in zip(names, steps, strict=True)]
            batch = first // size
            ports = [one.port, other.port] if batch % 10 == 3 else [(one, other)[batch % 2].port]
            with ThreadPoolExecutor(2) as pair:
                answers = list(pair.map(lambda port, sent=events: posted(port, sent, WAIT_S), ports))
            assert all(set(answer.values()) <= {"accepted", "duplicate"} for answer in answers)
            done += [event["id"] for event in events]
        return done

    with Served(database) as one, Served(database) as other, ThreadPoolExecutor(4) as pool:
        sent = [event_id for done in pool.map(send, range(4)) for event_id in done]
    found = stored(database)
    assert len(sent) == each * 4
    assert set(found) == set(sent)
    assert set(found.values()) == {1}
    orchestrator = Orchestrator.open(database)
    try:
        with orchestrator.reading() as session:
            metadata = {task.task_id: task.metadata for task in people.tasks(session, TaskFilter())}
        assert [orchestrator.report(outbox.source) for outbox in outboxes] == [{"highest": each, "gaps": []}] * 4
    finally:
        orchestrator.close()
    assert {name: metadata[name] for name in metadata if name.startswith("own-")} == {
        f"own-{number}": {f"agent-{number}": each - 2} for number in range(4)
    }
    for shared in range(5):
        last = max(n for n in range(each) if n % 2 and n % 5 == shared)
        assert metadata[f"shared-{shared}"] == {f"agent-{number}": last for number in range(4)}


def test_a_poll_at_one_server_is_woken_by_an_item_from_another(database: str) -> None:
    outbox = Outbox()
    with Served(database) as served:
        posted(served.port, [outbox.status()])
        url = f"{served.url}/v1/inbox?source={outbox.source}&wait=20"
        with ThreadPoolExecutor(1) as pool:
            poll = pool.submit(requests.get, url, timeout=WAIT_S)
            other = Orchestrator.open(database)
            try:
                assert other.message(Message("task-1", "hello", {"kind": "policy"}))
            finally:
                other.close()
            assert [item["data"]["text"] for item in poll.result(WAIT_S).json()["items"]] == ["hello"]


def test_a_server_ends_within_two_seconds_and_answers_the_polls_that_wait(tmp_path: Path) -> None:
    outboxes = [Outbox() for _ in range(5)]
    served = Served(str(tmp_path / "o.db")).start()
    with ThreadPoolExecutor(5) as pool:
        urls = [f"{served.url}/v1/inbox?source={outbox.source}&wait=25" for outbox in outboxes]
        polls = [pool.submit(requests.get, url, timeout=WAIT_S) for url in urls]
        until = time.monotonic() + WAIT_S
        while "orchclient_polls_waiting 5" not in requests.get(f"{served.url}/metrics", timeout=WAIT_S).text:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert served.stop() < 2.5
        assert [poll.result(WAIT_S).json()["items"] for poll in polls] == [[]] * 5


# --- The real client ----------------------------------------------------------------------------------------------


def test_the_client_delivers_to_the_server_and_both_agree(tmp_path: Path, database: str) -> None:
    with Served(database) as served:
        with OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", url=served.url) as client:
            for n in range(50):
                client.update_task_status(f"task-{n % 5}", "in_progress", {"n": n}, progress_percentage=n)
            question = client.request_clarification("task-1", ["Which one?"], options=[["a", "b"]], key="which")
            client.report_completion("task-2", None, {"tests_passed": 3})
            client.escalate_error("task-3", "database_connection", "refused", fatal=False)
            report = client.flush(timeout=WAIT_S)
            assert (report.pending, report.dead) == (0, 0)
        orchestrator = Orchestrator.open(database)
        try:
            with orchestrator.reading() as session:
                tasks = {each.task_id: each for each in people.tasks(session, TaskFilter())}
                needs = people.needs(session, orchestrator.now_us())
        finally:
            orchestrator.close()
        verified = shell("verify", "--json", db=tmp_path / "outbox.db", url=served.url)
    assert [tasks[f"task-{n}"].metadata for n in range(5)] == [{"n": 45 + n} for n in range(5)]
    assert (tasks["task-1"].status, tasks["task-2"].status) == ("clarification_needed", "completed")
    assert [each.id for each in needs.questions] == [question.id]
    assert [each.error_type for each in needs.incidents] == ["database_connection"]
    found = json.loads(verified.stdout)["destinations"]["orchestrator"]
    assert (found["held"], found["missing"], found["lost"]) == (53, 0, 0)


def test_an_agent_that_waits_gets_the_answer_and_the_decision_of_a_person(tmp_path: Path, database: str) -> None:
    """The whole way there and back: outbox, server, person, long poll, outbox, agent."""
    with (
        Served(database) as served,
        OrchestratorClient("backend-7", outbox=tmp_path / "outbox.db", url=served.url) as client,
    ):
        question = client.request_clarification("task-1", "Which one?", options=["a", "b"])
        handed_in = client.report_completion("task-1", None, {"tests_passed": 3}, review=True)
        assert client.flush(WAIT_S)
        assert handed_in.review is not None
        _say(
            served,
            "answers",
            question_id=question.id,
            outcome="answered",
            answers=[{"question_id": "q1", "options": ["b"]}],
        )
        _say(served, "decisions", review_id=handed_in.event_id, outcome="rejected", comment="no tests")
        answer, decision = question.wait(WAIT_S), handed_in.review.wait(WAIT_S)
        assert answer is not None
        assert decision is not None
        assert (answer.choice, answer.responder.kind, decision.outcome) == ("b", "human", "rejected")


class Held(HttpTransport):
    """A network that holds events back until it is told to let them pass."""

    def __init__(self, passes: threading.Event) -> None:
        super().__init__()
        self._passes = passes

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        if request.method == "POST":
            assert self._passes.wait(WAIT_S)
        return super().send(request, deadline_s=deadline_s)


def broken(agent: str) -> CoreEvent:
    """An event that the server refuses: no verb of ours makes one."""
    id_, now_us = uuid7(time.time_ns() // 1_000_000, os.urandom(10)), time.time_ns() // 1000
    body = body_text(id_, "task.status.v1", lane_of("t", agent), "low", now_us, ',"status":"nonsense"')
    return CoreEvent(id_, "t", agent, "task.status.v1", "low", now_us, crc32(body.encode()), body)


def words_of(served: Served, path: str) -> str:
    reply = requests.get(served.url + path, headers={"Accept": "text/html"}, timeout=WAIT_S)
    assert reply.status_code == 200
    return " ".join(Page(reply.text).words.split())


def test_the_page_shows_what_the_outbox_of_real_agents_has_still_to_deliver(database: str, tmp_path: Path) -> None:
    passes, clock = threading.Event(), ManualClock(time.time_ns() // 1000)
    passes.set()
    with (
        Served(database) as served,
        OrchestratorClient(
            "builder", outbox=tmp_path / "outbox.db", url=served.url, clock=clock, transport=lambda: Held(passes)
        ) as client,
        OrchestratorClient("tester", outbox=tmp_path / "outbox.db", background=False) as neighbour,
    ):
        neighbour.update_task_status("u", "completed")
        client.update_task_status("t", "in_progress")
        client._station.record(broken("builder"), None, True)
        assert client.flush(WAIT_S).dead == 1
        assert words_of(served, "/agents").count("not reported") == 2
        passes.clear()
        for percent in range(3):
            client.update_task_status("t", "in_progress", progress_percentage=percent)
        clock.advance(90)
        until = time.monotonic() + WAIT_S
        while client.health().sinks[0].pending < 4:
            assert time.monotonic() < until, "there was no heartbeat"
            time.sleep(0.01)
        passes.set()
        assert client.flush(WAIT_S)
        words = words_of(served, "/agents")
        for agent in ("builder", "tester"):
            assert re.search(rf"{agent} alive just now 3 pending 1 min 1 dead", words), words
        told = requests.get(f"{served.url}/api/agents", timeout=WAIT_S).json()
        assert {(each["pending"], each["dead"]) for each in told} == {(3, 1)}
        client.report_completion("t", None, {})
        assert client.flush(WAIT_S)
        clock.advance(90)
        while "0 pending" not in (words := words_of(served, "/agents")):
            assert time.monotonic() < until, words
            time.sleep(0.01)
        assert words.count("0 pending none 1 dead") == 2


def _say(served: Served, what: str, **body: Any) -> None:
    reply = requests.post(f"{served.url}/api/{what}", json=body, timeout=WAIT_S)
    assert reply.status_code // 100 == 2, reply.text


# --- The shell ----------------------------------------------------------------------------------------------------


def shell(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; settings become variables of the environment."""
    env = {**os.environ, **{f"ORCHCLIENT_{name.upper()}": str(value) for name, value in settings.items()}}
    command = [sys.executable, "-m", "orchclient", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=WAIT_S, check=False)


@frozen
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, which has imported everything already."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            app.run(list(arguments))
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_tokens_are_made_listed_and_revoked_from_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("ORCHCLIENT_SERVE_DB", str(tmp_path / "o.db"))
    assert command("serve", "token", "list").out == "No tokens: only this machine is served.\n"
    made = command("serve", "token", "add", "ada", "--kind", "person")
    assert (made.code, made.err) == (0, "")
    assert made.out.startswith("orch_")
    listed = command("serve", "token", "list", "--json")
    token = json.loads(listed.out)["tokens"][0]
    assert (token["name"], token["kind"], token["revoked_at"]) == ("ada", "person", None)
    assert made.out.strip() not in listed.out
    assert command("serve", "token", "revoke", "ada").out == "Revoked 1 token.\n"
    again = command("serve", "token", "revoke", "ada")
    assert (again.code, again.out) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--db", "postgresql://orch:hunter2@db/x"], "ORCHCLIENT_SERVE_DB"),
        (["--db", "o.db", "--retention", "5d"], "30d"),
        (["--db", "mysql://x/y", "token", "list"], "PostgreSQL"),
        (["--db", "/proc/nowhere/o.db", "token", "list"], "/proc/nowhere/o.db"),
        (["--db", "postgresql://nobody@127.0.0.1:1/x", "token", "list"], "cannot be opened"),
    ],
)
def test_serving_refuses_what_cannot_be_in_plain_words(command: Command, arguments: list[str], words: str) -> None:
    done = command("serve", *arguments)
    assert (done.code in (1, 2), done.out) == (True, "")
    assert words in done.err
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


def _browser_that_stays(place: Path) -> str:
    """A program that notes what it is to show, and does not return: as browsers in a terminal do."""
    program = place / "browser"
    note = f'echo $$ > {place}/browser-pid; printf %s "$1" > {place}/new; mv {place}/new {place}/opened'
    program.write_text(f"#!/bin/sh\n{note}\nexec sleep 90 > {os.devnull} 2>&1\n")
    program.chmod(0o700)
    return f"{program} %s"


def test_the_command_serves_opens_a_browser_logs_in_json_and_ends_at_a_signal(tmp_path: Path) -> None:
    port = free_port()
    command = ["serve", "--db", str(tmp_path / "o.db"), "--port", str(port), "--log", "json", "--open"]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchclient", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": _browser_that_stays(tmp_path)},
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == f"Listening on http://127.0.0.1:{port}\n"
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S).json() == {"status": "ok"}
        assert requests.get(f"http://127.0.0.1:{port}/nothing?token=secret", timeout=WAIT_S).status_code == 404
        until = time.monotonic() + WAIT_S
        while not (tmp_path / "opened").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert (tmp_path / "opened").read_text() == f"http://127.0.0.1:{port}"
        process.terminate()
        stdout, stderr = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        os.kill(int((tmp_path / "browser-pid").read_text()), signal.SIGKILL)
    assert (process.returncode, stdout) == (0, "")
    line = json.loads(stderr.splitlines()[0])
    assert (line["level"], line["method"], line["path"], line["status"]) == ("info", "GET", "/nothing", 404)
    assert "secret" not in stderr


def test_a_port_that_is_taken_is_told_in_plain_words(tmp_path: Path) -> None:
    with Served(str(tmp_path / "a.db")) as served:
        done = shell("serve", "--db", str(tmp_path / "b.db"), "--port", str(served.port))
    assert done.returncode == 2
    assert f"127.0.0.1:{served.port}" in done.stderr
    assert "--port" in done.stderr
