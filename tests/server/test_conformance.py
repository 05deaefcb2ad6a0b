"""The wire contract, asked of whoever claims to speak it: the orchestrator on each database, and the test double."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import pytest
import requests
from attrs import frozen

from orchclient.core.source_report import source_report
from orchclient.server import shapes
from orchclient.server.access import add_token
from orchclient.server.app import create_app
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import Message
from orchclient.server.reading import BATCH_TYPE, Limits
from orchclient.testing.receiver import Receiver
from tests.server.events import Event, Outbox, body_of, new_event_id

MAX_EVENTS, MAX_BYTES = 20, 65_536
HEADERS = {"Content-Type": f"{BATCH_TYPE}; charset=utf-8"}
WAIT_S = 20


@frozen
class Answer:
    """A reply over HTTP."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def statuses(self) -> list[str]:
        return [result["status"] for result in self.json["results"]]


class Target(Protocol):
    """Whoever speaks the contract. ``put`` places an item into a source's inbox."""

    is_double: bool

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer: ...

    def put(self, source: str, text: str) -> None: ...


class Served:
    """Our own orchestrator, as a WSGI application."""

    is_double = False

    def __init__(self, orchestrator: Orchestrator, token: str | None) -> None:
        self._orchestrator = orchestrator
        self._app = create_app(orchestrator, limits=Limits(MAX_EVENTS, MAX_BYTES))
        self._token = token

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        given = ({"Authorization": f"Bearer {self._token}"} if self._token else {}) | (headers or {})
        reply = self._app.test_client().open(path, method=method, headers=given, data=body)
        return Answer(reply.status_code, reply.headers, reply.data)

    def put(self, source: str, text: str) -> None:
        outbox = Outbox(source.removeprefix("urn:uuid:"))
        task = f"for {source[-12:]}"
        if not self._orchestrator.message(Message(task, text, {"kind": "policy"})):
            event = outbox.status(task, sequence=1_000)
            assert self.ask("POST", "/v1/events", HEADERS, body_of([event])).statuses == ["accepted"]
            assert self._orchestrator.message(Message(task, text, {"kind": "policy"}))


class Doubled:
    """The receiver of the tests."""

    is_double = True

    def __init__(self, receiver: Receiver, token: str | None) -> None:
        self._receiver = receiver
        self._token = token

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        given = ({"Authorization": f"Bearer {self._token}"} if self._token else {}) | (headers or {})
        reply = requests.request(method, self._receiver.url + path, headers=given, data=body, timeout=WAIT_S)
        return Answer(reply.status_code, reply.headers, reply.content)

    def put(self, source: str, text: str) -> None:
        who = {"kind": "policy"}
        data = {"task_id": "task-1", "text": text, "sent_by": who, "sent_at": "2026-11-23T09:31:44Z"}
        self._receiver.put(
            {
                "specversion": "1.0",
                "id": new_event_id(),
                "source": "urn:test",
                "type": "dev.orchclient.task.message.v1",
                "subject": "task-1",
                "time": "2026-11-23T09:31:44Z",
                "data": data,
            },
            source,
        )


MakeTarget = Callable[[bool], Target]


@pytest.fixture(params=["sqlite", "postgresql", "double"])
def make_target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTarget]:
    """Starts one of those who speak the contract, with or without a token that it demands."""
    ends: list[Callable[[], Any]] = []

    def make(with_token: bool) -> Target:
        if request.param == "double":
            token = "secret-token" if with_token else None
            limits = {"max_events": MAX_EVENTS, "max_body_bytes": MAX_BYTES}
            said = {"protocol": ["1.0"], "encodings": ["gzip"]}
            double = Receiver(token=token, accepts_gzip=True, capabilities=said, **limits).start()
            ends.append(double.stop)
            return Doubled(double, token)
        is_sqlite = request.param == "sqlite"
        served = Orchestrator.open(str(tmp_path / "o.db") if is_sqlite else request.getfixturevalue("postgres").url())
        ends.append(served.close)
        token = served.writing(lambda session: add_token(session, "a", "agent", 1)) if with_token else None
        return Served(served, token)

    yield make
    for end in ends:
        end()


@pytest.fixture
def target(make_target: MakeTarget) -> Target:
    return make_target(False)


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


def sent(target: Target, *events: Event) -> Answer:
    answer = target.ask("POST", "/v1/events", HEADERS, body_of(list(events)))
    assert answer.status == 200, answer.body
    assert shapes.shape("batch-reply.json")(answer.json) == ""
    assert [result["id"] for result in answer.json["results"]] == [event["id"] for event in events]
    return answer


def report(target: Target, source: str) -> Any:
    answer = target.ask("GET", f"/v1/sources/{quote(source, safe='')}")
    assert answer.status == 200
    assert shapes.shape("source-report.json")(answer.json) == ""
    assert source_report(answer.body) is not None
    return answer.json


