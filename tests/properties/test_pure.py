"""Laws of the pure decisions: backing off, judging an answer, filling a batch, ids, JSON, the envelope, the tables."""

from __future__ import annotations

import json
import math
import re
import uuid
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from orchclient.core import verbs
from orchclient.core.backoff import OUTAGE, PROBE, Backoff, probe_delay_s
from orchclient.core.batching import BatchLimit, fitting
from orchclient.core.envelope import batch_body, body_text, encoded_events, event_text, lane_of, opening
from orchclient.core.errors import InvalidEvent
from orchclient.core.escalation import escalation_priority
from orchclient.core.events import TaskStatus
from orchclient.core.http import HttpReply, NoReply
from orchclient.core.ids import checked_id, uuid7
from orchclient.core.jsontext import json_text, members_text
from orchclient.core.policy import TEXT_CAP, Action, Fate, Verdict, decide, printable, retry_after_s
from orchclient.core.quality import quality_score
from orchclient.core.timestamps import MAX_US, MIN_US

from .profiles import PURE

NOW_US = 1_795_392_000_000_000
HOUR_S = 3600.0
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

jitters = st.floats(0, 1, exclude_max=True)
failures = st.integers(1, 12) | st.integers(1, 10_000)
milliseconds = st.integers(0, 2**48 - 1)
randomness = st.binary(min_size=10, max_size=10)
ids = st.builds(uuid7, milliseconds, randomness)
texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cn")), min_size=1, max_size=256).filter(
    str.strip
)


# --- backing off ------------------------------------------------------------------------------------------------------


@PURE
@given(failures, jitters, st.floats(0, HOUR_S), st.floats(0.01, 10), st.floats(10, HOUR_S))
def test_a_backoff_is_between_its_floor_and_the_doubled_base(
    failed: int, jitter: float, floor_s: float, base_s: float, cap_s: float
) -> None:
    delay_s = Backoff(base_s, cap_s).delay_s(failed, jitter, floor_s)
    assert floor_s <= delay_s <= floor_s + min(cap_s, max(base_s * 2.0 ** min(failed - 1, 1000), floor_s / 10))


@PURE
@given(failures, jitters)
def test_a_backoff_never_falls_when_failures_rise(failed: int, jitter: float) -> None:
    assert OUTAGE.delay_s(failed, jitter) <= OUTAGE.delay_s(failed + 1, jitter) <= 60.0


@PURE
@given(failures, jitters)
def test_a_probe_comes_after_a_minute_at_first_and_after_an_hour_at_most(probes: int, jitter: float) -> None:
    ceiling_s = min(PROBE.cap_s, 60.0 * 2.0 ** min(probes - 1, 100))
    assert 0.9 * ceiling_s <= probe_delay_s(probes, jitter) <= ceiling_s <= HOUR_S


# --- judging an answer ------------------------------------------------------------------------------------------------

FATES = {"accepted": Fate.DELIVERED, "duplicate": Fate.DELIVERED, "rejected": Fate.DEAD, "retry": Fate.RETRY}

words = st.sampled_from(("accepted", "duplicate", "rejected", "retry", "ACCEPTED", "")) | json_values
codes = st.sampled_from(("invalid", "sequence_conflict", "busy", "\x1b[31m")) | json_values


@st.composite
def replies(draw: st.DrawFn, sent: list[str]) -> bytes:
    """A body that looks like a batch reply, with results for events that were sent and for others."""
    known = st.sampled_from(sent) if sent else ids
    members = {"id": known | known | ids | json_values, "status": words, "code": codes, "detail": codes}
    results = st.lists(st.fixed_dictionaries({}, optional=members) | json_values, max_size=8)
    inbox = st.fixed_dictionaries({"pending": json_values}) | json_values
    members = {"results": results | results | json_values, "inbox": inbox, "title": codes}
    return json.dumps(draw(st.fixed_dictionaries({}, optional=members))).encode()


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[list[str], HttpReply]:
    """The ids that were sent, and any answer whatever."""
    sent = draw(st.lists(ids, max_size=5, unique=True))
    status = draw(st.sampled_from((200, 200, 200, 202, 204, 400, 401, 410, 413, 429, 503)) | st.integers(-1, 1000))
    members = {"retry-after": texts | numbers.map(str), "content-type": texts | st.just("text/plain")}
    headers = draw(st.fixed_dictionaries({}, optional=members))
    anything = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
    return sent, HttpReply(status, headers, draw(replies(sent) | replies(sent) | anything))


