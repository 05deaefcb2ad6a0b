"""``orchclient verify``: what an orchestrator lost is found and sent again, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.core.source_report import GAPS_AT_MOST, SourceReport, source_report
from orchclient.outbox import redelivery
from orchclient.testing import Fault, Receiver
from tests.cli.command import Command
from tests.conftest import MakeClient


@pytest.fixture
def command(outbox_path: Path, receiver: Receiver) -> Command:
    return Command(outbox_path, receiver.url)


@pytest.fixture
def client(make_client: MakeClient, receiver: Receiver) -> OrchestratorClient:
    """Twenty events of four tasks, delivered."""
    client = make_client(background=False, url=receiver.url)
    for number in range(20):
        client.update_task_status(f"t-{number % 4}", "testing", progress_percentage=number)
    assert client.flush(20)
    return client


def seqs(receiver: Receiver) -> list[int]:
    return sorted(int(each["sequence"]) for each in receiver.events)


def lose(receiver: Receiver, *lost: int) -> None:
    assert receiver.forget(lambda event: int(event["sequence"]) in lost) == len(lost)


def test_all_is_held(client: OrchestratorClient, command: Command) -> None:
    ended = command("verify")
    assert (ended.code, ended.out) == (0, "orchestrator  20 held, 0 pending\n")


def test_an_orchestrator_that_lost_a_day_is_healed(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    lose(receiver, 3, 7, 8, *range(15, 21))
    found = command("verify")
    assert (found.code, "9 events missing there" in found.out) == (1, True)
    assert seqs(receiver) == [1, 2, 4, 5, 6, *range(9, 15)]
    ended = command("verify", "--repair", "--json")
    assert (ended.code, ended.document["destinations"]["orchestrator"]["sent_again"]) == (0, 9)
    assert seqs(receiver) == list(range(1, 21))
    assert not receiver.repeats
    assert command("verify").code == 0
    assert command.counts() == {"delivered": 20, "pending": 0, "dead": 0, "expired": 0}


def test_pending_dead_and_expired_events_are_not_missing(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.reject("bad")
    receiver.retry("later")
    for task in ("bad", "later", "fine"):
        client.update_task_status(task, "testing")
    client.flush(10)
    found = command.json("verify")["destinations"]["orchestrator"]
    assert (found["missing"], found["lost"], found["pending"]) == (0, 0, 1)
    assert command("prune", "--dead", "--older-than", "0s").code == 0
    assert command("verify").code == 0


def test_what_is_pruned_here_as_well_is_lost_and_told_once(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    assert command("prune", "--older-than", "0s").code == 0
    lose(receiver, 4, 5, 6, 20)
    found = command("verify")
    assert (found.code, "3 events lost for good" in found.out) == (4, True)
    ended = command("verify", "--repair")
    assert ended.code == 4
    assert "1 event sent again" in ended.out
    assert "3 events lost for good: pruned here, expired now" in ended.out
    assert command.counts() == {"delivered": 18, "pending": 0, "dead": 0, "expired": 3}
    (expired,) = command.json("list", "--state", "expired")["expired"]
    assert (expired["first_seq"], expired["last_seq"]) == (4, 6)
    assert receiver.events[-1]["data"] == {"from": 4, "to": 6, "reason": "expired", "count": 3}
    assert command("verify").code == 0


def test_repairs_that_are_not_delivered_yet_are_pending(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    lose(receiver, 20)
    receiver.always(Fault.status(503))
    ended = command("verify", "--repair")
    assert (ended.code, "1 event missing still" in ended.out) == (3, True)
    receiver.heal()
    assert command("flush").code == 0
    assert command("verify").code == 0


def test_more_gaps_than_a_report_names_are_repaired_in_rounds(
    make_client: MakeClient, command: Command, receiver: Receiver
) -> None:
    client = make_client(background=False, url=receiver.url)
    with client.transaction():
        for number in range(2 * GAPS_AT_MOST + 101):
            client.update_task_status("t", "testing", progress_percentage=number % 100)
    assert client.flush(30)
    lose(receiver, *range(2, 2 * GAPS_AT_MOST + 101, 2))
    ended = command.json("verify", "--repair")["destinations"]["orchestrator"]
    assert (ended["sent_again"], ended["missing"]) == (GAPS_AT_MOST + 50, 0)
    assert len(seqs(receiver)) == 2 * GAPS_AT_MOST + 101


def test_everything_lost_since_a_place_is_sent_in_full_batches(
    client: OrchestratorClient, receiver: Receiver, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redelivery, "SET_BACK_FROM", 5)
    lose(receiver, *range(6, 21))
    before = len(receiver.requests)
    assert redelivery.resend(client._station, "orchestrator", [(6, 20)], 0).events == 15
    assert client.flush(20)
    posts = [each for each in receiver.requests[before:] if each.method == "POST"]
    assert [each.event_count for each in posts] == [15]
    assert command("verify").code == 0


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"ORCHCLIENT_TOKEN": "wrong"}, 6, "refuses the credentials (HTTP 401)"),
        ({"ORCHCLIENT_URL": "http://127.0.0.1:9"}, 1, "does not answer"),
    ],
)
def test_an_orchestrator_that_tells_nothing_is_no_proof(
    make_client: MakeClient, outbox_path: Path, settings: dict[str, str], code: int, message: str
) -> None:
    with Receiver(token="right") as receiver:
        client = make_client(background=False, url=receiver.url, token="right")
        client.update_task_status("t", "testing")
        assert client.flush(10)
        command = Command(outbox_path, receiver.url)
        ended = command("verify", **settings)
        assert (ended.code, message in ended.out) == (code, True)
        assert command.json("verify", **settings)["ok"] is False


def test_without_an_orchestrator_there_is_nobody_to_ask(client: OrchestratorClient, outbox_path: Path) -> None:
    ended = Command(outbox_path)("verify")
    assert (ended.code, "set ORCHCLIENT_URL" in ended.err) == (2, True)
    assert "Did you mean orchestrator?" in Command(outbox_path, "http://127.0.0.1:9")("verify", "--to", "orchstr").err


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b"nonsense",
        b'{"highest": -1, "gaps": []}',
        b'{"highest": true, "gaps": []}',
        b'{"highest": 5, "gaps": [[3, 2]]}',
        b'{"highest": 5, "gaps": [[0, 2]]}',
        b'{"highest": 5, "gaps": [[4, 6]]}',
        b'{"highest": 5, "gaps": [[4, 4], [2, 2]]}',
        b'{"highest": 5, "gaps": [[1]]}',
        b'{"highest": 9000, "gaps": [' + b",".join(b"[%d, %d]" % (2 * n, 2 * n) for n in range(1, 1002)) + b"]}",
    ],
)
def test_a_report_that_cannot_be_believed_is_none(body: bytes) -> None:
    assert source_report(body) is None


def test_what_a_report_says_is_missing_between_two_places() -> None:
    report = source_report(b'{"highest": 50, "gaps": [[17, 17], [34, 35]]}')
    assert report == SourceReport(50, ((17, 17), (34, 35)))
    assert report.missing(1, 60) == [(17, 17), (34, 35), (51, 60)]
    assert report.missing(18, 34) == [(34, 34)]
