"""Arbitrary and nearly right answers: nothing crashes, nothing foreign counts, nothing raw is kept or logged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchclient.core.batch import Batch
from orchclient.core.http import HttpOutcome, HttpReply
from orchclient.core.policy import Action, Verdict, all_delivered
from orchclient.delivery import worker
from orchclient.sinks.orchestrator import OrchestratorSink
from tests.faults.fuzzed_replies import EVENTS, Fuzzed, fuzzed
from tests.faults.program import REPOSITORY

IDS = [f"<id-{n}>" for n in range(EVENTS)]
RAW = ["\x1b[31m", "\r\nSet-Cookie: x", "\u202e", "<script>", "\ud800", "\x00", "é", "x" * 3000]
STATUSES = [200, 201, 202, 204, 206, 299, 301, 302, 304, 307, 400, 401, 404, 408, 409, 410, 413, 422, 425, 429]
STATUSES += [500, 501, 502, 503, 505, 99, 0, 1000]

text = st.text(max_size=12) | st.sampled_from(RAW)
ids = st.sampled_from([*IDS, "someone-else", "", "<id-0> "]) | text
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text | ids,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=8,
)
words = st.sampled_from(["accepted", "duplicate", "rejected", "retry", "Accepted", "conflict"]) | anything
result = st.fixed_dictionaries(
    {"id": ids | anything, "status": words},
    optional={"code": st.just("sequence_conflict") | text | anything, "detail": text | anything},
)
near = st.fixed_dictionaries(
    {},
    optional={
        "results": st.lists(result | anything, max_size=6) | anything,
        "inbox": st.fixed_dictionaries({"pending": anything}) | anything,
        "title": text | anything,
        "detail": text | anything,
        "protocol": st.lists(st.just("1.0") | anything, max_size=2) | anything,
        "batch": st.fixed_dictionaries({}, optional={"max_events": anything, "max_bytes": anything}) | anything,
        "encodings": st.lists(st.just("gzip") | anything, max_size=2) | anything,
    },
)
bodies = (
    (near | anything).map(lambda document: json.dumps(document).encode())
    | near.map(lambda document: json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    | st.binary(max_size=300)
    | st.sampled_from([b"", b"ok", b"[" * 60_000, b'{"results":' * 9_000, b"<html>", b"\xef\xbb\xbf{}"])
)
names = st.sampled_from(["Content-Length", "Retry-After", "Transfer-Encoding", "Content-Encoding", "Content-Type"])
names |= st.sampled_from(["Connection", "Date", "Location", "Set-Cookie", "X"])
values = st.sampled_from(
    ["31536000", "9" * 20, "0", "5", "-1", "1e9", "NaN", "²", "chunked", "gzip", "close", "text/plain"]
) | st.sampled_from(
    ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 99 Foo 0000 99:99:99 GMT", "Mon, 01 Jan 0001 00:00:00 +2359"]
)
values_sent = values.map(lambda value: value.encode("latin-1")) | st.binary(max_size=20)
headers = st.lists(st.tuples(names.map(str.encode), values_sent), max_size=4)
delays = st.tuples(st.just(b"Retry-After"), st.just(b"31536000") | values_sent).map(lambda field: [field])
first_lines = st.sampled_from(STATUSES).map(lambda status: b"HTTP/1.1 %d \x1b[31mX" % status)
first_lines |= st.sampled_from([b"HTTP/1.1 200", b"HTTP/9 abc", b"HTTP/1.0 200 OK", b"ICY 200", b""])
first_lines |= st.binary(max_size=40)
RIGHT_LINES = [b"HTTP/1.1 %d OK" % status for status in [200] * 12 + [429, 503] * 3 + STATUSES]


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """From bytes at random to an answer in which only one thing is wrong."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=400))
    first = draw(first_lines if draw(st.integers(0, 3)) == 0 else st.sampled_from(RIGHT_LINES))
    fields = b"".join(name + b": " + value + b"\r\n" for name, value in draw(st.just([]) | headers | delays))
    body = draw(bodies)
    return first + b"\r\n" + fields + b"\r\n" + body  # its end is the connection's, whatever length the ids have


Judge = Callable[[list[str]], None]


def none_broken(laws: list[str]) -> None:
    assert laws == []


def meets(place: Fuzzed, examples: int, judge: Judge = none_broken) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(answer=answers(), greeting=st.integers(0, 4).map(lambda n: n == 0))
    def every_answer_is_borne(answer: bytes, greeting: bool) -> None:
        judge(place.meet(answer, greeting=greeting).broken_laws())
        place.seen += 1

    every_answer_is_borne()


@pytest.mark.parametrize(
    "examples", [1_000, pytest.param(10_000, marks=[pytest.mark.release, pytest.mark.timeout(900)])]
)
def test_an_answer_of_any_kind_is_borne(examples: int) -> None:
    with fuzzed() as place:
        meets(place, examples)
        assert place.seen >= examples


class Trusting(OrchestratorSink):
    """Takes every 2xx for good."""

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        if isinstance(outcome, HttpReply) and outcome.status // 100 == 2:
            return all_delivered(batch.ids)
        return super().decide(batch, outcome, now_us)


class Quoting(OrchestratorSink):
    """Repeats what a receiver says as it is."""

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        verdict = super().decide(batch, outcome, now_us)
        raw = outcome.body.decode("utf-8", "replace") if isinstance(outcome, HttpReply) else ""
        return evolve(verdict, reason=raw) if verdict.action is not Action.SETTLE else verdict


class Patient(OrchestratorSink):
    """Waits as long as it is told."""

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        verdict = super().decide(batch, outcome, now_us)
        asked: Any = outcome.headers.get("retry-after", "") if isinstance(outcome, HttpReply) else ""
        is_asked = verdict.action is Action.BACK_OFF and asked.isascii() and asked.isdigit()
        return evolve(verdict, retry_after_s=min(float(asked), 1e9)) if is_asked else verdict


@pytest.mark.parametrize(
    ("kind", "law"),
    [(Trusting, "only what was named counts"), (Quoting, "no raw text")],
)
def test_a_dialect_with_a_planted_defect_is_found(kind: type[OrchestratorSink], law: str) -> None:
    broken: set[str] = set()
    with fuzzed(lambda url: kind(url, lambda: None)) as place:
        meets(place, 500, broken.update)
    assert law in broken


def test_a_wait_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "bounded_wait_s", lambda asked_s: asked_s)
    broken: set[str] = set()
    with fuzzed(lambda url: Patient(url, lambda: None)) as place:
        meets(place, 1_000, broken.update)
    assert "bounded wait" in broken


@pytest.mark.release
@pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris is not installed (python -m pip install atheris)")
def test_atheris_finds_no_answer_that_is_not_borne() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.atheris_replies", "30"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