def is_printable(text: str) -> bool:
    return text.isascii() and (text.isprintable() or not text)


@PURE
@given(exchanges())
def test_an_answer_is_always_judged_and_only_for_the_events_that_were_sent(
    exchange: tuple[list[str], HttpReply],
) -> None:
    sent, reply = exchange
    verdict = decide(reply, sent, NOW_US)
    assert set(verdict.items) == (set(sent) if verdict.action is Action.SETTLE else set())
    assert verdict.action is not Action.SETTLE or 200 <= reply.status < 300
    assert 0.0 <= verdict.retry_after_s <= HOUR_S
    assert 0 <= verdict.inbox_pending < 2**31


@PURE
@given(exchanges())
def test_what_an_answer_says_is_printed_without_harm(exchange: tuple[list[str], HttpReply]) -> None:
    sent, reply = exchange
    verdict = decide(reply, sent, NOW_US)
    assert is_printable(verdict.reason)
    assert all(is_printable(item.reason) and len(item.reason) <= 2 * TEXT_CAP + 2 for item in verdict.items.values())


@PURE
@given(st.lists(ids, min_size=1, max_size=5, unique=True), st.lists(ids, max_size=3), st.data())
def test_an_event_is_what_its_own_result_says_and_unknown_without_one(
    sent: list[str], foreign: list[str], data: st.DataObject
) -> None:
    said = data.draw(st.dictionaries(st.sampled_from(sent), st.sampled_from(sorted(FATES)), min_size=1))
    results = [
        {"id": id_, "status": said.get(id_, "accepted")} for id_ in data.draw(st.permutations([*said, *foreign]))
    ]
    items = decide(reply_with(results), sent, NOW_US).items
    assert {id_: item.fate for id_, item in items.items()} == {
        id_: FATES.get(said.get(id_, ""), Fate.UNKNOWN) for id_ in sent
    }


@PURE
@given(st.lists(ids, max_size=5), st.lists(ids, max_size=5))
def test_results_that_name_nothing_that_was_sent_settle_nothing(sent: list[str], foreign: list[str]) -> None:
    results = [{"id": id_, "status": "accepted"} for id_ in foreign if id_ not in sent]
    assert decide(reply_with(results), sent, NOW_US).action is Action.BACK_OFF


@PURE
@given(st.lists(ids, max_size=5), json_values.filter(lambda value: value is not None and not isinstance(value, list)))
def test_results_that_are_no_list_deliver_nothing(sent: list[str], results: Any) -> None:
    verdict = decide(HttpReply(200, {}, json.dumps({"results": results}).encode()), sent, NOW_US)
    assert (verdict.action, verdict.items) == (Action.BACK_OFF, {})


@PURE
@given(st.lists(ids, min_size=1, max_size=5, unique=True), st.data())
def test_the_first_result_of_an_id_counts(sent: list[str], data: st.DataObject) -> None:
    statuses = st.sampled_from(sorted(FATES))
    results = [{"id": id_, "status": data.draw(statuses)} for id_ in sent]
    others = [{"id": id_, "status": data.draw(statuses)} for id_ in sent]
    once = decide(reply_with(results), sent, NOW_US)
    assert decide(reply_with(results + others), sent, NOW_US).items == once.items


def reply_with(results: list[dict[str, str]]) -> HttpReply:
    return HttpReply(200, {}, json.dumps({"results": results}).encode())


@PURE
@given(json_values)
def test_a_hint_that_items_wait_is_a_number_or_nothing(pending: Any) -> None:
    document = {"results": [{"id": "1", "status": "accepted"}], "inbox": {"pending": pending}}
    said = decide(HttpReply(200, {}, json.dumps(document).encode()), ["1"], NOW_US).inbox_pending
    assert said == (pending if isinstance(pending, int) and 0 <= pending < 2**31 else 0)


@PURE
@given(st.sampled_from(("connect", "tls", "timeout", "broken", "protocol", "too_large", "closed")), st.lists(ids))
def test_no_answer_settles_nothing(reason: str, sent: list[str]) -> None:
    verdict = decide(NoReply(reason, "detail"), sent, NOW_US)
    assert verdict == Verdict(Action.BACK_OFF, f"{reason}: detail")


dates = st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
waits = texts | dates | numbers.map(str) | st.from_regex(r"\s*[0-9.+-]{1,30}\s*") | st.none()


