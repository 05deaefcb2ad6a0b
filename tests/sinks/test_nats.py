"""The destination ``nats`` against a real server: the contract, order, outages, and agents that are killed."""

from __future__ import annotations

import json
import random
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchclient import OrchestratorClient, config, destinations
from orchclient.cli import app
from orchclient.core.batch import Batch
from orchclient.core.errors import ConfigError
from orchclient.core.policy import Action, Fate
from orchclient.core.secret import KnownSecrets
from orchclient.sinks import nats
from orchclient.sinks.nats import NatsSink, token_of
from orchclient.sinks.sink import Closed, DirectSink
from orchclient.testing.sink_contract import DirectSinkContract, batch_of
from tests.server.agents import ended, run
from tests.server.events import Outbox
from tests.sinks import nats_agents
from tests.sinks.nats_agents import sink_of
from tests.sinks.nats_server import NatsServer, binary
from tests.stopwatch import Stopwatch

WAIT_S = 60.0
PASSWORD = "canary-password-91c2"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with a stream for everything."""
    directory = tmp_path / "nats"
    directory.mkdir()
    with NatsServer(directory) as running:
        running.add_stream()
        yield running


@pytest.fixture
def sink(server: NatsServer) -> Iterator[NatsSink]:
    made = sink_of(server.url)
    yield made
    made.close()


def batch(events: list[dict[str, Any]]) -> Batch:
    return Batch.of_texts([event["id"] for event in events], [json.dumps(event) for event in events])


def recorded(outbox: Path) -> list[str]:
    with closing(sqlite3.connect(outbox)) as con:
        rows = con.execute("SELECT body FROM events ORDER BY seq").fetchall()
    return [json.loads("{" + (body if isinstance(body, str) else body.decode()))["id"] for (body,) in rows]


def in_order(server: NatsServer) -> bool:
    """Whether the events of each task stand in the order of their sequences."""
    reached: dict[str, str] = {}
    for subject, event in server.held():
        if event["sequence"] <= reached.get(subject, ""):
            return False
        reached[subject] = event["sequence"]
    return True


class TestNatsSink(DirectSinkContract):
    secrets = (PASSWORD,)

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> Iterator[None]:
        self.server, self.made = server, list[NatsSink]()
        yield
        for sink in self.made:
            sink.close()

    def make_sink(self) -> NatsSink:
        self.made.append(sink_of(self.server.url.replace("//", f"//orch:{PASSWORD}@")))  # nobody asks for it there
        return self.made[-1]

    def arrived(self, sink: DirectSink) -> Sequence[str]:
        return self.server.ids()


# --- Subjects -----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=300), min_size=2, max_size=2, unique=True))
def test_any_task_is_one_token_of_its_own(tasks: list[str]) -> None:
    tokens = [token_of(task) for task in tasks]
    assert tokens[0] != tokens[1]
    for task, token in zip(tasks, tokens, strict=True):
        assert re.fullmatch(r"[A-Za-z0-9_=-]{0,300}", token)
        assert token or not task


def test_no_task_breaks_the_grammar_of_subjects(server: NatsServer, tmp_path: Path) -> None:
    tasks = ["a.b", "*", ">", "a b", "$SYS", "=2E", "%", "käse", "\U0001f600" * 256, "x" * 256, "‮evil"]
    with OrchestratorClient("a", outbox=tmp_path / "outbox.db", sinks=[sink_of(server.url)]) as client:
        for task in tasks:
            client.update_task_status(task, "testing")
        assert client.flush(WAIT_S)
    held = server.held()
    assert {event["subject"] for _, event in held} == set(tasks)
    assert len({subject for subject, _ in held}) == len(tasks)
    assert {subject.count(".") for subject, _ in held} == {2}


# --- Delivery -----------------------------------------------------------------------------------------------------


def test_events_come_in_the_order_of_their_tasks(server: NatsServer, tmp_path: Path) -> None:
    with OrchestratorClient("a", outbox=tmp_path / "outbox.db", sinks=[sink_of(server.url)]) as client:
        for number in range(600):
            client.update_task_status(f"task-{number % 7}", "in_progress", {"n": number})
        assert client.flush(WAIT_S)
    assert sorted(server.ids()) == sorted(recorded(tmp_path / "outbox.db"))
    assert in_order(server)


def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(server: NatsServer, tmp_path: Path) -> None:
    with OrchestratorClient("a", outbox=tmp_path / "outbox.db", sinks=[sink_of(server.url)]) as client:
        for life in range(3):
            for number in range(200):
                client.update_task_status(f"task-{number % 5}", "in_progress", {"n": 1000 * life + number})
                if number == 100:
                    server.kill()
            server.start()
            assert client.flush(WAIT_S)
    assert sorted(server.ids()) == sorted(recorded(tmp_path / "outbox.db"))
    assert in_order(server)


def test_a_server_that_is_down_is_waited_for(server: NatsServer, tmp_path: Path) -> None:
    server.kill()
    with OrchestratorClient("a", outbox=tmp_path / "outbox.db", sinks=[sink_of(server.url)]) as client:
        client.update_task_status("task", "testing")
        report = client.flush(WAIT_S)
        assert report.destinations["nats"].state == "waiting"
        server.start()
        assert client.flush(WAIT_S)
    assert len(server.ids()) == 1


def test_without_a_stream_the_operator_is_told_how_to_make_one(tmp_path: Path) -> None:
    with (
        NatsServer(tmp_path) as server,
        OrchestratorClient("a", outbox=tmp_path / "outbox.db", sinks=[sink_of(server.url)]) as client,
    ):
        client.update_task_status("task", "testing")
        told = client.flush(WAIT_S).destinations["nats"]
        assert (told.pending, "nats stream add" in told.reason) == (1, True)
        server.add_stream()
        assert client.flush(WAIT_S)
        assert len(server.ids()) == 1


def test_a_full_stream_is_waited_for_and_order_is_kept(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        server.add_stream(max_msgs=3)
        sink, outbox = sink_of(server.url), Outbox()
        events = [outbox.status() for _ in range(5)]
        verdict = sink.deliver(batch(events), deadline_s=WAIT_S)
        fates = [verdict.items[event["id"]].fate for event in events]
        assert fates == [Fate.DELIVERED] * 3 + [Fate.RETRY] * 2
        assert "maximum messages" in verdict.items[events[3]["id"]].reason
        assert sink.deliver(batch(events[3:]), deadline_s=WAIT_S).action is Action.BACK_OFF
        sink.close()


def test_what_is_larger_than_the_server_takes_is_refused_alone(tmp_path: Path) -> None:
    with NatsServer(tmp_path, settings="max_payload: 4096") as server:
        server.add_stream()
        sink, outbox = sink_of(server.url), Outbox()
        events = [outbox.status(), outbox.status(current_step="x" * 5000), outbox.status()]
        verdict = sink.deliver(batch(events), deadline_s=WAIT_S)
        assert [verdict.items[e["id"]].fate for e in events] == [Fate.DELIVERED, Fate.DEAD, Fate.DELIVERED]
        assert "4096 bytes" in verdict.items[events[1]["id"]].reason
        sink.close()


@pytest.mark.parametrize(
    ("login", "sign"), [("", "uthorization"), (f"orch:{PASSWORD}", "uthorization"), ("reader:right", "ermissions")]
)
def test_refused_credentials_pause_it_and_show_nothing(tmp_path: Path, login: str, sign: str) -> None:
    rights = '{user: reader, password: right, permissions: {publish: "other.>", subscribe: "_INBOX.>"}}'
    users = f"authorization {{ users: [{{user: admin, password: sesame}}, {rights}] }}"
    with NatsServer(tmp_path, settings=users, login="admin:sesame") as server:
        server.add_stream()
        sink = sink_of(server.url.replace("//", f"//{login}@" if login else "//"))
        verdict = sink.deliver(batch_of(1), deadline_s=10)
        assert (verdict.action, sign in verdict.reason) == (Action.PAUSE, True)
        assert PASSWORD not in f"{verdict} {sink!r} {sink.trouble(5)}"
        sink.close()
        allowed = sink_of(server.url.replace("//", "//admin:sesame@"))
        assert allowed.deliver(batch_of(1), deadline_s=10).action is Action.SETTLE
        allowed.close()


def test_a_server_that_says_nothing_costs_the_deadline_and_no_event(server: NatsServer, sink: NatsSink) -> None:
    assert sink.deliver(batch_of(1), deadline_s=WAIT_S).action is Action.SETTLE
    server.pause()
    try:
        assert sink.deliver(batch_of(3), deadline_s=0.3).action is Action.BACK_OFF
    finally:
        server.go_on()
    assert sink.deliver(batch_of(3), deadline_s=WAIT_S).action is Action.SETTLE
    assert sorted(server.ids()) == sorted(batch_of(3).ids)


def test_an_end_cuts_what_is_under_way(server: NatsServer, sink: NatsSink) -> None:
    assert sink.deliver(batch_of(1), deadline_s=WAIT_S).action is Action.SETTLE
    server.pause()
    ended_by: list[BaseException] = []

    def deliver() -> None:
        try:
            sink.deliver(batch_of(3), deadline_s=WAIT_S)
        except Closed as error:
            ended_by.append(error)

    thread = threading.Thread(target=deliver)
    thread.start()
    while sink._line._task is None:
        time.sleep(0.001)
    with Stopwatch() as took:
        sink.close()
        thread.join(WAIT_S)
        server.go_on()
    assert (len(ended_by), took.s < 5) == (1, True)
    assert sink.deliver(batch_of(3), deadline_s=WAIT_S).action is Action.SETTLE


def test_tls_is_verified(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    pem = tmp_path / "server.pem"
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "server.key"), "-out", str(pem)]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *subject], check=True, capture_output=True)
    settings = f'tls {{ cert_file: "{pem}", key_file: "{tmp_path / "server.key"}" }}'
    with NatsServer(tmp_path, settings=settings, scheme="tls") as server:
        strange = sink_of(server.url)
        verdict = strange.deliver(batch_of(1), deadline_s=10)
        assert (verdict.action, "certificate" in verdict.reason) == (Action.BACK_OFF, True)
        (trusted,) = sinks_of(servers=[server.url], ca_file=str(pem))
        assert "nats stream add" in trusted.deliver(batch_of(1), deadline_s=10).reason
        strange.close()
        trusted.close()


# --- Killed, forked -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.release)])
def test_an_agent_that_is_killed_loses_and_doubles_nothing(server: NatsServer, tmp_path: Path, kills: int) -> None:
    outbox, chance = tmp_path / "outbox.db", random.Random(kills)
    for number in range(kills):
        life = (str(outbox), server.url, chance.randint(1, 4), number % 2 == 0)
        assert ended([run(nats_agents.killed, *life)]) == [-9]
    assert ended([run(nats_agents.whole, str(outbox), server.url, 1)]) == [0]
    assert sorted(server.ids()) == sorted(recorded(outbox))
    assert in_order(server)


def test_the_harness_finds_a_destination_that_says_so_too_early(server: NatsServer, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.db"
    assert ended([run(nats_agents.too_early, str(outbox), server.url)]) == [0]
    assert set(server.ids()) < set(recorded(outbox))


def test_a_fork_harms_neither_the_parent_nor_the_child(server: NatsServer, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.db"
    assert ended([run(nats_agents.forking, str(outbox), server.url)]) == [0]
    assert server.ids() == recorded(outbox)


# --- Settings -----------------------------------------------------------------------------------------------------


def sinks_of(**table: Any) -> Any:
    settings = config.load({}, sinks={"events": {"kind": "nats", **table}})
    return destinations.configured(settings, KnownSecrets())


def test_the_variable_alone_makes_the_destination(
    server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHCLIENT_NATS_URL", server.url)
    monkeypatch.setenv("ORCHCLIENT_DB", str(tmp_path / "outbox.db"))
    with OrchestratorClient("a") as client:
        client.update_task_status("task", "testing")
        assert client.flush(WAIT_S)
    assert len(server.ids()) == 1
    with pytest.raises(SystemExit):
        app.run(["doctor"])
    assert "nats answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({}, "servers"),
        ({"servers": ["tls://a"], "nats_url_env": "HOME"}, "no URL|one of"),
        ({"servers": ["nats://far.example:4222"]}, "not encrypted"),
        ({"servers": ["http://a"]}, "no URL"),
        ({"servers": [f"tls://orch:{PASSWORD}@a"]}, "has credentials"),
        ({"nats_url": f"tls://orch:{PASSWORD}@a"}, "nats_url_file or _env"),
        ({"servers": ["tls://a"], "prefix": "a.*"}, "prefix"),
        ({"servers": ["tls://a"], "subjects": []}, "unknown option 'subjects'"),
    ],
)
def test_a_table_that_is_not_usable_is_refused_in_plain_words(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        sinks_of(**table)
    assert PASSWORD not in str(refused.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'orchclient\[nats\]'"):
        sink_of("nats://127.0.0.1:1")


def test_the_binary_is_there_or_the_tests_say_why_not() -> None:
    assert Path(binary()).exists()
