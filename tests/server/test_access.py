"""Who may do what over HTTP: tokens, sources, hosts, pages of other sites; and what people do by the JSON interface."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from sqlalchemy import select

from orchclient.core.errors import ConfigError, InvalidEvent
from orchclient.server import access, shapes
from orchclient.server.app import create_app
from orchclient.server.models import Token
from orchclient.server.openapi import document
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.reading import BATCH_TYPE
from orchclient.server.serving import Listening, Server
from tests.server.events import Event, Outbox, body_of

ACK = "/v1/inbox/ack"


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """What stands here is the same over any database."""
    return str(request.param)


@pytest.fixture
def client(orchestrator: Orchestrator) -> FlaskClient:
    return create_app(orchestrator, trusted_hosts=["orch.example"]).test_client()


def token(orchestrator: Orchestrator, name: str, kind: access.Kind = "agent") -> dict[str, str]:
    """The header of a new token."""
    text = orchestrator.writing(lambda session: access.add_token(session, name, kind, 1))
    return {"Authorization": f"Bearer {text}"}


def post(client: FlaskClient, *events: Event, headers: dict[str, str] | None = None) -> Any:
    return client.post("/v1/events", data=body_of(list(events)), headers={"Content-Type": BATCH_TYPE} | (headers or {}))


# --- Tokens -------------------------------------------------------------------------------------------------------


def test_only_the_hash_of_a_token_is_kept(orchestrator: Orchestrator, tmp_path: Any) -> None:
    text = token(orchestrator, "a")["Authorization"].removeprefix("Bearer ")
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("orchestrator.db*"))
    assert len(text) > 40
    assert text.encode() not in kept
    assert text.removeprefix("orch_").encode() not in kept


def test_from_the_first_token_on_nobody_comes_in_without_one(orchestrator: Orchestrator, client: FlaskClient) -> None:
    assert client.get("/api/needs").status_code == 200
    person = token(orchestrator, "ada", "person")
    assert client.get("/api/needs").status_code == 401
    assert client.get("/api/needs", headers=person).status_code == 200
    assert orchestrator.writing(lambda session: access.revoke(session, "ada", 2)) == 1
    assert client.get("/api/needs", headers=person).status_code == 401
    assert client.get("/api/needs").status_code == 401
    assert client.get("/healthz").status_code == 200


def test_agents_and_people_have_their_own_parts(orchestrator: Orchestrator, client: FlaskClient) -> None:
    agent, person = token(orchestrator, "backend-7"), token(orchestrator, "ada", "person")
    assert client.get("/v1/capabilities", headers=person).status_code == 403
    assert client.get("/api/needs", headers=agent).status_code == 403
    assert client.get("/metrics", headers=agent).status_code == 200


def test_a_source_belongs_to_the_credential_that_used_it_first(orchestrator: Orchestrator, client: FlaskClient) -> None:
    mine, other, outbox = token(orchestrator, "a"), token(orchestrator, "b"), Outbox()
    inbox = f"/v1/inbox?source={outbox.source}"
    assert post(client, outbox.status(), headers=mine).status_code == 200
    assert post(client, outbox.status(), headers=other).status_code == 403
    for path in (inbox, f"/v1/sources/{outbox.source}"):
        assert client.get(path, headers=other).status_code == 403
        assert client.get(path, headers=mine).status_code == 200
    body = {"source": outbox.source, "cursor": "0-0"}
    assert client.post(ACK, json=body, headers=other).status_code == 403
    assert client.post(ACK, json=body, headers=mine).status_code == 204


def test_reading_an_inbox_binds_its_source_too(orchestrator: Orchestrator, client: FlaskClient) -> None:
    mine, other, outbox = token(orchestrator, "a"), token(orchestrator, "b"), Outbox()
    assert client.get(f"/v1/inbox?source={outbox.source}", headers=mine).status_code == 200
    assert post(client, outbox.status(), headers=other).status_code == 403


def test_a_renewed_token_keeps_its_sources(orchestrator: Orchestrator, client: FlaskClient) -> None:
    old, outbox = token(orchestrator, "a"), Outbox()
    post(client, outbox.status(), headers=old)
    first = orchestrator.writing(lambda session: session.scalars(select(Token.id)).one())
    new = token(orchestrator, "a")
    orchestrator.writing(lambda session: access.revoke(session, first, 2))
    assert post(client, outbox.status(), headers=old).status_code == 401
    assert post(client, outbox.status(), headers=new).status_code == 200


def test_a_source_from_before_the_first_token_belongs_to_who_uses_it_next(
    orchestrator: Orchestrator, client: FlaskClient
) -> None:
    outbox = Outbox()
    post(client, outbox.status())
    assert post(client, outbox.status(), headers=token(orchestrator, "a")).status_code == 200
    assert post(client, outbox.status(), headers=token(orchestrator, "b")).status_code == 403


def test_a_name_is_an_agent_or_a_person_and_has_no_control_characters(orchestrator: Orchestrator) -> None:
    token(orchestrator, "a")
    with pytest.raises(ConfigError, match="no person"):
        token(orchestrator, "a", "person")
    with pytest.raises(InvalidEvent):
        token(orchestrator, "a\nb")


def test_no_other_machine_is_served_without_a_token(orchestrator: Orchestrator) -> None:
    with pytest.raises(ConfigError, match="token add"):
        Server(orchestrator, Listening("0.0.0.0", 0))
    token(orchestrator, "a")
    server = Server(orchestrator, Listening("0.0.0.0", 0))
    server.stop()
    server.run()


def test_a_gap_explains_nothing_of_a_source_that_belongs_to_another_credential(
    orchestrator: Orchestrator, client: FlaskClient
) -> None:
    theirs, ours = token(orchestrator, "theirs"), token(orchestrator, "ours")
    other, outbox, unknown = Outbox(), Outbox(), Outbox()
    assert post(client, other.status(sequence=3), headers=theirs).status_code == 200
    gaps = [outbox.gap(1, 2, source=each.source, sequence=n) for n, each in enumerate((other, unknown), 3)]
    reply = post(client, *gaps, headers=ours)
    assert [result["status"] for result in reply.json["results"]] == ["accepted"] * 2  # and nothing is refused
    assert client.get(f"/v1/sources/{other.source}", headers=theirs).json == {"highest": 3, "gaps": [[1, 2]]}
    assert client.get(f"/v1/sources/{unknown.source}", headers=ours).json == {"highest": 0, "gaps": []}


# --- Browsers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("[::1]:8765", 200),
        ("[::1]", 200),
        ("ORCH.example:80", 200),
        ("evil.example", 400),
        ("localhost.evil.example:8765", 400),
        ("evil.example:127.0.0.1", 400),
    ],
)
def test_a_page_that_gives_its_name_the_address_of_loopback_is_refused(
    client: FlaskClient, host: str, status: int
) -> None:
    assert client.get("/api/needs", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 404),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 404),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_a_page_of_another_site_cannot_act(client: FlaskClient, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"question_id": "x", "outcome": "declined"})
    given = {"Content-Type": "application/json"} | headers
    assert client.post("/api/answers", data=body, headers=given).status_code == status


def test_no_answer_is_cached_or_guessed_at(client: FlaskClient) -> None:
    reply = client.get("/api/needs")
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in reply.headers


# --- What people do -----------------------------------------------------------------------------------------------


def test_a_person_answers_by_the_interface_and_is_named_by_their_token(
    orchestrator: Orchestrator, client: FlaskClient
) -> None:
    agent, person, outbox = token(orchestrator, "backend-7"), token(orchestrator, "ada", "person"), Outbox()
    question = outbox.question()
    post(client, question, headers=agent)
    needs = client.get("/api/needs", headers=person).json
    assert [each["id"] for each in needs["questions"]] == [question["id"]]
    body = {
        "question_id": question["id"],
        "outcome": "answered",
        "answers": [{"question_id": "q1", "text": "yes"}],
        "responder": "mallory",
    }
    assert client.post("/api/seen", json={"question_id": question["id"]}, headers=person).status_code == 204
    reply = client.post("/api/answers", json=body, headers=person)
    assert (reply.status_code, reply.json["late"]) == (200, False)
    page = client.get(f"/v1/inbox?source={outbox.source}", headers=agent).json
    assert shapes.shape("inbox-page.json")(page) == ""
    assert page["items"][1]["data"]["responder"] == {"kind": "human", "id": "ada"}
    shown = client.get(f"/api/question?id={question['id']}", headers=person).json
    assert (shown["state"], shown["answers"][0]["responder"]["id"]) == ("answered", "ada")


def test_a_person_decides_cancels_and_writes(orchestrator: Orchestrator, client: FlaskClient) -> None:
    outbox = Outbox()
    completion = outbox.completion("a/b?c#d", review=True)
    post(client, completion)
    decision = {"review_id": completion["id"], "outcome": "approved"}
    assert client.post("/api/decisions", json=decision).json["late"] is False
    assert client.post("/api/cancellations", json={"task_id": "a/b?c#d", "reason": "no"}).status_code == 204
    assert client.post("/api/messages", json={"task_id": "a/b?c#d", "text": "hi", "urgent": True}).status_code == 204
    page = client.get(f"/v1/inbox?source={outbox.source}").json
    assert shapes.shape("inbox-page.json")(page) == ""
    assert [item["type"].removeprefix("dev.orchclient.") for item in page["items"]] == [
        "review.decided.v1",
        "task.cancel_requested.v1",
        "task.message.v1",
    ]
    task = client.get("/api/task", query_string={"id": "a/b?c#d"}).json
    assert task["task"]["status"] == "review_ready"
    event = client.get("/api/event", query_string={"place": task["logs"][0]["place"]})
    assert event.json == completion


def test_a_person_sets_an_error_aside(orchestrator: Orchestrator, client: FlaskClient) -> None:
    outbox = Outbox()
    error = outbox.error("a/b?c#d")
    post(client, error)
    known = {"task_id": "a/b?c#d", "error_id": error["id"]}
    assert client.post("/api/dismissals", json={**known, "error_id": "x"}).status_code == 404
    assert client.post("/api/dismissals", json={"task_id": "a/b?c#d"}).status_code == 400
    assert client.post("/api/dismissals", json={**known, "reason": "gone", "responder": "ada"}).status_code == 204
    task = client.get("/api/task", query_string={"id": "a/b?c#d"}).json
    (incident,) = task["incidents"]
    assert (incident["state"], incident["dismissed_by"]["id"]) == ("dismissed", "ada")
    assert [line["is_event"] for line in task["logs"]] == [False, True]
    assert client.get("/api/needs").json["incidents"] == []


def test_tasks_are_paged_though_many_came_at_one_instant(client: FlaskClient) -> None:
    outbox = Outbox()
    post(client, *(outbox.status(f"task-{n}") for n in range(5)))
    post(client, *(outbox.status(f"later-{n}") for n in range(2)))
    found: list[str] = []
    last: dict[str, Any] = {}
    while page := client.get("/api/tasks", query_string={"limit": 2, **last}).json:
        found += [task["task_id"] for task in page]
        last = {"before": page[-1]["received_at"], "task": page[-1]["task_id"]}
    assert found == ["later-0", "later-1", *(f"task-{n}" for n in range(5))]
    assert client.get("/api/tasks?before=yesterday").status_code == 400
    assert client.get("/api/tasks?before=2026-11-26").status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/answers", {"question_id": "x", "outcome": "expired"}, 400),
        ("/api/answers", {"question_id": "x", "outcome": "answered"}, 400),
        ("/api/answers", {"question_id": "x", "outcome": "answered", "answers": []}, 400),
        ("/api/answers", {"question_id": "x", "outcome": "declined"}, 404),
        ("/api/answers", {"question_id": "x", "outcome": "declined", "comment": "x" * 16_385}, 400),
        ("/api/answers", {"question_id": "x", "outcome": "declined", "comment": "\ud800"}, 400),
        ("/api/answers", [], 400),
        ("/api/decisions", {"review_id": "x", "outcome": "answered"}, 400),
        ("/api/decisions", {"review_id": "x", "outcome": "approved"}, 404),
        ("/api/messages", {"task_id": "nobody's", "text": "x"}, 404),
        ("/api/messages", {"task_id": "x", "text": ""}, 400),
    ],
)
def test_what_cannot_be_is_refused_with_a_problem(client: FlaskClient, path: str, body: Any, status: int) -> None:
    reply = client.post(path, json=body)
    assert reply.status_code == status
    assert shapes.shape("problem.json")(reply.json) == ""


def test_an_answer_that_would_not_fit_into_an_inbox_is_refused(client: FlaskClient) -> None:
    question = Outbox().question(questions=[{"id": f"q{n}", "text": "?"} for n in range(9)])
    post(client, question)
    answers = [{"question_id": f"q{n}", "text": "é" * 8_000} for n in range(9)]
    body = {"question_id": question["id"], "outcome": "answered", "answers": answers}
    assert client.post("/api/answers", json=body).status_code == 413


# --- Operators ----------------------------------------------------------------------------------------------------


def test_metrics_count_what_was_answered_and_what_waits(client: FlaskClient) -> None:
    outbox = Outbox()
    question = outbox.question()
    post(client, question, outbox.status("task-2", progress_percentage=120))
    post(client, question)
    reply = client.get("/metrics")
    assert reply.content_type.startswith("text/plain; version=0.0.4")
    lines = set(reply.text.splitlines())
    assert {
        'orchclient_events_total{result="accepted"} 1',
        'orchclient_events_total{result="rejected"} 1',
        'orchclient_events_total{result="duplicate"} 1',
        'orchclient_tasks{status="clarification_needed"} 1',
        "orchclient_questions_open 1",
        'orchclient_requests_total{endpoint="wire.events",status="200"} 2',
    } <= lines


def test_the_description_names_every_path_for_programs(orchestrator: Orchestrator, client: FlaskClient) -> None:
    rules = {
        (str(rule).replace("<", "{").replace(">", "}"), method.lower())
        for rule in client.application.url_map.iter_rules()
        if not rule.endpoint.startswith("page.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item}
    assert described == rules
    assert client.get("/openapi.json").json == document()


def test_the_schemas_of_the_description_resolve_and_refuse(client: FlaskClient) -> None:
    whole = document()
    batch = {"$ref": "#/components/schemas/batch", "components": whole["components"]}
    validator = Draft202012Validator(batch)
    event = Outbox().status()
    assert list(validator.iter_errors([event])) == []
    assert list(validator.iter_errors([event | {"sequence": 1}]))