@PURE
@given(waits, st.integers(MIN_US, MAX_US))
@example("9" * 5000, 0)
@example("Fri, 31 Dec 9999 23:59:59 GMT", 0)
@example("Mon, 1 Jan 0001 00:00:00 +2359", 0)
@example("१२", 0)
@example("1e400", 0)
def test_a_retry_after_is_never_more_than_an_hour(value: str | None, now_us: int) -> None:
    assert 0.0 <= retry_after_s(value, now_us) <= HOUR_S


@PURE
@given(st.integers(0, 10**9))
def test_a_retry_after_in_seconds_is_what_it_says_up_to_an_hour(seconds: int) -> None:
    assert retry_after_s(str(seconds), NOW_US) == min(seconds, HOUR_S)


@PURE
@given(st.text(), st.integers(3, 300))
def test_text_from_outside_is_shown_as_printable_ascii_of_bounded_length(text: str, cap: int) -> None:
    shown = printable(text, cap)
    assert is_printable(shown)
    assert len(shown) <= cap


# --- filling a batch --------------------------------------------------------------------------------------------------

limits = st.builds(
    BatchLimit, st.integers(1, 20), st.integers(1, 2_000), st.integers(20, 500), st.integers(2_000, 10_000)
)


def joined_bytes(sizes: list[int]) -> int:
    return len(batch_body([b"x" * size for size in sizes]))


@PURE
@given(st.lists(st.integers(1, 20) | st.integers(1, 600), min_size=1, max_size=40), limits)
def test_a_batch_is_as_large_as_the_limit_allows_and_holds_at_least_one_event(
    sizes: list[int], limit: BatchLimit
) -> None:
    count = fitting(sizes, limit)
    assert 1 <= count <= min(len(sizes), limit.events)
    assert count == 1 or joined_bytes(sizes[:count]) <= limit.bytes
    # One byte of slack: each event is counted with a comma, the last one too.
    assert count == min(len(sizes), limit.events) or joined_bytes(sizes[: count + 1]) + 1 > limit.bytes


@PURE
@given(
    limits, st.lists(st.sampled_from(("success", "outage", "poison", "too large")), max_size=30), st.integers(1, 500)
)
def test_a_limit_stays_between_one_and_its_maximum_and_grows_back(
    limit: BatchLimit, history: list[str], sent: int
) -> None:
    for event in history:
        after = {
            "success": limit.after_success,
            "outage": limit.after_outage,
            "poison": lambda limit=limit: limit.after_poison(min(sent, limit.events)),
            "too large": lambda limit=limit: limit.after_too_large(min(sent, limit.events), limit.bytes),
        }
        limit = after[event]()
        assert 1 <= limit.events <= limit.max_events
        assert 1 <= limit.bytes <= limit.max_bytes
    for _ in range(10):
        limit = limit.after_success()
    assert limit.events == limit.max_events


@PURE
@given(st.integers(1, 500), st.integers(0, 499))
def test_bisecting_finds_the_one_poisoned_event(count: int, poisoned: int) -> None:
    assume(poisoned < count)
    limit, start, attempts = BatchLimit(), 0, 0
    while True:
        size = min(limit.events, count - start)
        attempts += 1
        if not start <= poisoned < start + size:
            start, limit = start + size, limit.after_success()
        elif size > 1:
            limit = limit.after_poison(size)
        else:
            break
    assert start == poisoned
    assert attempts <= 10 * math.log2(2 * count) + 10


# --- ids --------------------------------------------------------------------------------------------------------------


@PURE
@given(milliseconds, randomness)
def test_an_id_is_a_uuid_of_version_7_that_begins_with_its_time(ms: int, bits: bytes) -> None:
    id_ = uuid7(ms, bits)
    assert UUID7.fullmatch(id_)
    assert (uuid.UUID(id_).version, uuid.UUID(id_).variant) == (7, uuid.RFC_4122)
    assert uuid.UUID(id_).int >> 80 == ms


@PURE
@given(milliseconds, milliseconds, randomness, randomness)
def test_ids_sort_by_their_time(one: int, other: int, some: bytes, more: bytes) -> None:
    assume(one < other)
    assert uuid7(one, some) < uuid7(other, more)


@PURE
@given(milliseconds, randomness, st.integers(0, 79))
def test_each_of_74_random_bits_makes_another_id(ms: int, bits: bytes, flipped: int) -> None:
    other = (int.from_bytes(bits) ^ (1 << (79 - flipped))).to_bytes(10)
    is_unused = 12 <= flipped < 18  # a digit, and the place of the variant
    assert (uuid7(ms, bits) == uuid7(ms, other)) is is_unused


