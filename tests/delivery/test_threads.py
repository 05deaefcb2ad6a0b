"""A chat with threads: one for each task, whatever comes first, over restarts, and when a person deletes its root."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from orchclient import OrchestratorClient
from orchclient.core.noise import NoiseRules
from orchclient.core.secret import Secret
from orchclient.delivery import planner
from orchclient.sinks.slack_bot import SlackBotSink
from orchclient.testing import Fault, SlackApiDouble
from orchclient.testing.services import Shown, slack_error
from tests.conftest import MakeClient
from tests.delivery.test_teller import SOON_S, books, until

RULES = NoiseRules(0.0)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackApiDouble]:
    monkeypatch.setattr("orchclient.sinks.slack_bot.ONE_A_SECOND", 0.0)
    with SlackApiDouble() as opened:
        yield opened


def bot(service: SlackApiDouble) -> SlackBotSink:
    return SlackBotSink(lambda: Secret(service.token), service.channel, api_url=service.api_url, rules=RULES)


def below(service: SlackApiDouble, root: Shown) -> list[str]:
    """What stands in the thread of a message, by its first line."""
    return [each.payload["text"] for each in service.shown if each.thread_id == service.id_of(root)]


def tell_everything(client: OrchestratorClient, task: str) -> None:
    client.request_clarification(task, ["Which one?"])
    client.escalate_error(task, "odd", "small", 1, fatal=False)
    client.escalate_error(task, "database_connection", "big", 1, fatal=False)
    client.report_completion(task, None, {"tests_passed": 3})


def test_a_task_has_one_thread_below_the_message_that_shows_where_it_stands(
    make_client: MakeClient, service: SlackApiDouble
) -> None:
    first = make_client(sinks=[bot(service)])
    for task in ("a", "b"):
        first.update_task_status(task, "in_progress", progress_percentage=10)
    assert first.flush(SOON_S)
    first.close()
    client = make_client(sinks=[bot(service)])  # the thread is known to the next process
    for task in ("a", "b"):
        tell_everything(client, task)
    assert client.flush(SOON_S)
    assert until(lambda: "completed" in service.shown[0].text and "completed" in service.shown[1].text)
    roots = [each for each in service.shown if not each.thread_id]
    assert len(roots) == 2
    for root in roots:
        said = below(service, root)
        assert len(said) == 4
        assert [bool(re.search("asks|trouble|needs help now|completed", text)) for text in said] == [True] * 4
    assert until(lambda: books(client) == (10, 0, 0))


def test_what_is_for_everybody_stands_in_the_channel_too(make_client: MakeClient, service: SlackApiDouble) -> None:
    client = make_client(sinks=[bot(service)])
    client.update_task_status("t", "in_progress")
    assert client.flush(SOON_S)
    tell_everything(client, "t")
    assert client.flush(SOON_S)
    in_channel = {each.payload["text"]: each.is_in_channel for each in service.shown if each.thread_id}
    assert len(in_channel) == 4
    for text, is_shown in in_channel.items():
        assert is_shown is ("asks" in text or "needs help now" in text), text


def test_whatever_comes_first_is_the_root(make_client: MakeClient, service: SlackApiDouble) -> None:
    client = make_client(sinks=[bot(service)])
    client.escalate_error("t", "database_connection", "down", 1, fatal=False)
    assert client.flush(SOON_S)
    for percent in (10, 20):
        client.update_task_status("t", "in_progress", progress_percentage=percent)
        assert client.flush(SOON_S)
    root, progress = service.shown
    assert not root.thread_id
    assert below(service, root) == [progress.payload["text"]]
    assert "20 %" in progress.text
    assert len(progress.edited_s) == 1


@pytest.mark.parametrize("error", ["", "message_not_found", "cannot_reply_to_message"])
def test_when_the_root_is_deleted_what_comes_next_is_the_root_of_another_thread(
    make_client: MakeClient, service: SlackApiDouble, error: str
) -> None:
    client = make_client(sinks=[bot(service)])
    client.update_task_status("t", "in_progress", progress_percentage=10)
    assert client.flush(SOON_S)
    service.delete(service.shown[0])
    if error:
        service.plan(slack_error(error))
    client.request_clarification("t", ["Which one?"])
    assert until(lambda: len(service.shown) == 1)
    client.escalate_error("t", "odd", "small", 1, fatal=False)
    client.update_task_status("t", "in_progress", progress_percentage=20)
    assert until(lambda: books(client) == (4, 0, 0))
    root = service.shown[0]
    assert "asks" in root.text
    assert not root.thread_id
    assert len(below(service, root)) == 2
    assert len(service.shown) == 3


def test_a_reply_that_a_person_deleted_comes_again_in_the_thread(
    make_client: MakeClient, service: SlackApiDouble
) -> None:
    client = make_client(sinks=[bot(service)])
    client.update_task_status("t", "in_progress")
    assert client.flush(SOON_S)
    asked = client.request_clarification("t", ["Which one?"])
    assert client.flush(SOON_S)
    root, question = service.shown
    service.delete(question)
    asked.withdraw("found it")
    assert until(lambda: books(client) == (3, 0, 0))
    assert ["withdrew" in text for text in below(service, root)] == [True]


def test_a_status_that_a_task_has_for_the_first_time_is_a_milestone_in_its_thread(
    make_client: MakeClient, service: SlackApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MILESTONES_EVERY_S", 0.0)
    client = make_client(sinks=[bot(service)])
    for status in ("assigned", "in_progress", "in_progress", "testing", "in_progress", "review_ready"):
        client.update_task_status("t", status)
        client.flush(SOON_S)
    assert until(lambda: len(service.shown) == 4)
    assert [text.partition(" is ")[2] for text in below(service, service.shown[0])] == [
        "in progress",
        "testing",
        "review ready",
    ]
    assert "review ready" in service.shown[0].text
    assert not any(each.is_in_channel for each in service.shown[1:])


def test_milestones_after_an_outage_are_the_newest_only(make_client: MakeClient, service: SlackApiDouble) -> None:
    client = make_client(sinks=[bot(service)])
    client.update_task_status("t", "assigned")
    assert client.flush(SOON_S)
    client.close()
    offline = make_client(mode="offline")
    for status in ("in_progress", "testing", "in_progress", "review_ready"):
        offline.update_task_status("t", status)
    offline.close()
    client = make_client(sinks=[bot(service)])
    assert client.flush(SOON_S)
    assert until(lambda: len(service.shown) == 2)
    assert "review ready" in below(service, service.shown[0])[0]


def test_in_threads_books_and_edits_are_kept_when_answers_are_lost(
    make_client: MakeClient, service: SlackApiDouble
) -> None:
    client = make_client(sinks=[bot(service)])
    client.update_task_status("t", "in_progress")
    assert client.flush(SOON_S)
    service.plan(Fault.lose_reply())
    client.escalate_error("t", "database_connection", "down", 1, fatal=False)
    assert until(lambda: books(client) == (2, 0, 0))
    root = service.shown[0]
    repeated = ["possible repeat" in text for text in below(service, root)]
    assert repeated == [False, True]
