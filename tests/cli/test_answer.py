"""``orchclient answer``: a person on the host decides, the agent gets it, and the orchestrator learns of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing.receiver import Receiver
from tests.cli.command import Command
from tests.core.test_wire_contract import complaints

LONG = 20.0


@pytest.fixture
def client(outbox_path: Path, receiver: Receiver) -> Iterator[OrchestratorClient]:
    with OrchestratorClient("me", outbox=outbox_path, sinks=[OrchestratorSink(receiver.url, lambda: None)]) as client:
        yield client


@pytest.fixture
def command(outbox_path: Path) -> Command:
    return Command(outbox_path)


def test_it_lists_what_waits(client: OrchestratorClient, command: Command) -> None:
    assert "Nothing waits" in command("answer").out
    question = client.request_clarification("t", "Which colour?", options=["red", "blue"], recommended="blue")
    done = client.report_completion("u", "https://example.com/pr/1", {}, review=True)
    listed = command("answer")
    assert (listed.code, listed.err) == (0, "")
    for text in (question.id, done.event_id, "Which colour?", "1  red", "2  blue  (recommended)"):
        assert text in listed.out
    assert [each["kind"] for each in command.json("answer")["open"]] == ["question", "review"]


def test_a_number_chooses_an_option_and_the_orchestrator_learns_it(
    client: OrchestratorClient, command: Command, receiver: Receiver
) -> None:
    question = client.request_clarification("t", ["Which colour?", "How many?"], options=[["red", "blue"], None])
    assert command("answer", question.id, "2", "120", "--comment", "at most", "--by", "ada").code == 0
    answer = question.wait(LONG)
    assert answer is not None
    assert {name: (each.text, each.options) for name, each in answer.answers.items()} == {
        "q1": (None, ("blue",)),
        "q2": ("120", ()),
    }
    assert (answer.responder.id, answer.channel, answer.comment) == ("ada", "cli", "at most")
    assert client.flush(LONG)
    (consumed,) = [each for each in receiver.events if each["type"].endswith("consumed.v1")]
    assert complaints("envelope.json", consumed) == []
    assert consumed["data"]["answer"]["answers"][0] == {"question_id": "q1", "options": ["blue"]}
    assert consumed["data"]["answer"]["answer_id"] == consumed["data"]["answer_id"]


def test_a_review_is_decided(client: OrchestratorClient, command: Command) -> None:
    done = client.report_completion("t", None, {}, review=True)
    assert done.review is not None
    assert command("answer", done.event_id[:35], "--changes", "--comment", "rename it").code == 0
    decision = done.review.wait(LONG)
    assert decision is not None
    assert (decision.outcome, decision.comment, decision.channel) == ("changes_requested", "rename it", "cli")


def test_what_is_settled_is_refused_with_who_settled_it(client: OrchestratorClient, command: Command) -> None:
    question = client.request_clarification("t", "Which colour?")
    assert command("answer", question.id, "--decline", "--by", "ada").code == 0
    again = command("answer", question.id, "red")
    assert again.code == 1
    assert "settled already: declined by ada (cli)" in again.err
    assert question.state == "declined"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "say what is decided"),
        (["red", "blue"], 2, "2 answers for 1 questions"),
        (["3"], 2, "no option 3"),
        (["red", "--approve"], 2, "either answers or"),
        (["red", "--by", "x" * 300], 1, "cannot be used"),
    ],
)
def test_what_cannot_be_meant_decides_nothing(
    client: OrchestratorClient, command: Command, arguments: list[str], code: int, text: str
) -> None:
    question = client.request_clarification("t", "Which colour?", options=["red", "blue"])
    ended = command("answer", question.id, *arguments)
    assert (ended.code, text in ended.err) == (code, True), ended.err
    assert question.state == "open"


def test_an_id_that_is_none_and_no_outbox_are_told(
    client: OrchestratorClient, command: Command, tmp_path: Path
) -> None:
    client.update_task_status("t", "testing")
    assert "no question or review" in command("answer", "0000", "red").err
    ended = Command(tmp_path / "none.db")("answer")
    assert (ended.code, "no outbox yet" in ended.out, ended.err) == (0, True, "")
    ended = Command(tmp_path / "none.db")("answer", "0000", "red")
    assert (ended.code, "no outbox yet" in ended.err) == (1, True)