@PURE
@given(st.text())
def test_what_passes_for_an_id_can_be_sent_in_a_cloud_event(text: str) -> None:
    try:
        id_ = checked_id("task_id", text)
    except InvalidEvent:
        return
    assert schema_errors("common.json", id_, "#/$defs/task_id") == []


# --- JSON -------------------------------------------------------------------------------------------------------------


@PURE
@given(st.dictionaries(texts, json_values, max_size=5))
def test_json_values_come_back_as_they_were(members: dict[str, Any]) -> None:
    assert json.loads(json_text(members)) == members
    assert json.loads(f'{{"first":0{members_text(members)}}}') == {"first": 0, **members} | members


@PURE
@given(st.lists(st.text(max_size=3) | st.sampled_from("\ud800\udbff\udc00\udfff")).map("".join))
def test_any_text_can_be_stored_and_sent(text: str) -> None:
    stored = json_text({"text": text})
    sent = json.loads(stored.encode())["text"]
    assert sent == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@PURE
@given(
    st.sampled_from((math.nan, math.inf, -math.inf, b"bytes", object())), st.lists(st.sampled_from("ab[{"), max_size=5)
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any, nesting: list[str]) -> None:
    path = "$"
    for step in nesting:
        value = [value] if step == "[" else {step: value}
        path = path.replace("$", "$[0]" if step == "[" else f"$.{step}", 1)
    with pytest.raises(InvalidEvent) as refused:
        json_text({"metadata": value})
    assert (refused.value.argument, refused.value.path) == ("metadata", path)


class Level(int, Enum):
    """A number that is not printed as one."""

    HALF = 50


@PURE
@given(st.none() | numbers | st.booleans() | st.just(Level.HALF), st.none() | numbers | st.just(math.nan))
def test_numbers_of_a_status_update_are_refused_or_become_json(progress: Any, attempt: Any) -> None:
    try:
        draft = verbs.status_update("task", "testing", None, progress, None, attempt)
    except InvalidEvent:
        return
    json.loads(f"{{{draft.members[1:]}}}", parse_constant=refuse)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@PURE
@given(st.dictionaries(st.integers(0, 3) | st.sampled_from("0123"), st.none(), max_size=4))
def test_no_member_name_stands_twice_in_one_object(value: dict[int | str, None]) -> None:
    doubled: list[list[str]] = []

    def note(members: list[tuple[str, Any]]) -> None:
        found = [name for name, _ in members]
        doubled.extend([found] if len(set(found)) < len(found) else [])

    try:
        text = json_text({"metadata": value})
    except InvalidEvent:
        assert len({str(name) for name in value}) < len(value)
        return
    json.loads(text, object_pairs_hook=note)
    assert doubled == []


# --- the envelope -----------------------------------------------------------------------------------------------------

instants = st.integers(0, MAX_US)
traces = st.none() | st.builds("00-{:032x}-{:016x}-01".format, st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
drafts = st.one_of(
    st.builds(
        verbs.status_update,
        names,
        st.sampled_from(TaskStatus),
        st.none() | st.dictionaries(texts, json_values, max_size=3),
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | texts,
    ),
    st.builds(
        verbs.error_escalation,
        st.just(str),
        names,
        names,
        texts,
        st.integers(0, 2**31 - 1),
        st.none() | st.dictionaries(texts, json_values, max_size=3),
        st.booleans(),
        st.none() | names,
        st.none() | texts,
    ),
    st.builds(verbs.clarification_withdrawal, names, ids, texts),
)


@cache
def registry() -> Registry[Any]:
    documents = [
        json.loads(file.read_text())
        for file in files("orchclient.core.schemas").iterdir()
        if file.name.endswith(".json")
    ]
    return Registry().with_resources((document["$id"], Resource.from_contents(document)) for document in documents)


def schema_errors(schema: str, value: Any, place: str = "") -> list[str]:
    reference = {"$ref": f"https://orchclient.dev/schemas/{schema}{place}"}
    return [error.message for error in Draft202012Validator(reference, registry=registry()).iter_errors(value)]


@PURE
@given(st.lists(st.tuples(drafts, ids, instants, traces), min_size=1, max_size=3), names, st.uuids(version=4))
def test_joined_events_are_the_json_that_the_contract_wants(
    said: list[tuple[verbs.Draft, str, int, str | None]], agent: str, source: uuid.UUID
) -> None:
    bodies = [
        body_text(id_, draft.type, lane_of(draft.task_id, agent), draft.priority, us, draft.members, trace)
        for draft, id_, us, trace in said
    ]
    texts = [event_text(opening(str(source)), seq, body) for seq, body in enumerate(bodies, 1)]
    rows = [(seq, "t", 0, body.encode()) for seq, body in enumerate(bodies, 1)]
    assert encoded_events(str(source), rows) == [text.encode() for text in texts]
    events = json.loads(batch_body([text.encode() for text in texts]))
    assert [schema_errors("envelope.json", event) for event in events] == [[] for _ in said]
    assert [event["id"] for event in events] == [id_ for _, id_, _, _ in said]
    assert [event["data"] for event in events] == [{"task_id": draft.task_id, **draft.data} for draft, *_ in said]


# --- the tables -------------------------------------------------------------------------------------------------------

counts = st.none() | st.integers(0, 10**6) | st.floats(0, 1e6)
reports = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("tests_passed", "tests_failed", "total_tests", "code_coverage", "lint_score", "security_score"), counts
    ),
)


