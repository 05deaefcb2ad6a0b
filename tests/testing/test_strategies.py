"""The published strategies: what they make keeps the wire contract, and our own code is tried with it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient import recordings
from orchclient.core.batch import Batch
from orchclient.core.envelope import event_text, opening
from orchclient.core.event_message import message_of
from orchclient.core.policy import Action, Verdict
from orchclient.core.recording import Header, redacted, stored_event
from orchclient.core.redaction import Redactor
from orchclient.core.secret import Secret
from orchclient.core.timestamps import microseconds_of
from orchclient.server import reading
from orchclient.server.reading import Arrival
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.sinks.webhook import WebhookSink
from orchclient.testing import Fault, Receiver, Replay, strategies
from orchclient.testing.differences import differences, normalised

FEW = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SOURCE = f"urn:uuid:{strategies.SOURCE}"

Event = dict[str, Any]


def recording(events: list[Event]) -> bytes:
    return recordings.recording_text(Header(SOURCE, 1, len(events), len(events), "", "1"), events).encode()


@FEW
@given(strategies.events())
def test_every_event_keeps_the_wire_contract(event: Event) -> None:
    (found,) = reading.read_batch(json.dumps(event).encode(), reading.SINGLE_TYPE, "", reading.Limits())
    assert isinstance(found, Arrival), found


KINDS = ("status", "question", "withdrawn", "consumed", "completed", "error", "resolved", "gap")


@pytest.mark.parametrize("kind", KINDS)
@settings(FEW, max_examples=5)
@given(st.data())
def test_every_kind_is_made(kind: str, data: st.DataObject) -> None:
    event = data.draw(strategies.events([kind]))
    (found,) = reading.read_batch(json.dumps(event).encode(), reading.SINGLE_TYPE, "", reading.Limits())
    assert isinstance(found, Arrival), found


@FEW
@given(strategies.runs(max_size=6))
def test_a_recording_says_what_was_recorded(run: list[Event]) -> None:
    header, events = recordings.events_of(io.BytesIO(recording(run)))
    assert (list(events), header.is_whole) == (run, True)
    for event in events:
        stored = stored_event(event, microseconds_of(event["time"]) or 0)
        assert json.loads(event_text(opening(strategies.SOURCE), int(event["sequence"]), stored.body)) == event


@FEW
@given(strategies.events(), strategies.texts().filter(lambda text: len(text) > 7))
def test_an_event_is_redacted_once_and_for_all(event: Event, secret: str) -> None:
    redactor = Redactor((secret,))
    once = redacted(json.dumps(event, ensure_ascii=False), redactor)
    assert json.loads(redacted(once, redactor)) == json.loads(once)


@FEW
@given(strategies.runs(max_size=6), st.data())
def test_a_run_differs_from_itself_in_nothing_and_from_another_by_name(run: list[Event], data: st.DataObject) -> None:
    plain = normalised(run, {})
    assert differences(plain, plain) == []
    if run:
        place = data.draw(st.integers(0, len(run) - 1))
        other = [*plain[:place], {**plain[place], "priority": "another"}, *plain[place + 1 :]]
        (line,) = differences(plain, other)
        assert line.startswith(f"event {place + 1} (")
        assert line.endswith("got 'another'")


@FEW
@given(strategies.events(), strategies.outcomes())
def test_our_own_destinations_take_any_event_and_any_answer(event: Event, outcome: Any) -> None:
    batch = Batch.of_texts([event["id"]], [json.dumps(event)])
    url = Secret("https://discord.com/api/webhooks/1/" + "x" * 68)
    for sink in (
        OrchestratorSink("https://orchestrator.example", lambda: None),
        WebhookSink(Secret("https://hook.example/x"), (Secret("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),)),
    ):
        assert sink.render(batch).body
        assert isinstance(sink.decide(batch, outcome, 1), Verdict)
    message = message_of(event)
    if message is not None:
        assert json.loads(DiscordSink(url).post(message).body or b"")
    assert isinstance(DiscordSink(url).told(outcome, 1).verdict.action, Action)


@settings(FEW, max_examples=8)
@given(strategies.runs(max_size=8).filter(bool), strategies.fault_plans(max_size=4))
def test_a_run_arrives_whole_and_in_order_whatever_goes_wrong(run: list[Event], faults: list[Fault]) -> None:
    with TemporaryDirectory() as directory, Receiver() as receiver:
        (Path(directory) / "run.jsonl").write_bytes(recording(run))
        receiver.plan(*faults)
        replay = Replay(Path(directory), workspace=Path(directory))
        delivered = replay.deliver("run.jsonl", to=receiver)
        delivered.assert_all_delivered()
        delivered.assert_order_per_task()


@pytest.mark.parametrize("made", [strategies.texts(), strategies.task_ids()])
def test_the_first_draw_does_not_try_every_character_with_a_codec(made: st.SearchStrategy[str]) -> None:
    assert "codec" not in repr(made)  # a second, after which Hypothesis calls the strategy slow and fails the test
