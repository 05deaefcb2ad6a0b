"""The loopback receiver: what it answers, remembers and leaves behind, and how it fails on demand."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from attrs import frozen

from orchclient.testing.receiver import ACK_PATH, INBOX_PATH, Conflict, Fault, Receiver

SOURCE = "urn:uuid:0198c0de-0000-7000-8000-000000000001"
BATCH = "application/cloudevents-batch+json"
LONG = 5.0  # more than any wait here takes when all is well


@frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def statuses(self) -> dict[str, str]:
        return {result["id"]: result["status"] for result in self.json["results"]}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def event(event_id: str, task: str | None = "t1", sequence: int | None = None, **attributes: Any) -> dict[str, Any]:
    optional = {"subject": task, "sequence": None if sequence is None else f"{sequence:020}"}
    kept = {name: value for name, value in optional.items() if value is not None}
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": SOURCE,
        "type": "dev.orchclient.task.status.v1",
        **kept,
        **attributes,
    }


@contextmanager
def connected(receiver: Receiver, timeout: float = LONG) -> Iterator[http.client.HTTPConnection]:
    host, port = receiver.url.removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=timeout)) as connection:
        yield connection


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes, headers: dict[str, str]
) -> Answer:
    connection.request(method, path, body, headers)
    with connection.getresponse() as response:
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def send(receiver: Receiver, body: bytes, headers: dict[str, str] | None = None, timeout: float = LONG) -> Answer:
    with connected(receiver, timeout) as connection:
        return exchange(connection, "POST", "/v1/events", body, {"Content-Type": BATCH, **(headers or {})})


def post(receiver: Receiver, *events: dict[str, Any], timeout: float = LONG, **headers: str) -> Answer:
    return send(receiver, json.dumps(events).encode(), headers, timeout)


def get(receiver: Receiver, path: str, **query: str) -> Answer:
    with connected(receiver) as connection:
        return exchange(connection, "GET", f"{path}?{urlencode(query)}" if query else path, b"", {})


def acknowledge(receiver: Receiver, cursor: object) -> Answer:
    with connected(receiver) as connection:
        return exchange(connection, "POST", "/v1/inbox/ack", json.dumps({"cursor": cursor}).encode(), {})


def kept_ids(receiver: Receiver) -> list[str]:
    return [event["id"] for event in receiver.events]


def raw_reply(receiver: Receiver, request: bytes, enough: int = 1 << 30) -> bytes:
    """All bytes that come back until the connection ends, or enough of them."""
    host, port = receiver.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LONG) as sock:
        sock.sendall(request)
        reply = b""
        while len(reply) < enough and (piece := sock.recv(1 << 20)):
            reply += piece
    return reply


def raw_post(*events: dict[str, Any]) -> bytes:
    body = json.dumps(events).encode()
    return f"POST /v1/events HTTP/1.1\r\nContent-Type: {BATCH}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def took_s(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


class TestEvents:
    def test_first_sights_are_accepted_and_remembered_in_order_of_arrival(self, receiver: Receiver) -> None:
        answer = post(receiver, event("b"), event("a"))
        assert answer.json["results"] == [
            {"id": "b", "status": "accepted"},
            {"id": "a", "status": "accepted"},
        ]
        assert receiver.events == [event("b"), event("a")]

    def test_a_repeat_is_answered_duplicate_and_counted_but_not_kept_again(self, receiver: Receiver) -> None:
        post(receiver, event("a"))
        assert post(receiver, event("a"), event("b")).statuses == {"a": "duplicate", "b": "accepted"}
        assert kept_ids(receiver) == ["a", "b"]
        assert receiver.repeats == {"a": 1}

    def test_the_same_id_from_another_source_is_another_event(self, receiver: Receiver) -> None:
        post(receiver, event("a"))
        assert post(receiver, event("a", source="urn:other")).statuses == {"a": "accepted"}

    def test_another_event_with_a_sequence_that_is_taken_is_rejected_as_a_conflict(self, receiver: Receiver) -> None:
        post(receiver, event("a", sequence=7))
        [result] = post(receiver, event("b", sequence=7)).json["results"]
        assert (result["status"], result["code"]) == ("rejected", "sequence_conflict")
        assert receiver.conflicts == [Conflict(SOURCE, 7, "a", "b")]
        assert kept_ids(receiver) == ["a"]

    def test_later_events_of_a_task_wait_behind_a_conflict(self, receiver: Receiver) -> None:
        post(receiver, event("a", sequence=7))
        answer = post(receiver, event("b", sequence=7), event("c", sequence=8), event("d", "other", sequence=9))
        assert answer.statuses == {"b": "rejected", "c": "retry", "d": "accepted"}

    def test_events_are_grouped_by_task_in_order_of_first_sight(self, receiver: Receiver) -> None:
        post(receiver, event("a1", "a"), event("b1", "b"), event("a2", "a"), event("x", task=None))
        by_task = receiver.by_task()
        assert {task: [e["id"] for e in events] for task, events in by_task.items()} == {
            "a": ["a1", "a2"],
            "b": ["b1"],
        }

    def test_a_single_structured_event_is_taken_like_a_batch_of_one(self, receiver: Receiver) -> None:
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        assert send(receiver, json.dumps(event("a")).encode(), headers).statuses == {"a": "accepted"}

    def test_a_reply_tells_how_many_inbox_items_wait_for_that_source(self, receiver: Receiver) -> None:
        for source in (SOURCE, None, "urn:other"):
            receiver.put(event("q"), source)
        assert post(receiver, event("a")).json["inbox"] == {"pending": 2}

    def test_many_threads_lose_and_double_nothing(self, receiver: Receiver, background: ThreadPoolExecutor) -> None:
        batches = [[event(f"{n}-{i}") for i in range(5)] for n in range(20)]
        list(background.map(lambda batch: post(receiver, *batch), batches * 2))
        assert sorted(kept_ids(receiver)) == sorted(e["id"] for batch in batches for e in batch)
        assert set(receiver.repeats.values()) == {1}

    def test_a_connection_serves_one_request_after_another(self, receiver: Receiver) -> None:
        with requests.Session() as session:
            for name in ("a", "b"):
                session.post(f"{receiver.url}/v1/events", json=[event(name)], headers={"Content-Type": BATCH})
            assert session.get(f"{receiver.url}/v1/sources/{SOURCE}").json() == {"highest": 0, "gaps": []}
        assert kept_ids(receiver) == ["a", "b"]

    @pytest.mark.parametrize("version", ["1.0\r\n", "1.1\r\nConnection: close\r\n"], ids=["1.0", "1.1"])
    def test_a_connection_ends_when_the_client_wants_only_one_answer(self, receiver: Receiver, version: str) -> None:
        reply = raw_reply(receiver, f"GET /v1/capabilities HTTP/{version}\r\n".encode())
        assert reply.startswith(b"HTTP/1.1 404 Not Found\r\n")


class TestRefusals:
    @pytest.mark.parametrize(
        "body",
        [
            b"{",
            b'{"id": "a"}',
            b"[1]",
            b"[NaN]",
            b"[" * 100_000,
            json.dumps([event("a", specversion="0.3")]).encode(),
            json.dumps([event("")]).encode(),
            json.dumps([event("a", subject=5)]).encode(),
            json.dumps([{**event("a"), "sequence": "-1"}]).encode(),
            json.dumps([event("a", type="dev.orchclient.gap.v1", data={"from": 3, "to": 2})]).encode(),
        ],
        ids=lambda body: body[:20].decode() + f"… {len(body)}",
    )
    def test_a_body_of_the_wrong_shape_is_refused_whole_with_a_problem(self, receiver: Receiver, body: bytes) -> None:
        answer = send(receiver, body)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
        assert answer.json["status"] == 400
        assert receiver.events == []

    def test_another_content_type_is_refused(self, receiver: Receiver) -> None:
        assert send(receiver, b"[]", {"Content-Type": "application/json"}).status == 415

    def test_without_the_bearer_token_every_endpoint_says_unauthorised(self) -> None:
        with Receiver(token="right") as receiver:
            assert post(receiver, event("a")).status == 401
            assert post(receiver, event("a"), Authorization="Bearer wrong").status == 401
            assert get(receiver, "/v1/inbox", source=SOURCE).status == 401
            assert post(receiver, event("b"), Authorization="Bearer right").status == 200
            assert kept_ids(receiver) == ["b"]

    def test_a_batch_with_too_many_events_is_too_large(self) -> None:
        with Receiver(max_events=1) as receiver:
            assert post(receiver, event("a"), event("b")).status == 413
            assert post(receiver, event("a")).status == 200
            assert [request.event_count for request in receiver.requests] == [2, 1]

    def test_a_body_over_the_limit_is_too_large(self) -> None:
        with Receiver(max_body_bytes=200) as receiver:
            assert post(receiver, event("a", data="x" * 200)).status == 413

    def test_a_path_that_is_not_of_the_contract_is_not_found(self, receiver: Receiver) -> None:
        assert get(receiver, "/v2/events").status == 404

    def test_another_method_is_refused_and_the_right_one_named(self, receiver: Receiver) -> None:
        answer = get(receiver, "/v1/events")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")

    def test_what_is_not_http_gets_a_bad_request(self, receiver: Receiver) -> None:
        assert raw_reply(receiver, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request\r\n")

    def test_a_predicate_that_raises_is_a_500_for_the_client_and_kept_for_the_test(
        self, receiver: Receiver, capfd: pytest.CaptureFixture[str]
    ) -> None:
        receiver.reject(lambda event: event["no such attribute"])
        assert post(receiver, event("a")).status == 500
        assert [type(failure) for failure in receiver.failures] == [KeyError]
        assert capfd.readouterr() == ("", "")


class TestGzip:
    def test_a_gzip_body_is_read_when_gzip_is_accepted(self) -> None:
        with Receiver(accepts_gzip=True) as receiver:
            body = gzip.compress(json.dumps([event("a")]).encode())
            assert send(receiver, body, {"Content-Encoding": "gzip"}).statuses == {"a": "accepted"}

    def test_a_gzip_body_is_refused_when_gzip_is_not_accepted(self, receiver: Receiver) -> None:
        assert send(receiver, gzip.compress(b"[]"), {"Content-Encoding": "gzip"}).status == 415

    def test_the_size_limit_is_for_the_unpacked_body_too(self) -> None:
        with Receiver(accepts_gzip=True, max_body_bytes=1000) as receiver:
            body = gzip.compress(json.dumps([event("a", data="x" * 1000)]).encode())
            assert send(receiver, body, {"Content-Encoding": "gzip"}).status == 413

    @pytest.mark.parametrize("body", [b"[]", gzip.compress(b"[]")[:-5]], ids=["plain", "cut short"])
    def test_a_body_that_is_not_whole_gzip_is_refused(self, body: bytes) -> None:
        with Receiver(accepts_gzip=True) as receiver:
            assert send(receiver, body, {"Content-Encoding": "gzip"}).status == 400


class TestCapabilities:
    def test_capabilities_are_told_as_given(self) -> None:
        capabilities = {"protocol": ["1.0"], "batch": {"max_events": 10}}
        with Receiver(capabilities=capabilities) as receiver:
            assert get(receiver, "/v1/capabilities").json == capabilities

    def test_without_capabilities_there_is_nothing_to_find(self, receiver: Receiver) -> None:
        assert get(receiver, "/v1/capabilities").status == 404


class TestSources:
    def source(self, receiver: Receiver) -> Any:
        return get(receiver, f"/v1/sources/{quote(SOURCE)}").json

    def test_an_unknown_source_holds_nothing(self, receiver: Receiver) -> None:
        assert self.source(receiver) == {"highest": 0, "gaps": []}

    def test_the_highest_sequence_and_the_missing_spans_are_told(self, receiver: Receiver) -> None:
        post(receiver, *(event(str(n), sequence=n) for n in (9, 3, 4, 6, 10)))
        assert self.source(receiver) == {"highest": 10, "gaps": [[1, 2], [5, 5], [7, 8]]}

    def test_a_gap_event_closes_the_span_that_it_explains(self, receiver: Receiver) -> None:
        gap = event("gap", None, 11, type="dev.orchclient.gap.v1", data={"from": 2, "to": 9})
        post(receiver, event("1", sequence=1), event("5", sequence=5), gap)
        assert self.source(receiver) == {"highest": 11, "gaps": [[10, 10]]}

    def test_what_is_explained_beyond_the_highest_sequence_makes_no_gap(self, receiver: Receiver) -> None:
        post(receiver, event("gap", None, 1, type="dev.orchclient.gap.v1", data={"from": 5, "to": 6}))
        assert self.source(receiver) == {"highest": 1, "gaps": []}


class TestInbox:
    def test_items_come_in_the_order_they_were_put_to_the_source_they_are_for(self, receiver: Receiver) -> None:
        for name, source in (("one", SOURCE), ("other", "urn:other"), ("two", None)):
            receiver.put(event(name), source)
        page = get(receiver, "/v1/inbox", source=SOURCE).json
        assert [item["id"] for item in page["items"]] == ["one", "two"]
        assert page["has_more"] is False

    def test_a_cursor_leads_on_and_no_cursor_starts_at_the_oldest_unacknowledged(self) -> None:
        with Receiver(inbox_page=1) as receiver:
            receiver.put(event("one"))
            receiver.put(event("two"))
            first = get(receiver, "/v1/inbox", source=SOURCE).json
            second = get(receiver, "/v1/inbox", source=SOURCE, cursor=first["cursor"]).json
            again = get(receiver, "/v1/inbox", source=SOURCE).json
        assert [page["items"][0]["id"] for page in (first, second, again)] == ["one", "two", "one"]
        assert [page["has_more"] for page in (first, second)] == [True, False]

    def test_an_acknowledgement_drops_the_items_up_to_the_cursor_for_that_source_only(self, receiver: Receiver) -> None:
        receiver.put(event("theirs"), "urn:other")
        receiver.put(event("mine"), SOURCE)
        cursor = get(receiver, "/v1/inbox", source=SOURCE).json["cursor"]
        receiver.put(event("later"), SOURCE)
        assert acknowledge(receiver, cursor).json == {"inbox": {"pending": 1}}
        assert [item["id"] for item in receiver.inbox] == ["theirs", "later"]

    def test_a_poll_waits_for_an_item(self, receiver: Receiver, background: ThreadPoolExecutor) -> None:
        poll = background.submit(get, receiver, "/v1/inbox", source=SOURCE, wait="30")
        assert receiver.wait_for_requests(1, LONG, "/v1/inbox")
        assert receiver.requests[0].status is None
        receiver.put(event("late"))
        assert [item["id"] for item in poll.result(LONG).json["items"]] == ["late"]
        assert receiver.requests[0].status == 200

    def test_a_poll_ends_empty_when_its_wait_is_over(self, receiver: Receiver) -> None:
        page = get(receiver, "/v1/inbox", source=SOURCE, wait="0.05").json
        assert page["items"] == []
        assert get(receiver, "/v1/inbox", source=SOURCE, cursor=page["cursor"]).status == 200

    @pytest.mark.parametrize("query", [{}, {"wait": "soon"}], ids=str)
    def test_a_poll_of_the_wrong_shape_is_refused(self, receiver: Receiver, query: dict[str, str]) -> None:
        source = {"source": SOURCE} if query else {}
        assert get(receiver, "/v1/inbox", **source, **query).status == 400

    def test_a_cursor_that_is_not_known_counts_as_absent(self, receiver: Receiver) -> None:
        receiver.put(event("one"), SOURCE)
        theirs = get(receiver, "/v1/inbox", source="urn:other").json["cursor"]
        pages = [get(receiver, "/v1/inbox", source=SOURCE, cursor=cursor).json for cursor in ("made up", "", theirs)]
        assert [[item["id"] for item in page["items"]] for page in pages] == [["one"]] * 3

    def test_a_page_stays_below_64_kib(self, receiver: Receiver) -> None:
        for name in ("one", "two", "three"):
            receiver.put(event(name, data={"text": "x" * 30_000}), SOURCE)
        answer = get(receiver, "/v1/inbox", source=SOURCE)
        assert [item["id"] for item in answer.json["items"]] == ["one", "two"]
        assert answer.json["has_more"]
        assert len(answer.body) <= 65_536

    def test_items_in_another_order_come_again_behind_every_cursor(self, receiver: Receiver) -> None:
        for name in ("one", "two"):
            receiver.put(event(name), SOURCE)
        cursor = get(receiver, "/v1/inbox", source=SOURCE).json["cursor"]
        receiver.reorder_inbox()
        again = get(receiver, "/v1/inbox", source=SOURCE, cursor=cursor).json
        assert [item["id"] for item in again["items"]] == ["two", "one"]

    def test_a_poll_takes_the_faults_that_are_planned_for_polls(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(503), on=INBOX_PATH)
        receiver.always(Fault.status(404), on=ACK_PATH)
        assert [get(receiver, "/v1/inbox", source=SOURCE).status for _ in range(2)] == [503, 200]
        assert acknowledge(receiver, get(receiver, "/v1/inbox", source=SOURCE).json["cursor"]).status == 404
        assert post(receiver, event("a")).status == 200

    def test_a_receiver_may_keep_from_telling_that_items_wait(self) -> None:
        with Receiver(inbox_hints=False) as receiver:
            receiver.put(event("q"), SOURCE)
            assert "inbox" not in post(receiver, event("a")).json

    @pytest.mark.parametrize("cursor", [None, 5, "made up"], ids=str)
    def test_an_acknowledgement_without_a_real_cursor_is_refused(self, receiver: Receiver, cursor: object) -> None:
        assert acknowledge(receiver, cursor).status == 400


class TestRecords:
    def test_each_request_is_recorded_with_what_it_carried_and_got(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(503))
        began = time.monotonic()
        send(receiver, json.dumps([event("a"), event("b")]).encode(), {"X-Attempt": "1"})
        get(receiver, "/v1/capabilities?x=1")
        first, second = receiver.requests
        assert (first.method, first.path, first.status, first.fault) == (
            "POST",
            "/v1/events",
            503,
            Fault.status(503),
        )
        assert (first.event_count, first.ids, first.headers["x-attempt"]) == (2, ("a", "b"), "1")
        assert began <= first.arrived_s <= second.arrived_s <= time.monotonic()
        assert (second.path, second.status, second.fault, second.ids) == (
            "/v1/capabilities",
            404,
            Fault.ok(),
            (),
        )

    def test_waiting_for_a_count_ends_when_so_many_events_are_kept(
        self, receiver: Receiver, background: ThreadPoolExecutor
    ) -> None:
        waiting = background.submit(receiver.wait_for, 2, LONG)
        post(receiver, event("a"))
        assert not receiver.wait_for(2, 0)
        post(receiver, event("b"))
        assert waiting.result(LONG)

    def test_waiting_for_a_predicate_sees_the_receiver(
        self, receiver: Receiver, background: ThreadPoolExecutor
    ) -> None:
        waiting = background.submit(receiver.wait_for, lambda r: r.repeats["a"] == 1, LONG)
        post(receiver, event("a"))
        post(receiver, event("a"))
        assert waiting.result(LONG)

    def test_waiting_gives_up_when_the_time_is_over(self, receiver: Receiver) -> None:
        assert not receiver.wait_for(1, 0.01)
        assert not receiver.wait_for_requests(1, 0.01)


class TestPlan:
    def test_faults_are_used_up_in_order_one_for_each_post_of_events(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(503), Fault.ok(), Fault.status(500))
        get(receiver, "/v1/capabilities")
        assert [post(receiver, event("a")).status for _ in range(4)] == [503, 200, 500, 200]

    def test_a_lasting_fault_follows_the_plan_until_healed(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(500))
        receiver.always(Fault.status(503))
        assert [post(receiver, event("a")).status for _ in range(3)] == [500, 503, 503]
        receiver.heal()
        assert post(receiver, event("a")).status == 200

    def test_healing_drops_what_is_left_of_the_plan(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(500), Fault.status(500))
        receiver.heal()
        assert post(receiver, event("a")).status == 200

    def test_permanent_rules_work_beside_the_plan_until_lifted(self, receiver: Receiver) -> None:
        receiver.reject("bad", code="schema", detail="no title")
        receiver.retry("t2")
        receiver.plan(Fault.reject("also"))
        batch = [event("bad"), event("also"), event("c", "t2"), event("d", "t2"), event("e")]
        assert list(post(receiver, *batch).statuses.values()) == [
            "rejected",
            "rejected",
            "retry",
            "retry",
            "accepted",
        ]
        receiver.heal()
        assert post(receiver, event("bad")).json["results"] == [
            {"id": "bad", "status": "rejected", "code": "schema", "detail": "no title"}
        ]
        receiver.lift_rules()
        assert set(post(receiver, *batch).statuses.values()) == {"accepted", "duplicate"}

    def test_a_rule_concerns_an_event_that_is_kept_already_too(self, receiver: Receiver) -> None:
        post(receiver, event("a"))
        receiver.retry("a")
        assert post(receiver, event("a")).statuses == {"a": "retry"}
        assert (kept_ids(receiver), receiver.repeats) == (["a"], {"a": 1})

    def test_faults_are_values(self) -> None:
        assert Fault.gzip_bomb() == Fault.gzip_bomb()
        assert Fault.status(503) != Fault.status(503, retry_after="2")
        assert len({Fault.drip(1), Fault.drip(1), Fault.drip(2)}) == 2


class TestFaults:
    def test_a_status_keeps_nothing_and_can_say_when_to_come_back(self, receiver: Receiver) -> None:
        receiver.plan(Fault.status(503, retry_after="2"))
        answer = post(receiver, event("a"))
        assert (answer.status, answer.headers["retry-after"], answer.json["status"]) == (503, "2", 503)
        assert receiver.events == []

    def test_a_redirect_keeps_nothing(self, receiver: Receiver) -> None:
        receiver.plan(Fault.redirect("http://127.0.0.1:1/elsewhere"))
        answer = post(receiver, event("a"))
        assert (answer.status, answer.headers["location"]) == (307, "http://127.0.0.1:1/elsewhere")
        assert receiver.events == []

    @pytest.mark.parametrize(
        ("reset", "error"), [(True, ConnectionResetError), (False, http.client.RemoteDisconnected)]
    )
    def test_a_lost_reply_keeps_the_events(self, receiver: Receiver, reset: bool, error: type[Exception]) -> None:
        receiver.plan(Fault.lose_reply(reset=reset))
        with pytest.raises(ConnectionResetError) as caught:
            post(receiver, event("a"))
        assert caught.type is error
        assert kept_ids(receiver) == ["a"]
        assert receiver.requests[0].status is None
        assert post(receiver, event("a")).statuses == {"a": "duplicate"}

    def test_a_hang_that_is_released_answers_as_usual(self, receiver: Receiver, background: ThreadPoolExecutor) -> None:
        receiver.plan(Fault.hang())
        hanging = background.submit(post, receiver, event("a"))
        assert receiver.wait_for_requests(1, LONG)
        assert (receiver.events, receiver.requests[0].status) == ([], None)
        receiver.release()
        assert hanging.result(LONG).statuses == {"a": "accepted"}
        assert [request.status for request in receiver.requests] == [200]

    def test_a_hang_ends_when_its_time_is_over(self, receiver: Receiver) -> None:
        receiver.plan(Fault.hang(0.05))
        assert post(receiver, event("a")).statuses == {"a": "accepted"}

    def test_a_hang_whose_client_has_gone_keeps_nothing(self, receiver: Receiver) -> None:
        receiver.always(Fault.hang())
        with pytest.raises(TimeoutError):
            post(receiver, event("a"), timeout=0.05)
        assert receiver.wait_for_requests(1, LONG)
        receiver.heal()
        assert post(receiver, event("b")).status == 200
        assert kept_ids(receiver) == ["b"]

    def test_a_drip_sends_the_true_answer_byte_by_byte(self, receiver: Receiver) -> None:
        receiver.plan(Fault.drip(0.0005))
        answers = []
        assert took_s(lambda: answers.append(post(receiver, event("a")))) > 0.0005 * 100
        assert answers[0].statuses == {"a": "accepted"}

    @pytest.mark.parametrize("match", ["b", "t2", lambda event: event["id"] == "b"], ids=["id", "task", "predicate"])
    def test_a_rejection_concerns_the_events_that_match_only(self, receiver: Receiver, match: Any) -> None:
        receiver.plan(Fault.reject(match, code="schema", detail="no title"))
        answer = post(receiver, event("a"), event("b", "t2"))
        assert answer.json["results"][1] == {
            "id": "b",
            "status": "rejected",
            "code": "schema",
            "detail": "no title",
        }
        assert kept_ids(receiver) == ["a"]

    def test_a_retry_holds_back_later_events_of_the_same_task(self, receiver: Receiver) -> None:
        receiver.plan(Fault.retry("a2"))
        batch = [event("a1", "a"), event("a2", "a"), event("b1", "b"), event("a3", "a")]
        statuses = post(receiver, *batch).statuses
        assert statuses == {"a1": "accepted", "a2": "retry", "b1": "accepted", "a3": "retry"}
        assert kept_ids(receiver) == ["a1", "b1"]

    def test_missing_results_leave_out_events_that_were_not_kept(self, receiver: Receiver) -> None:
        receiver.plan(Fault.missing_results("b"))
        assert post(receiver, event("a"), event("b")).statuses == {"a": "accepted"}
        assert kept_ids(receiver) == ["a"]

    def test_foreign_ids_accept_events_that_nobody_sent(self, receiver: Receiver) -> None:
        receiver.plan(Fault.foreign_ids())
        statuses = post(receiver, event("a"), event("b")).statuses
        assert list(statuses.values()) == ["accepted", "accepted"]
        assert not statuses.keys() & {"a", "b"}
        assert receiver.events == []

    def test_an_empty_ok_keeps_the_events(self, receiver: Receiver) -> None:
        receiver.plan(Fault.empty_ok())
        answer = post(receiver, event("a"))
        assert (answer.status, answer.body) == (200, b"")
        assert kept_ids(receiver) == ["a"]

    def test_a_reply_that_is_not_json_keeps_nothing(self, receiver: Receiver) -> None:
        receiver.plan(Fault.not_json())
        answer = post(receiver, event("a"))
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(answer.body)
        assert (answer.status, receiver.events) == (200, [])

    def test_garbage_is_not_http(self, receiver: Receiver) -> None:
        receiver.plan(Fault.garbage())
        with pytest.raises(http.client.BadStatusLine):
            post(receiver, event("a"))
        assert (receiver.events, receiver.requests[0].status) == ([], None)

    def test_a_gzip_bomb_is_small_on_the_wire_and_large_unpacked(self, receiver: Receiver) -> None:
        receiver.plan(Fault.gzip_bomb())
        answer = post(receiver, event("a"))
        assert answer.headers["content-encoding"] == "gzip"
        assert len(answer.body) < 65536
        assert len(gzip.decompress(answer.body)) == 50 * 2**20

    def test_a_huge_body_is_as_long_as_it_says(self, receiver: Receiver) -> None:
        receiver.plan(Fault.huge_body(mib=3))
        answer = post(receiver, event("a"))
        assert len(answer.body) == int(answer.headers["content-length"]) == 3 * 2**20
        assert receiver.events == []

    def test_endless_headers_never_come_to_an_end(self, receiver: Receiver) -> None:
        receiver.plan(Fault.endless_headers())
        reply = raw_reply(receiver, raw_post(event("a")), enough=1 << 22)
        assert len(reply) >= 1 << 22
        assert b"\r\n\r\n" not in reply
        assert receiver.events == []


class TestUpAndDown:
    def test_while_it_is_down_connections_are_refused_and_then_all_is_still_there(self, receiver: Receiver) -> None:
        url = receiver.url
        post(receiver, event("a"))
        receiver.put(event("question"))
        receiver.stop()
        with pytest.raises(ConnectionRefusedError):
            post(receiver, event("b"))
        receiver.start()
        assert receiver.url == url
        assert post(receiver, event("a"), event("b")).statuses == {"a": "duplicate", "b": "accepted"}
        assert [item["id"] for item in receiver.inbox] == ["question"]

    def test_nobody_else_gets_its_port_while_it_is_down(self, receiver: Receiver) -> None:
        receiver.stop()
        port = int(receiver.url.rpartition(":")[2])
        with socket.socket() as thief, pytest.raises(OSError, match="in use"):
            thief.bind(("127.0.0.1", port))

    def test_stopping_closes_a_connection_that_is_kept_alive(self, receiver: Receiver) -> None:
        with connected(receiver) as connection:
            assert exchange(connection, "GET", "/v1/capabilities", b"", {}).status == 404
            receiver.stop()
            assert connection.sock.recv(1) == b""

    @pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(60), Fault.endless_headers(), Fault.huge_body(1024)])
    def test_stopping_ends_a_fault_that_is_under_way_at_once(self, fault: Fault) -> None:
        with Receiver() as receiver, connected(receiver) as connection:
            receiver.always(fault)
            connection.request("POST", "/v1/events", json.dumps([event("a")]), {"Content-Type": BATCH})
            assert receiver.wait_for_requests(1, LONG)
            assert took_s(receiver.stop) < 1

    def test_stopping_ends_a_long_poll_at_once(self, receiver: Receiver, background: ThreadPoolExecutor) -> None:
        poll: Future[Answer] = background.submit(get, receiver, "/v1/inbox", source=SOURCE, wait="30")
        assert receiver.wait_for_requests(1, LONG)
        assert took_s(receiver.stop) < 1
        assert isinstance(poll.exception(LONG), http.client.RemoteDisconnected)

    def test_stopping_a_hang_keeps_none_of_its_events(self, receiver: Receiver, background: ThreadPoolExecutor) -> None:
        receiver.plan(Fault.hang())
        hanging = background.submit(post, receiver, event("a"))
        assert receiver.wait_for_requests(1, LONG)
        receiver.stop()
        assert isinstance(hanging.exception(LONG), http.client.RemoteDisconnected)
        assert receiver.events == []

    def test_starting_and_stopping_twice_changes_nothing(self, receiver: Receiver) -> None:
        receiver.start()
        assert post(receiver, event("a")).status == 200
        receiver.stop()
        receiver.stop()

    def test_a_given_port_is_used(self) -> None:
        with Receiver() as first:
            url = first.url
        with Receiver(port=int(url.rpartition(":")[2])) as second:
            assert second.url == url
            assert post(second, event("a")).status == 200

    def test_before_its_first_start_it_has_no_url(self) -> None:
        with pytest.raises(RuntimeError, match="before its first start"):
            _ = Receiver().url

    def test_it_leaves_no_thread_and_no_open_file_behind(self) -> None:
        before = set(threading.enumerate()), len(list(Path("/dev/fd").iterdir()))
        receiver = Receiver().start()
        receiver.always(Fault.hang())
        with ExitStack() as clients:
            for _ in range(30):
                client = clients.enter_context(connected(receiver))
                client.request("POST", "/v1/events", json.dumps([event("a")]), {"Content-Type": BATCH})
            assert receiver.wait_for_requests(30, LONG)
            receiver.stop()
            assert set(threading.enumerate()) == before[0]
        assert len(list(Path("/dev/fd").iterdir())) == before[1]

    def test_clients_that_leave_in_the_middle_disturb_nobody(
        self, receiver: Receiver, capfd: pytest.CaptureFixture[str]
    ) -> None:
        host, port = receiver.url.removeprefix("http://").split(":")
        for fragment in (b"", b"POST /v1/ev", raw_post(event("a"))[:-5]):
            with socket.create_connection((host, int(port)), LONG) as sock:
                sock.sendall(fragment)
        assert post(receiver, event("b")).status == 200
        receiver.stop()
        assert kept_ids(receiver) == ["b"]
        assert capfd.readouterr() == ("", "")


def test_an_event_is_kept_at_the_same_price_however_many_there_are() -> None:
    def looks(kept: int) -> int:
        """How often the events that are there are looked at while a few more come."""

        class Counted(list[Any]):
            looked = 0

            def __iter__(self) -> Iterator[Any]:
                Counted.looked += len(self)
                return super().__iter__()

        with Receiver() as receiver:
            orchestrator = receiver._orchestrator
            orchestrator.events = Counted({"type": "a", "source": "s", "id": str(number)} for number in range(kept))
            orchestrator.on_kept({"type": "dev.orchclient.task.status.v1", "source": "s", "id": "new"})
            return Counted.looked

    assert looks(1000) == looks(10) == 0