def page(target: Target, source: str, cursor: str | None = None, wait: str = "0") -> Any:
    query = f"source={quote(source)}&wait={wait}" + (f"&cursor={quote(cursor)}" if cursor is not None else "")
    answer = target.ask("GET", f"/v1/inbox?{query}")
    assert answer.status == 200, answer.body
    assert len(answer.body) <= 65_536
    assert shapes.shape("inbox-page.json")(answer.json) == ""
    return answer.json


def texts(found: Any) -> list[str]:
    return [item["data"]["text"] for item in found["items"]]


def acknowledge(target: Target, source: str, cursor: str) -> int:
    body = json.dumps({"source": source, "cursor": cursor}).encode()
    return target.ask("POST", "/v1/inbox/ack", {"Content-Type": "application/json"}, body).status


# --- Events -------------------------------------------------------------------------------------------------------


def test_events_are_accepted_in_the_order_of_the_request(target: Target, outbox: Outbox) -> None:
    assert sent(target, *(outbox.status() for _ in range(5))).statuses == ["accepted"] * 5


def test_an_empty_batch_has_empty_results(target: Target) -> None:
    assert sent(target).json["results"] == []


def test_a_repeat_is_a_duplicate_whatever_its_text_says(target: Target, outbox: Outbox) -> None:
    event = outbox.status(progress_percentage=10)
    assert sent(target, event).statuses == ["accepted"]
    assert sent(target, event).statuses == ["duplicate"]
    event["data"]["progress_percentage"] = 99
    assert sent(target, event, outbox.status()).statuses == ["duplicate", "accepted"]


def test_a_repeat_within_a_request_is_a_duplicate(target: Target, outbox: Outbox) -> None:
    event = outbox.status()
    body = body_of([event, event])
    assert target.ask("POST", "/v1/events", HEADERS, body).statuses == ["accepted", "duplicate"]


def test_the_same_id_of_another_source_is_another_event(target: Target, outbox: Outbox) -> None:
    event = outbox.status()
    again = Outbox().status(id_=event["id"])
    assert sent(target, event).statuses == sent(target, again).statuses == ["accepted"]


def test_a_second_id_for_a_sequence_is_a_conflict_and_the_rest_of_its_task_waits(
    target: Target, outbox: Outbox
) -> None:
    sent(target, outbox.status(), outbox.status())
    other = Outbox(outbox.uuid)
    answer = sent(target, other.status(), other.status("task-2"), other.status(sequence=9), other.status("task-3"))
    assert answer.statuses == ["rejected", "rejected", "retry", "accepted"]
    assert [result.get("code") for result in answer.json["results"][:3]] == [
        "sequence_conflict",
        "sequence_conflict",
        "task_waits",
    ]


def test_an_event_of_an_unknown_type_is_accepted(target: Target, outbox: Outbox) -> None:
    event = outbox.status()
    event |= {"type": "dev.orchclient.task.sang.v7", "dataschema": "https://orchclient.dev/schemas/task.sang.v7.json"}
    assert sent(target, event).statuses == ["accepted"]
    assert report(target, outbox.source)["highest"] == 1


def test_members_that_nobody_knows_are_ignored(target: Target, outbox: Outbox) -> None:
    event = outbox.status(something={"new": 1}) | {"novelty": "yes"}
    assert sent(target, event).statuses == ["accepted"]


def test_a_batch_may_be_compressed(target: Target, outbox: Outbox) -> None:
    body = gzip.compress(body_of([outbox.status()]))
    assert target.ask("POST", "/v1/events", HEADERS | {"Content-Encoding": "gzip"}, body).statuses == ["accepted"]


def test_a_bomb_is_not_inflated(target: Target) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join([packer.compress(b"[" + b" " * 1_000_000) for _ in range(30)]) + packer.flush()
    assert target.ask("POST", "/v1/events", HEADERS | {"Content-Encoding": "gzip"}, body).status == 413


