"""Any number of destinations: added and removed at run time, from settings and entry points, each on its own."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient, Settled
from orchclient.core.batch import Batch
from orchclient.core.errors import ConfigError
from orchclient.core.policy import Action, Fate, Item, Verdict, all_delivered
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient
from tests.testing.test_sink_contract import FileSink

SOON_S = 20.0


class Memory(FileSink):
    """Keeps in memory what arrives, and answers as it is told."""

    def __init__(self, name: str = "memory", *, from_beginning: bool = True) -> None:
        super().__init__(Path(name), name)
        self.from_beginning = from_beginning
        self.events: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.answer: Any = lambda batch: all_delivered(batch.ids)

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        verdict: Verdict = self.answer(batch)
        with self.changed:
            if verdict.action is Action.SETTLE:
                self.events += batch.events
            self.changed.notify_all()
        return verdict

    def wait_for(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: len(self.events) >= count, SOON_S)

    @property
    def tasks(self) -> list[str]:
        return [event["subject"] for event in self.events]


def test_a_destination_with_a_wire_of_its_own_gets_every_event(make_client: MakeClient, tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "audit.jsonl")
    client = make_client(sinks=[sink])
    ids = [client.update_task_status("t", "testing", None, percent).event_id for percent in range(20)]
    assert client.flush(SOON_S)
    assert [json.loads(line)["id"] for line in sink.path.read_text().splitlines()] == ids


def test_destinations_are_added_and_removed_while_the_agent_records(make_client: MakeClient) -> None:
    first, second = Memory("first"), Memory("second")
    client = make_client(sinks=[first])
    client.update_task_status("one", "testing")
    assert first.wait_for(1)
    client.add_sink(second)
    client.update_task_status("two", "testing")
    assert second.wait_for(2)
    assert first.wait_for(2)
    client.remove_sink("first")
    client.update_task_status("three", "testing")
    assert second.wait_for(3)
    assert first.tasks == ["one", "two"]
    client.flush(SOON_S)  # settled, not only arrived
    assert {sink.name: sink.pending for sink in client.health().sinks} == {"first": 1, "second": 0}
    client.add_sink(first)
    assert first.wait_for(3)


def test_a_destination_that_begins_now_gets_nothing_of_before(make_client: MakeClient) -> None:
    client = make_client(sinks=[])
    client.update_task_status("before", "testing")
    chat = Memory("chat", from_beginning=False)
    client.add_sink(chat)
    client.update_task_status("after", "testing")
    assert chat.wait_for(1)
    assert client.flush(SOON_S)
    assert chat.tasks == ["after"]


@pytest.mark.parametrize("background", [True, False])
def test_a_destination_that_begins_now_gets_the_first_event_of_its_agent(
    make_client: MakeClient, background: bool
) -> None:
    make_client(sinks=[]).update_task_status("before", "testing")
    chat = Memory("chat", from_beginning=False)
    client = make_client("agent-2", sinks=[chat], background=background)
    client.escalate_error("first", "build_failure", "help")
    client.update_task_status("second", "testing")
    assert client.flush(SOON_S)
    assert chat.tasks == ["first", "second"]


def test_a_forgotten_destination_holds_nothing_any_more(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    chat = Memory("chat")
    chat.answer = lambda batch: Verdict(Action.PAUSE, "no")
    client = make_client(sinks=[chat])
    client.update_task_status("t", "testing")
    client.flush(SOON_S)
    left = client.remove_sink("chat", forget=True)
    assert left is not None
    assert left.pending == 1
    assert client.health().sinks == ()
    assert "1 events that were pending" in caplog.text
    with pytest.raises(ConfigError, match="no destination 'chat'"):
        client.remove_sink("chat")


@pytest.mark.parametrize("name", ["", "Upper", "a/b", "../x", "x" * 65, "sp ace"])
def test_a_name_that_cannot_be_kept_is_refused(name: str, make_client: MakeClient) -> None:
    with pytest.raises(ConfigError, match="a name has"):
        make_client(sinks=[Memory(name)])


def test_two_destinations_of_one_name_are_refused(make_client: MakeClient) -> None:
    with pytest.raises(ConfigError, match="two destinations are named 'memory'"):
        make_client(sinks=[Memory(), Memory()])
    client = make_client(sinks=[Memory()])
    with pytest.raises(ConfigError, match="two destinations are named 'memory'"):
        client.add_sink(Memory())


def test_offline_sends_nothing_to_a_destination_that_is_added_either(make_client: MakeClient) -> None:
    sink = Memory()
    client = make_client(mode="offline", background=False)
    client.add_sink(sink)
    client.update_task_status("t", "testing")
    client.flush(1)
    assert sink.events == []


def test_one_destination_in_trouble_delays_no_other(make_client: MakeClient) -> None:
    stuck, well = Memory("stuck"), Memory("well")
    release = threading.Event()

    def hang(batch: Batch) -> Verdict:
        release.wait(SOON_S)
        return all_delivered(batch.ids)

    stuck.answer = hang
    client = make_client(sinks=[stuck, well])
    for percent in range(100):
        client.update_task_status("t", "testing", None, percent)
    assert well.wait_for(100)
    assert stuck.events == []
    release.set()
    assert stuck.wait_for(100)


def raising(batch: Batch) -> Verdict:
    raise ValueError("token=canary-secret-55 is wrong")


def test_a_destination_whose_code_raises_keeps_everything_and_is_told_once(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Memory()
    sink.answer = raising
    client = make_client(sinks=[sink], token="canary-secret-55")
    client.update_task_status("t", "testing")
    client.flush(SOON_S)
    client.flush(SOON_S)
    (report,) = client.health().sinks
    assert (report.pending, report.state) == (1, "waiting")
    assert "raised ValueError" in report.last_error
    assert sum("its code raised" in record.message for record in caplog.records) == 1
    assert "canary-secret-55" not in caplog.text + report.last_error
    sink.answer = lambda batch: all_delivered(batch.ids)
    assert client.flush(SOON_S)


def test_an_event_that_a_destination_forgot_to_mention_is_not_delivered(make_client: MakeClient) -> None:
    sink = Memory()
    sink.answer = lambda batch: Verdict(Action.SETTLE, items={"stranger": Item(Fate.DELIVERED)})
    client = make_client(sinks=[sink])
    client.update_task_status("t", "testing")
    client.flush(SOON_S)
    (report,) = client.health().sinks
    assert (report.delivered, report.parked, report.pending) == (0, 1, 1)


# --- callbacks --------------------------------------------------------------------------------------------------------


class Heard:
    """What a callback was told."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []
        self._changed = threading.Condition()

    def __call__(self, settled: Settled) -> None:
        with self._changed:
            self.settled.append(settled)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Settled]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.settled) >= count, SOON_S)
            return list(self.settled)