@PURE
@given(reports)
def test_a_quality_score_is_between_0_and_100_and_at_most_the_security_score(report: dict[str, Any]) -> None:
    score = quality_score(report)
    assert isinstance(score, float)
    assert 0.0 <= score <= min(100.0, math.inf if report.get("security_score") is None else report["security_score"])


@PURE
@given(reports, st.integers(0, 10**6))
def test_more_passed_tests_never_lower_the_score(report: dict[str, Any], total: int) -> None:
    report = report | {"total_tests": total}
    more = report | {"tests_passed": (report.get("tests_passed") or 0) + 1}
    assert quality_score(report) <= quality_score(more)


@pytest.mark.parametrize(
    ("report", "score"),
    [
        ({}, 50.0),
        ({"tests_passed": 0, "tests_failed": 0}, 50.0),
        ({"tests_passed": 10, "tests_failed": 0}, 80.0),
        ({"tests_passed": 3, "tests_failed": 1}, 60.0),
        ({"tests_passed": 3, "total_tests": 4}, 60.0),
        ({"tests_passed": 3, "tests_failed": 1, "total_tests": 6}, 40.0),
        ({"tests_failed": 5}, 0.0),
        ({"tests_passed": 10, "code_coverage": 80}, 80.0),
        ({"tests_passed": 10, "code_coverage": 80.1}, 90.0),
        ({"tests_passed": 10, "lint_score": 8}, 80.0),
        ({"tests_passed": 10, "lint_score": 8.1}, 90.0),
        ({"tests_passed": 10, "code_coverage": 95, "lint_score": 9.5}, 100.0),
        ({"tests_passed": 10, "code_coverage": 95, "lint_score": 9.5, "security_score": 70}, 70.0),
        ({"tests_passed": 1, "tests_failed": 9, "security_score": 70}, 8.0),
        ({"code_coverage": 95, "lint_score": 9}, 70.0),
        ({"security_score": 0}, 0.0),
        ({"tests_passed": 12, "total_tests": 10}, 80.0),
    ],
)
def test_a_quality_score_is_the_documented_one(report: dict[str, Any], score: float) -> None:
    assert quality_score(report) == pytest.approx(score)


@PURE
@given(
    st.sampled_from(("tests_passed", "tests_failed", "total_tests", "code_coverage", "lint_score", "security_score")),
    st.sampled_from((-1, math.nan, math.inf, "7", True, [])),
)
def test_a_test_report_with_an_unusable_number_is_refused_by_name(member: str, value: Any) -> None:
    with pytest.raises(InvalidEvent, match=f"test_results at \\$.{member}"):
        quality_score({"tests_passed": 1, "tests_failed": 1} | {member: value})


@PURE
@given(st.sampled_from(("github_api_auth", "database_connection", "security_violation")), st.integers(0, 10**9))
def test_three_kinds_of_errors_are_always_critical(kind: str, attempts: int) -> None:
    assert escalation_priority(kind, attempts) == "critical"


@pytest.mark.parametrize(
    ("attempts", "priority"), [(0, "low"), (1, "medium"), (2, "medium"), (3, "high"), (4, "high"), (10**9, "high")]
)
@PURE
@given(kind=texts)
def test_other_errors_are_as_urgent_as_they_were_stubborn(attempts: int, priority: str, kind: str) -> None:
    assume(kind not in ("github_api_auth", "database_connection", "security_violation"))
    assert escalation_priority(kind, attempts) == priority
