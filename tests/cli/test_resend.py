"""``orchclient resend`` and ``prune``: what moves between the counts, and that they add up to what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.core.ranges import size
from orchclient.outbox import cursors, redelivery, steps
from orchclient.outbox.cursors import SinkRow
from orchclient.testing import Receiver
from tests.cli.command import Command
from tests.conftest import MakeClient

NAME = "orchestrator"


@pytest.fixture
def command(outbox_path: Path, receiver: Receiver) -> Command:
    return Command(outbox_path, receiver.url)


@pytest.fixture
def client(make_client: MakeClient, receiver: Receiver) -> OrchestratorClient:
    """Twelve events of three tasks, delivered."""
    client = make_client(background=False, url=receiver.url)
    for number in range(12):
        client.update_task_status(f"t-{number % 3}", "testing", progress_percentage=number)
    assert client.flush(20)
    return client


def row(client: OrchestratorClient) -> SinkRow:
    found = client._station.query(lambda con: cursors.sink(con, NAME))
    assert found is not None
    return found


def repeated(receiver: Receiver) -> list[int]:
    """The places that came again."""
    return sorted(int(each["sequence"]) for each in receiver.events if each["id"] in receiver.repeats)


def test_events_of_a_task_are_pending_until_they_are_delivered_again(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    ended = command("resend", "--to", NAME, "--task", "t-1")
    assert (ended.code, "4 events pending again" in ended.out) == (0, True)
    assert command.counts() == {"delivered": 8, "pending": 4, "dead": 0, "expired": 0}
    assert command("flush").code == 0
    assert command.counts() == {"delivered": 12, "pending": 0, "dead": 0, "expired": 0}
    assert repeated(receiver) == [2, 5, 8, 11]


def test_events_by_id_and_since_a_duration(client: OrchestratorClient, command: Command, receiver: Receiver) -> None:
    newest = command.json("list", "--limit", "2")["events"]
    assert command.json("resend", "--to", NAME, newest[0]["id"], newest[1]["id"][:20])["resent"] == 2
    assert command("flush").code == 0
    assert repeated(receiver) == [11, 12]
    assert command.json("resend", "--to", NAME, "--since", "1h")["resent"] == 12
    assert command("flush").code == 0
    assert repeated(receiver) == list(range(1, 13))
    assert command("resend", "--to", NAME, "--since", "2999-01-01").code == 1


@pytest.mark.parametrize(("more", "count"), [(("--since", "1h"), 12), (("--task", "t-1"), 4)])
def test_a_dry_run_counts_and_changes_nothing(
    client: OrchestratorClient, command: Command, more: tuple[str, ...], count: int
) -> None:
    told = command.json("resend", "--to", NAME, *more, "--dry-run")
    assert (told["dry_run"], told["resent"]) == (True, count)
    assert command("resend", "--to", NAME, *more, "--dry-run").out == f"{NAME}  {count} events would be pending again\n"
    assert command.counts() == {"delivered": 12, "pending": 0, "dead": 0, "expired": 0}
    assert command.json("resend", "--to", NAME, *more)["resent"] == count


def test_what_is_pruned_is_told_and_not_sent(client: OrchestratorClient, command: Command) -> None:
    pruned = command.json("prune", "--older-than", "0s")
    assert pruned["pruned"] == 11  # the newest place must stay: the next one is one more
    ended = command("resend", "--to", NAME, "--since", "1h")
    assert "1 event pending again" in ended.out
    assert "11 older events pruned" in ended.out
    assert command("flush").code == 0
    assert command.counts() == {"delivered": 12, "pending": 0, "dead": 0, "expired": 0}


def test_dead_letters_are_given_up_and_stay_accounted_for(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.reject("bad")
    for _ in range(3):
        client.update_task_status("bad", "testing")
    command("flush")
    before = command.counts()
    dry = command.json("prune", "--dead", "--older-than", "0s", "--dry-run")
    assert command.counts() == before
    done = command.json("prune", "--dead", "--older-than", "0s")
    assert (done["given_up"], done["pruned"]) == (dry["given_up"], dry["pruned"])
    assert done["given_up"] == {NAME: before["dead"]}
    assert command.counts() == {**before, "dead": 0, "expired": before["expired"] + before["dead"]}
    ranges = command.json("list", "--state", "expired")["expired"]
    assert sum(each["count"] for each in ranges) == before["dead"]
    assert command("retry", "--all").code == 1
    assert command.json("resend", "--to", NAME, "--since", "1h", "--task", "bad", "--json")["ok"] is False


def test_a_dead_letter_that_is_young_is_not_given_up(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.reject("bad")
    client.update_task_status("bad", "testing")
    command("flush")
    assert command.json("prune", "--dead")["given_up"] == {NAME: 0}
    assert command("prune", "--to", NAME).code == 2
    assert "Did you mean orchestrator?" in command("prune", "--dead", "--to", "orchstrator").err


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is set back for two events already, and the desk takes six."""
    monkeypatch.setattr(redelivery, "SET_BACK_FROM", 2)
    monkeypatch.setattr(redelivery, "DESK_AT_MOST", 6)
    monkeypatch.setattr(steps, "STEP", 2)


