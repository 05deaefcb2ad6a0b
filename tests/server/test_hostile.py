"""Whatever comes in, the orchestrator answers in its own words and never fails: no answer is a 5xx."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchclient.server import reading, shapes
from orchclient.server.app import create_app
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.reading import BATCH_TYPE
from tests.server.events import Event, Outbox
from tests.server.servers import Served

ODD_TEXT = st.text(max_size=30) | st.sampled_from(
    ["\x00", "a\x00b", "\ud800", "‮", "💡" * 99, "x" * 300, "' OR 1=1 --", ""]
)
ODD_NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 10**40, 1e308, -0.0])
ODD = st.recursive(
    st.none() | st.booleans() | ODD_NUMBERS | ODD_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_TEXT, inner, max_size=3),
    max_leaves=6,
)


def kinds() -> list[Event]:
    outbox = Outbox()
    question, completion = outbox.question(default="x", deadline=DEADLINE), outbox.completion(review=True)
    told = {"clarification_id": question["id"]}
    who = {"responder": {"kind": "human", "id": "g"}, "content_digest": question["data"]["content_digest"]}
    said = {"task_id": "task-1", **told, "answer_id": "a", "outcome": "approved", "answered_at": DEADLINE}
    return [
        outbox.status(progress_percentage=1, current_step="s", metadata={"a": {"b": 1}}, attempt=1),
        question,
        completion,
        outbox.error(dedup_key="k", traceback="t"),
        outbox.event("error.resolved.v1", error_id=question["id"], count=1),
        outbox.event("clarification.withdrawn.v1", **told, reason=""),
        outbox.event("clarification.consumed.v1", **told, answer_id="a", answer={**said, **who}),
        outbox.event("reminder.v1", about=ABOUT, number=1, waited_s=60, priority="critical", escalated=False),
        outbox.heartbeat(),
        outbox.gap(1, 2),
    ]


ABOUT = {"id": Outbox().status()["id"], "type": "dev.orchclient.error.escalated.v1", "data": {}}
DEADLINE = "2026-11-23T11:00:00.000000Z"
KINDS = kinds()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in inside:
        yield (*path, step)
        yield from places(member, (*path, step))


@st.composite
def mutants(draw: st.DrawFn) -> Event:
    """An event of any type with something odd in one or two of its places, under an id and a source of its own."""
    event = copy.deepcopy(draw(st.sampled_from(KINDS)))
    fresh = Outbox().status()
    event |= {"source": fresh["source"], "id": fresh["id"]}
    for member in ("clarification_id", "review_id"):
        if event["data"].get(member) is not None and event["type"].endswith(("requested.v1", "completed.v1")):
            event["data"][member] = fresh["id"]
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(event))))
        inside = event
        for step in path[:-1]:
            inside = inside[step] if isinstance(inside, dict | list) else event
        if isinstance(inside, dict):
            inside[path[-1]] = draw(ODD)
    return event


@pytest.fixture
def client(orchestrator: Orchestrator) -> FlaskClient:
    return create_app(orchestrator).test_client()


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(mutants(), min_size=1, max_size=5))
def test_odd_events_are_rejected_or_kept_and_never_break_it(client: FlaskClient, events: list[Event]) -> None:
    body = json.dumps(events).encode()
    reply = client.post("/v1/events", data=body, headers={"Content-Type": BATCH_TYPE})
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 200:
        assert shapes.shape("batch-reply.json")(reply.json) == ""
        again = client.post("/v1/events", data=body, headers={"Content-Type": BATCH_TYPE})
        before = [(each["id"], each["status"].replace("accepted", "duplicate")) for each in reply.json["results"]]
        assert [(each["id"], each["status"]) for each in again.json["results"]] == before
    for path in ("/api/needs", "/api/tasks", "/api/agents", "/metrics"):
        assert client.get(path).status_code == 200


def test_a_text_that_a_database_cannot_hold_would_be_seen(
    client: FlaskClient, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "sqlite":
        pytest.skip("SQLite holds any text")
    monkeypatch.setattr(reading, "without_nul", lambda value: value)
    event = Outbox().status(current_step="\x00")
    reply = client.post("/v1/events", data=json.dumps([event]).encode(), headers={"Content-Type": BATCH_TYPE})
    assert reply.status_code not in (200, 400)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60) | ODD.map(lambda value: json.dumps(value).encode()))
def test_odd_bodies_are_refused(client: FlaskClient, body: bytes) -> None:
    for path, media in (("/v1/events", BATCH_TYPE), ("/v1/inbox/ack", "application/json")):
        reply = client.post(path, data=body, headers={"Content-Type": media})
        assert reply.status_code in (200, 204, 400), reply.text
    for name in ("answers", "decisions", "seen", "cancellations", "dismissals", "messages"):
        reply = client.post(f"/api/{name}", data=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in (400, 404), reply.text


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(ODD_TEXT, min_size=4, max_size=4))
def test_odd_questions_about_what_is_there_are_answered(client: FlaskClient, texts: list[str]) -> None:
    given_ = {name: text.encode("utf-8", "replace").decode() for name, text in zip(NAMES, texts, strict=True)}
    for path in ("tasks", "task", "question", "review", "event"):
        assert client.get(f"/api/{path}", query_string=given_).status_code in (200, 400, 404)
    assert client.get("/v1/inbox", query_string=given_).status_code == 400


NAMES = ("id", "q", "place", "before")
FIELDS = ("option-1", "text-1", "comment", "outcome", "digest", "task", "next", "token", "id")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(ODD_TEXT, min_size=9, max_size=9))
def test_odd_addresses_and_forms_of_the_page_are_answered(client: FlaskClient, texts: list[str]) -> None:
    given_ = [text.encode("utf-8", "replace").decode() for text in texts]
    events = [Outbox().question(), Outbox().completion(review=True)]
    assert client.post("/v1/events", data=json.dumps(events), headers={"Content-Type": BATCH_TYPE}).status_code == 200
    known = [f"/q/{events[0]['id']}", f"/r/{events[1]['id']}"]
    odd = [f"/{folder}/{quote(given_[0] or 'x', safe='')}" for folder in "qr"]
    query = dict(zip(("id", "task", "before", "agent", "q", "status", "place", "told"), given_, strict=False))
    for path in (*known, *odd, "/", "/tasks", "/task", "/error", "/event", "/agents"):
        assert client.get(path, query_string=query).status_code in (200, 303, 308, 400, 404), path
    csrf = re.findall(r'name="csrf" value="([0-9a-f]+)"', client.get(known[0]).text)[0]
    form = dict(zip(FIELDS, given_, strict=True)) | {"csrf": csrf}
    for path in (*known, *odd, "/cancel", "/message", "/error", "/login"):
        assert client.post(path, data=form).status_code in (303, 308, 400, 404, 405), path


@pytest.mark.release
@pytest.mark.timeout(900)
def test_schemathesis_finds_no_error_of_the_server(tmp_path: Path) -> None:
    """By the OpenAPI document that it serves. Polls that wait are left out; they would take hours."""
    program = shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed: pip install schemathesis, in an environment of its own")
    with Served(str(tmp_path / "o.db")) as served:
        done = subprocess.run(
            [program, "run", f"{served.url}/openapi.json", "--exclude-path", "/v1/inbox", *SCHEMATHESIS],
            capture_output=True,
            text=True,
            timeout=800,
            env={**os.environ, "NO_COLOR": "1"},
            cwd=tmp_path,
        )
    assert "Failures:" not in done.stdout, done.stdout[-6_000:]
    assert "Tested: 19" in done.stdout, done.stdout[-6_000:]


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SCHEMATHESIS = ["--checks", CHECKS, "--max-examples", "50", "--generation-deterministic", "--request-timeout", "40"]


def test_every_event_that_is_made_odd_was_good_before(client: FlaskClient) -> None:
    reply = client.post("/v1/events", data=json.dumps(KINDS).encode(), headers={"Content-Type": BATCH_TYPE})
    assert {result["status"] for result in reply.json["results"]} == {"accepted"}, reply.json
