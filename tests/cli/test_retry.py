"""``orchclient retry``: dead letters go back into their lanes, the counters with them, and the answer is honest."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.testing import Receiver
from tests.cli.command import Command
from tests.conftest import MakeClient


@pytest.fixture
def command(outbox_path: Path, receiver: Receiver) -> Command:
    return Command(outbox_path, receiver.url)


@pytest.fixture
def buried(make_client: MakeClient, command: Command, receiver: Receiver) -> OrchestratorClient:
    """Two tasks whose first events were refused, with a third one delivered."""
    client = make_client(background=False)
    for percent in (10, 20):
        client.update_task_status("build", "testing", progress_percentage=percent)
    client.update_task_status("deploy", "testing", progress_percentage=30)
    client.update_task_status("docs", "testing", progress_percentage=40)
    receiver.reject(lambda event: event.get("subject") in ("build", "deploy"), code="schema", detail="no \x1b[31mteam")
    assert command("flush").code == 4
    return client


def percents(receiver: Receiver, task: str) -> list[int]:
    events = receiver.by_task().get(task, [])
    return [each["data"]["progress_percentage"] for each in events if "progress_percentage" in each["data"]]


def test_what_was_refused_is_delivered_in_its_task_s_order_before_what_came_later(
    buried: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    receiver.lift_rules()
    buried.update_task_status("build", "testing", progress_percentage=50)
    before = command.counts()
    ended = command("retry", "--task", "build")
    assert ended.code == 0
    assert "pending again" in ended.out
    assert "orchclient flush" in ended.out
    after = command.counts()
    assert (after["delivered"], after["expired"]) == (before["delivered"], before["expired"])
    assert before["dead"] - after["dead"] == after["pending"] - before["pending"] >= 2
    assert command("flush").code == 0
    assert percents(receiver, "build") == [10, 20, 50]
    assert percents(receiver, "deploy") == []
    assert command("retry", "--all").code == 0
    assert command("flush").code == 0
    assert command.counts() == {"delivered": buried.health().recorded, "pending": 0, "dead": 0, "expired": 0}


def test_an_event_that_is_refused_again_is_dead_again_and_its_attempts_count_on(
    buried: OrchestratorClient, command: Command
) -> None:
    (event,) = [each for each in command.json("list", "--task", "deploy")["events"] if each["type"] != "gap.v1"]
    assert event["destinations"]["orchestrator"]["attempts"] == 1
    for attempts in (2, 3):
        assert command("retry", event["id"][:18]).code == 0
        assert command("flush").code == 4
        shown = command.json("show", event["id"])["destinations"]["orchestrator"]
        assert (shown["state"], shown["attempts"], shown["reason"]) == ("dead", attempts, "schema: no \\x1b[31mteam")
    assert "dead after 3 attempts, since" in command("show", event["id"]).out


def test_a_dry_run_counts_and_changes_nothing(buried: OrchestratorClient, command: Command) -> None:
    before = command.counts()
    told = command.json("retry", "--all", "--dry-run")
    assert (told["dry_run"], told["retried"]) == (True, before["dead"])
    assert f"{before['dead']} dead events would be pending again\n" in command("retry", "--all", "--dry-run").out
    assert command.counts() == before
    assert command.json("retry", "--all")["retried"] == before["dead"]


def test_what_became_dead_since_a_time_is_retried(
    buried: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    before = command.counts()
    since = datetime.now(UTC).isoformat()
    buried.update_task_status("deploy", "testing", progress_percentage=60)
    assert command("flush").code == 4
    assert command("retry", "--since", since, "--to", "orchestrator").code == 0
    after = command.counts()
    assert (after["dead"], after["pending"] > 0) == (before["dead"], True)
    receiver.lift_rules()
    assert command("flush").code == 0
    assert percents(receiver, "deploy") == [60]
    assert command("retry", "--since", "1h").code == 0
    assert command.counts()["dead"] == 0


def test_retry_wakes_the_process_that_delivers(
    buried: OrchestratorClient, command: Command, receiver: Receiver, make_client: MakeClient
) -> None:
    receiver.lift_rules()
    live = make_client(url=receiver.url)
    live.update_task_status("other", "testing", progress_percentage=1)
    assert live.flush(10)
    ended = command("retry", "--to", "orchestrator")
    assert "Delivered by pid" in ended.out
    assert receiver.wait_for(lambda _: percents(receiver, "build") == [10, 20], 10)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--task", "unheard"), 1, "no dead letters of task unheard"),
        (("ffff",), 1, "no event with an id"),
        ((), 2, "say which dead letters"),
        (("--since", "0s"), 1, "no dead letters since then"),
        (("--since", "soon"), 2, "neither a duration"),
        (("--all", "--to", "orchestrater"), 2, "Did you mean orchestrator?"),
    ],
)
def test_nothing_to_retry_is_said_and_changes_nothing(
    buried: OrchestratorClient, command: Command, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = command.counts()
    ended = command("retry", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    as_json = command("retry", *arguments, "--json")
    assert (as_json.code, as_json.document["ok"]) == (code, False)
    assert command.counts() == before


def test_an_event_that_is_not_dead_is_named_while_the_others_go(buried: OrchestratorClient, command: Command) -> None:
    events = {each["task"]: each["id"] for each in command.json("list")["events"] if each["type"] != "gap.v1"}
    ended = command("retry", events["docs"])
    assert (ended.code, ended.out) == (1, "")
    assert "delivered at orchestrator" in ended.err
    ended = command("retry", events["docs"], events["deploy"])
    assert ended.code == 1
    assert "1 dead event pending again" in ended.out
    assert f"Not dead: {events['docs']}" in ended.out


def test_dead_letters_are_listed_with_attempts_and_the_answer_s_text_on_a_narrow_terminal(
    buried: OrchestratorClient, command: Command
) -> None:
    ended = command("list", "--state", "dead", COLUMNS="80")
    head, first, *_ = ended.out.splitlines()
    assert head.split() == ["ID", "TASK", "DESTINATION", "TRIES", "REASON"]
    assert "schema: no" in first
    assert "\x1b" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    wide = command("list", COLUMNS="80").out.splitlines()
    assert all(" dead " in line or " delivered " in line for line in wide[1:])