def test_an_agent_that_asks_is_told_of_every_event_that_is_delivered_or_dead(
    make_client: MakeClient, receiver: Receiver
) -> None:
    delivered, dead = Heard(), Heard()
    receiver.reject("bad", code="unknown_task", detail="never heard of it")
    client = make_client(url=receiver.url, on_delivered=delivered, on_dead=dead)
    good, bad = client.update_task_status("good", "testing"), client.update_task_status("bad", "testing")
    assert [(each.event_id, each.destination, each.reason) for each in delivered.wait_for(1)] == [
        (good.event_id, "orchestrator", "")
    ]
    (first, *_) = dead.wait_for(1)
    assert (first.event_id, first.task_id, first.seq) == (bad.event_id, "bad", bad.seq)
    assert first.reason == "unknown_task: never heard of it"


def test_a_callback_that_raises_harms_nobody(
    make_client: MakeClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def once(settled: Settled) -> None:
        heard(settled)
        raise RuntimeError("in the agent's code")

    client = make_client(url=receiver.url, on_delivered=once)
    for percent in range(5):
        client.update_task_status("t", "testing", None, percent)
    assert len(heard.wait_for(5)) == 5
    assert client.flush(SOON_S)
    assert "on_delivered raised" in caplog.text


def test_a_callback_that_hangs_delays_neither_delivery_nor_the_end(
    make_client: MakeClient, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    client = make_client(url=receiver.url, on_delivered=lambda settled: release.wait(60))
    caplog.set_level(logging.WARNING)
    for percent in range(50):
        client.update_task_status("t", "testing", None, percent)
    assert client.flush(SOON_S)
    assert len(receiver.events) == 50
    client.close(0.2)
    release.set()


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the configuration file that is in force."""
    file = tmp_path / "config.toml"
    monkeypatch.setenv("ORCHCLIENT_CONFIG", str(file))
    return file.write_text


def test_a_table_of_the_configuration_is_a_destination(
    written: Any, make_client: MakeClient, receiver: Receiver, tmp_path: Path
) -> None:
    with Receiver(token="mirror-token") as mirror:
        secret = tmp_path / "token"
        secret.write_text("mirror-token")
        secret.chmod(0o600)
        written(f'[sinks.mirror]\nkind = "orchestrator"\nurl = "{mirror.url}"\ntoken_file = "{secret}"\n')
        client = make_client(url=receiver.url)
        client.update_task_status("t", "testing")
        assert client.flush(SOON_S)
        assert (len(mirror.events), len(receiver.events)) == (1, 1)


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a kind of destination."""
    info = tmp_path / "site" / "acme_audit-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-audit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[orchclient.sinks]\nacme-audit = acme_audit:make\nacme-broken = acme_audit:nothing\n"
    )
    (tmp_path / "site" / "acme_audit.py").write_text(
        "from pathlib import Path\n"
        "from tests.testing.test_sink_contract import FileSink\n"
        "def make(name, options, secrets):\n"
        "    return FileSink(Path(options['path']), name)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.usefixtures("_installed")
def test_an_installed_package_brings_a_kind_of_destination(
    written: Any, make_client: MakeClient, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    written(f'[sinks.audit]\nkind = "acme-audit"\npath = "{path}"\n')
    client = make_client()
    client.update_task_status("t", "testing")
    assert client.flush(SOON_S)
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[sinks.a]\nurl = "x"\n', r"\[sinks.a\] has no kind; known: .*orchestrator"),
        ('[sinks.a]\nkind = "orchestratr"\n', "did you mean orchestrator"),
        ('[sinks.a]\nkind = "acme-broken"\n', "cannot be loaded"),
        ('[sinks.a]\nkind = "orchestrator"\n', "url is missing"),
        ('[sinks.a]\nkind = "orchestrator"\nurl = "http://else.example"\n', "plain http"),
        (
            '[sinks.a]\nkind = "orchestrator"\nurl = "https://x.example"\ntokn_file = "x"\n',
            "option 'tokn_file'",
        ),
        ('[sinks.a]\nkind = "orchestrator"\nurl = "https://x.example"\ntoken = "x"\n', "token_file or _env"),
        ('[sinks.a]\nkind = "orchestrator"\nurl = "https://x.example"\ntoken_env = "NOT_SET_X"\n', "is not set"),
        ('[sinks.Bad]\nkind = "orchestrator"\nurl = "https://x.example"\n', "a name has 1 to 64"),
        ('sinks = "audit"\n', "expected tables such as"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_its_name(text: str, message: str, written: Any, outbox_path: Path) -> None:
    written(text)
    with pytest.raises(ConfigError, match=message):
        OrchestratorClient("a", outbox=outbox_path)


def test_a_fault_of_one_of_two_orchestrators_leaves_the_other_alone(
    written: Any, make_client: MakeClient, receiver: Receiver
) -> None:
    with Receiver() as mirror:
        mirror.always(Fault.status(503))
        written(f'[sinks.mirror]\nkind = "orchestrator"\nurl = "{mirror.url}"\n')
        client = make_client(url=receiver.url)
        for percent in range(10):
            client.update_task_status("t", "testing", None, percent)
        assert receiver.wait_for(10, SOON_S)
        client.flush(SOON_S)
        assert {sink.name: sink.pending for sink in client.health().sinks} == {"mirror": 10, "orchestrator": 0}
        mirror.heal()
        # A request that was under way when it healed may be refused, which ends the flush that it is part of.
        assert client.flush(SOON_S) or client.flush(SOON_S)
        assert len(mirror.events) == 10