BAD_BODIES = {
    "no JSON": b"[{",
    "no array": b'"text"',
    "two arrays": b"[] []",
    "a trailing comma": b"[1,]",
    "a number": b"[1]",
    "no id": b'[{"specversion":"1.0"}]',
    "NaN": b'[{"id":NaN}]',
    "too deep": b"[" * 30_000,
    "not UTF-8": b'["\xff"]',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(target: Target, name: str) -> None:
    answer = target.ask("POST", "/v1/events", HEADERS, BAD_BODIES[name])
    assert answer.status == 400
    assert shapes.shape("problem.json")(answer.json) == ""


def test_a_gzip_body_that_is_cut_short_is_refused(target: Target, outbox: Outbox) -> None:
    body = gzip.compress(body_of([outbox.status()]))[:-9]
    assert target.ask("POST", "/v1/events", HEADERS | {"Content-Encoding": "gzip"}, body).status == 400


def test_other_types_and_encodings_are_refused(target: Target) -> None:
    assert target.ask("POST", "/v1/events", {"Content-Type": "text/html"}, b"[]").status == 415
    assert target.ask("POST", "/v1/events", HEADERS | {"Content-Encoding": "br"}, b"[]").status == 415


def test_too_many_events_and_too_many_bytes_are_too_large(target: Target, outbox: Outbox) -> None:
    many = body_of([outbox.status() for _ in range(MAX_EVENTS + 1)])
    large = body_of([outbox.status(current_step="x" * 4_000) for _ in range(MAX_EVENTS)])
    assert target.ask("POST", "/v1/events", HEADERS, many).status == 413
    assert target.ask("POST", "/v1/events", HEADERS, large).status == 413


def test_an_event_that_breaks_its_schema_is_rejected_alone(target: Target, outbox: Outbox) -> None:
    if target.is_double:
        pytest.skip("the double does not know the schemas of the types")
    bad = outbox.status(progress_percentage=120)
    answer = sent(target, outbox.status(), bad, outbox.status())
    assert answer.statuses == ["accepted", "rejected", "accepted"]
    assert answer.json["results"][1]["code"] == "invalid"
    assert "progress_percentage" in answer.json["results"][1]["detail"]


def test_the_reply_to_the_largest_batch_of_bad_events_stays_within_its_limit(outbox: Outbox, tmp_path: Path) -> None:
    served = Orchestrator.open(str(tmp_path / "o.db"))
    try:
        client = create_app(served).test_client()
        events = [outbox.status(progress_percentage=120, x="y" * 500) for _ in range(500)]
        reply = client.post("/v1/events", data=body_of(events), headers=HEADERS)
        assert {result["status"] for result in reply.json["results"]} == {"rejected"}
        assert len(reply.data) <= 65_536
    finally:
        served.close()


# --- Capabilities, credentials, what is not there -----------------------------------------------------------------


def test_capabilities_are_told(target: Target) -> None:
    answer = target.ask("GET", "/v1/capabilities")
    assert answer.status == 200
    assert shapes.shape("capabilities.json")(answer.json) == ""
    assert "gzip" in answer.json["encodings"]


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic c2VjcmV0"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/events"), ("GET", "/v1/capabilities"), ("GET", "/v1/inbox?source=x"), ("POST", "/v1/inbox/ack")],
)
def test_who_has_no_good_token_is_refused(make_target: MakeTarget, authorization: str, method: str, path: str) -> None:
    target = make_target(True)
    answer = target.ask(method, path, {**HEADERS, "Authorization": authorization}, b"[]")
    assert answer.status == 401
    assert shapes.shape("problem.json")(answer.json) == ""


def test_who_has_the_token_is_let_in(make_target: MakeTarget, outbox: Outbox) -> None:
    assert sent(make_target(True), outbox.status()).statuses == ["accepted"]


def test_what_is_not_there_and_what_is_not_allowed_are_problems(target: Target) -> None:
    missing, wrong = target.ask("GET", "/v1/nothing"), target.ask("GET", "/v1/events")
    assert (missing.status, wrong.status) == (404, 405)
    assert "POST" in wrong.headers["Allow"]
    assert shapes.shape("problem.json")(missing.json) == shapes.shape("problem.json")(wrong.json) == ""


# --- Sources ------------------------------------------------------------------------------------------------------


def test_a_source_that_was_never_seen_has_nothing(target: Target, outbox: Outbox) -> None:
    assert report(target, outbox.source) == {"highest": 0, "gaps": []}


def test_gaps_are_what_is_neither_held_nor_explained(target: Target, outbox: Outbox) -> None:
    sent(target, *(outbox.status(sequence=n) for n in (3, 4, 8, 12)))
    assert report(target, outbox.source) == {"highest": 12, "gaps": [[1, 2], [5, 7], [9, 11]]}
    sent(target, outbox.gap(6, 10, sequence=13))
    assert report(target, outbox.source) == {"highest": 13, "gaps": [[1, 2], [5, 5], [11, 11]]}
    sent(target, outbox.status(sequence=5), outbox.status(sequence=7))
    assert report(target, outbox.source) == {"highest": 13, "gaps": [[1, 2], [11, 11]]}


def test_an_event_that_comes_in_spite_of_its_gap_is_accepted(target: Target, outbox: Outbox) -> None:
    sent(target, outbox.gap(1, 3, sequence=4))
    assert sent(target, outbox.status(sequence=2)).statuses == ["accepted"]
    assert report(target, outbox.source) == {"highest": 4, "gaps": []}