def test_everything_since_a_place_sets_the_cursor_back(
    client: OrchestratorClient, receiver: Receiver, small_steps: None
) -> None:
    resent = redelivery.resend(client._station, NAME, [(5, 12)], 0)
    assert (resent.events, row(client).cursor, row(client).parked) == (8, 4, 0)
    assert client.flush(20)
    assert repeated(receiver) == list(range(5, 13))


def test_the_cursor_is_set_back_only_to_where_nothing_is_at_the_desk_or_in_the_ledger(
    client: OrchestratorClient, receiver: Receiver, command: Command, small_steps: None
) -> None:
    receiver.reject("bad")
    client.update_task_status("bad", "testing")  # place 13, dead; its notice at 14 too
    client.flush(20)
    receiver.lift_rules()
    for _ in range(3):
        client.update_task_status("t-1", "testing")
    assert client.flush(20)
    resent = redelivery.resend(client._station, NAME, [(11, 17)], 0)
    assert (resent.events, row(client).cursor, row(client).parked) == (5, 14, 2)
    assert command.counts()["dead"] == 2
    assert client.flush(20)
    assert repeated(receiver) == [11, 12, 15, 16, 17]


def test_a_flusher_in_the_middle_of_a_batch_does_not_settle_it_over_a_cursor_that_was_set_back(
    client: OrchestratorClient, receiver: Receiver, small_steps: None
) -> None:
    client.update_task_status("t-0", "testing")
    seen = row(client)
    assert redelivery.resend(client._station, NAME, [(1, 12)], 0).events == 12
    settled = client._station.write(lambda con: cursors.advance(con, NAME, seen.epoch, seen.cursor, 13))
    assert settled is False
    assert client.flush(20)
    assert (row(client).cursor, repeated(receiver)) == (13, list(range(1, 13)))


def test_what_the_desk_does_not_take_at_once_is_told(client: OrchestratorClient, small_steps: None) -> None:
    resent = redelivery.resend(client._station, NAME, [(1, 11)], 0)
    assert (resent.events, resent.left, resent.first_left_seq) == (6, 5, 7)
    assert row(client).delivered == 6


def test_agents_keep_half_of_what_may_be_pending(client: OrchestratorClient, command: Command) -> None:
    limit = {"ORCHCLIENT_MAX_PENDING": "10"}
    ended = command("resend", "--to", NAME, "--since", "1h", "--json", **limit)
    assert (ended.code, ended.document["ok"]) == (3, False)
    assert ended.document["resent"] + ended.document["left"] == 12
    again = command("resend", "--to", NAME, "--since", ended.document["go_on_since"], **limit)
    assert "to leave agents room" in again.out
    assert command.counts()["pending"] == ended.document["resent"]


def test_the_cursor_is_not_set_back_further_than_there_is_room(client: OrchestratorClient, small_steps: None) -> None:
    resent = redelivery.resend(client._station, NAME, [(1, 12)], 0, None, 4)
    assert (row(client).cursor, resent.events, resent.left) == (12, 4, 8)


def test_an_event_is_parked_once_however_often_it_is_asked_for(client: OrchestratorClient, small_steps: None) -> None:
    for _ in range(2):
        redelivery.resend(client._station, NAME, [(2, 3)], 0)
    assert (row(client).parked, row(client).delivered) == (2, 10)
    kept = client._station.query(lambda con: redelivery.delivered_within(con, row(client), [(1, 12)]))
    assert (kept, size(kept)) == ([(1, 1), (4, 12)], 10)