def test_a_gap_may_name_another_source_and_explains_that_one_s_sequences(target: Target, outbox: Outbox) -> None:
    other = Outbox()
    sent(target, *(other.status(sequence=n) for n in (1, 4)))
    sent(target, outbox.status(sequence=5), outbox.gap(2, 3, source=other.source, sequence=6))
    assert report(target, other.source) == {"highest": 4, "gaps": []}
    assert report(target, outbox.source) == {"highest": 6, "gaps": [[1, 4]]}


# --- The inbox ----------------------------------------------------------------------------------------------------


def test_an_empty_inbox_gives_an_empty_page_that_repeats_its_cursor(target: Target, outbox: Outbox) -> None:
    first = page(target, outbox.source)
    assert first["items"] == []
    assert first["has_more"] is False
    assert page(target, outbox.source, first["cursor"])["cursor"] == first["cursor"]


def test_items_come_in_order_until_they_are_acknowledged(target: Target, outbox: Outbox) -> None:
    for text in ("one", "two", "three"):
        target.put(outbox.source, text)
    first = page(target, outbox.source)
    assert texts(first) == ["one", "two", "three"]
    assert texts(page(target, outbox.source)) == ["one", "two", "three"]
    target.put(outbox.source, "four")
    assert texts(page(target, outbox.source, first["cursor"])) == ["four"]
    assert acknowledge(target, outbox.source, first["cursor"]) // 100 == 2
    assert texts(page(target, outbox.source)) == ["four"]
    assert acknowledge(target, outbox.source, first["cursor"]) // 100 == 2
    assert texts(page(target, outbox.source)) == ["four"]


def test_an_inbox_belongs_to_its_source(target: Target, outbox: Outbox) -> None:
    other = Outbox()
    target.put(outbox.source, "mine")
    assert texts(page(target, other.source)) == []
    assert texts(page(target, outbox.source)) == ["mine"]


def test_a_batch_reply_says_that_items_wait(target: Target, outbox: Outbox) -> None:
    target.put(outbox.source, "hello")
    assert sent(target, outbox.status(sequence=2_000)).json["inbox"]["pending"] == 1
    acknowledge(target, outbox.source, page(target, outbox.source)["cursor"])
    assert sent(target, outbox.status(sequence=2_001)).json["inbox"]["pending"] == 0


def test_a_poll_that_waits_is_woken_by_an_item(target: Target, outbox: Outbox) -> None:
    sent(target, outbox.status())
    cursor = page(target, outbox.source)["cursor"]
    found: list[Any] = []
    poll = threading.Thread(target=lambda: found.append(page(target, outbox.source, cursor, wait=str(WAIT_S))))
    poll.start()
    target.put(outbox.source, "now")
    poll.join(WAIT_S)
    assert [texts(each) for each in found] == [["now"]]


def test_a_poll_that_waits_ends_with_an_empty_page(target: Target, outbox: Outbox) -> None:
    assert page(target, outbox.source, wait="0.05")["items"] == []


def test_a_page_with_more_than_fits_says_so(target: Target, outbox: Outbox) -> None:
    for n in range(7):
        target.put(outbox.source, f"{n}" * 16_000)
    found, cursor, pages = [], None, 0
    while True:
        each = page(target, outbox.source, cursor) if not target.is_double else page_of_double(target, outbox, cursor)
        found += [text[0] for text in texts(each)]
        cursor, pages = each["cursor"], pages + 1
        if not each["has_more"]:
            break
    assert found == list("0123456")
    assert pages > 1 or target.is_double


def page_of_double(target: Target, outbox: Outbox, cursor: str | None) -> Any:
    """The double counts items, not bytes."""
    query = f"source={quote(outbox.source)}" + (f"&cursor={quote(cursor)}" if cursor else "")
    return target.ask("GET", f"/v1/inbox?{query}").json


def test_a_cursor_that_is_not_known_counts_as_none(target: Target, outbox: Outbox) -> None:
    if target.is_double:
        pytest.skip("the double refuses cursors that it did not give out, so that a client's mistake shows")
    target.put(outbox.source, "one")
    for cursor in ("never-given-out", f"1-{new_event_id()}", "9-0", "", "x" * 600):
        assert texts(page(target, outbox.source, cursor)) == ["one"]
        acknowledge(target, outbox.source, cursor)
    assert texts(page(target, outbox.source)) == ["one"]


def test_a_poll_without_a_source_or_with_a_strange_wait_is_refused(target: Target, outbox: Outbox) -> None:
    assert target.ask("GET", "/v1/inbox").status == 400
    assert target.ask("GET", f"/v1/inbox?source={quote(outbox.source)}&wait=long").status == 400
