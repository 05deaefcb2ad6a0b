"""The wire contract agrees with itself: schemas, docs/wire.md and the code that writes and reads both.

Nothing here asks the network: references resolve among the files of the package or not at all.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from orchclient.core.envelope import body_text, event_text, lane_of, opening
from orchclient.core.events import EventType, NotificationPriority, TaskStatus
from orchclient.core.jsontext import members_text
from orchclient.core.policy import Action, action_for
from orchclient.core.questions import content_digest

BASE = "https://orchclient.dev/schemas/"
PREFIX = "dev.orchclient."
DOCUMENT = Path(__file__).parents[2] / "docs" / "wire.md"
CONTRACT = DOCUMENT.read_text(encoding="utf-8")
ABSENT = object()
Place = tuple[str | int, ...]
"""Steps from a JSON value to one inside it."""


# --- Reading: JSON as the contract allows it, schemas from the package, blocks from the document --


def parsed(text: str) -> Any:
    """The value of a JSON text, held to what RFC 8259 leaves open and the contract closes."""
    if text.startswith("\ufeff"):
        raise ValueError("a byte order mark")
    text.encode()  # a surrogate of its own cannot be UTF-8
    value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)
    json.dumps(value, ensure_ascii=False).encode()  # nor can one that was written as an escape
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in members}) < len(members):
        raise ValueError("a member name twice in one object")
    return dict(members)


SCHEMAS: dict[str, dict[str, Any]] = {
    file.name: parsed(file.read_text(encoding="utf-8"))
    for file in sorted(files("orchclient.core.schemas").iterdir(), key=lambda file: file.name)
    if file.name.endswith(".json")
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)
DATA_SCHEMAS = [name for name in SCHEMAS if re.search(r"\.v\d+\.json$", name)]
HTTP_DOCUMENTS = [
    "batch.json",
    "batch-reply.json",
    "capabilities.json",
    "inbox-page.json",
    "inbox-ack.json",
    "source-report.json",
    "problem.json",
]
OUTBOUND = [
    "task.status.v1",
    "clarification.requested.v1",
    "clarification.withdrawn.v1",
    "clarification.consumed.v1",
    "task.completed.v1",
    "error.escalated.v1",
    "error.resolved.v1",
    "reminder.v1",
    "agent.heartbeat.v1",
    "gap.v1",
]
INBOUND = [
    "clarification.answered.v1",
    "clarification.seen.v1",
    "review.decided.v1",
    "task.cancel_requested.v1",
    "task.message.v1",
]


def complaints(schema: str, value: Any) -> list[tuple[str, str]]:
    """JSON path and message of everything in ``value`` that the schema refuses."""
    errors = Draft202012Validator(SCHEMAS[schema], registry=REGISTRY).iter_errors(value)
    return [(error.json_path, error.message) for error in errors]


@frozen
class Block:
    """A fenced block of a Markdown document; ``line`` is that of its opening fence."""

    line: int
    info: str
    text: str

    @property
    def is_json(self) -> bool:
        return self.info.lower().startswith("json")

    @property
    def schema(self) -> str | None:
        match = re.fullmatch(r"json schema=!?(\S+)", self.info)
        return match[1] if match else None

    @property
    def is_wrong_on_purpose(self) -> bool:
        return "schema=!" in self.info

    @property
    def value(self) -> Any:
        return parsed(self.text)


def blocks_of(markdown: str) -> Iterator[Block]:
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        fence = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if fence is None:
            continue
        body: list[str] = []
        for _, inner in lines:
            if inner.strip() == fence[1]:
                break
            body.append(inner)
        yield Block(number, fence[2].strip(), "\n".join(body))


def shortcomings(markdown: str) -> list[str]:
    """What keeps the blocks of a document from being checked, one line each."""
    found = []
    for block in blocks_of(markdown):
        if block.is_json and block.schema not in SCHEMAS:
            found.append(f"line {block.line}: names no schema of the package: {block.info}")
        if not block.is_json and _is_json_value(block) and not block.info.startswith("text sha256="):
            found.append(f"line {block.line}: JSON in a block that does not say so")
    return found


def _is_json_value(block: Block) -> bool:
    candidate = block.text.rpartition("\n\n")[2]  # an HTTP message has its body after an empty line
    try:
        return isinstance(json.loads(candidate), dict | list)
    except ValueError:
        return False


EXAMPLES = [block for block in blocks_of(CONTRACT) if block.schema in SCHEMAS]


def events_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every CloudEvent at the top of an example: alone, in a batch, or in a page of the inbox."""
    if isinstance(value, dict) and "specversion" in value:
        yield value
    elif isinstance(value, dict):
        yield from value.get("items", ())
    else:
        yield from value


EVENTS = [
    event
    for block in EXAMPLES
    if not block.is_wrong_on_purpose
    and block.schema in ("envelope.json", "inbound-envelope.json", "batch.json", "inbox-page.json")
    for event in events_in(block.value)
]
FULL_EXAMPLES = {
    next(events_in(block.value))["type"].removeprefix(PREFIX): next(events_in(block.value))
    for block in EXAMPLES
    if not block.is_wrong_on_purpose and block.schema in ("envelope.json", "inbound-envelope.json")
}
OUTBOUND_EVENTS = [event for event in EVENTS if event["type"].removeprefix(PREFIX) in OUTBOUND]


def envelope_schema(type_: str) -> str:
    return "envelope.json" if type_ in OUTBOUND else "inbound-envelope.json"


def by_line(block: Block) -> str:
    return f"line{block.line}-{block.schema}"


def by_type(event: dict[str, Any]) -> str:
    return f"{event['type'].removeprefix(PREFIX)}-{event['id'][-4:]}"


# --- The schemas ----------------------------------------------------------------------------------


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a schema, the schema itself included."""
    if isinstance(schema, dict):
        yield schema
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from nodes(inner)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_satisfies_its_metaschema(name: str) -> None:
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_identified_by_its_file_name(name: str) -> None:
    assert SCHEMAS[name]["$id"] == BASE + name


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_refers_to_nothing_outside_the_package(name: str) -> None:
    resolver = REGISTRY.resolver(base_uri=BASE + name)
    for node in nodes(SCHEMAS[name]):
        if "$ref" in node:
            resolver.lookup(node["$ref"])


def test_a_reference_to_a_file_that_is_not_packaged_is_found() -> None:
    with pytest.raises(Unresolvable):
        REGISTRY.resolver(base_uri=BASE).lookup("unheard-of.json")


BOUNDS = {
    "string": {"maxLength"},
    "array": {"maxItems"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_text_list_and_number_in_a_schema_is_bounded(name: str) -> None:
    for node in nodes(SCHEMAS[name]):
        types = node.get("type", ())
        for type_ in [types] if isinstance(types, str) else types if isinstance(types, list) else ():
            is_negation = node.keys() == {"type", "pattern"}
            assert is_negation or node.keys() >= BOUNDS.get(type_, set()), node


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_stays_open_for_members_to_come(name: str) -> None:
    for node in nodes(SCHEMAS[name]):
        assert node.get("additionalProperties") is not False
        assert not {"unevaluatedProperties", "unevaluatedItems", "maxProperties"} & node.keys()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_asks_the_same_of_every_validator(name: str) -> None:
    for node in nodes(SCHEMAS[name]):
        assert not isinstance(node.get("format"), str)  # asserting formats is optional
        pattern = node.get("pattern", "")
        assert isinstance(pattern, dict) or not re.search(r"\(\?|\\[a-zA-Z0-9]", pattern), pattern


@pytest.mark.parametrize("name", DATA_SCHEMAS)
def test_a_member_that_is_required_is_also_described(name: str) -> None:
    assert set(SCHEMAS[name]["required"]) <= SCHEMAS[name]["properties"].keys()


def test_the_package_has_a_schema_for_every_type_and_no_other() -> None:
    assert sorted(DATA_SCHEMAS) == sorted(f"{type_}.json" for type_ in OUTBOUND + INBOUND)


# --- The code writes what the schemas say ---------------------------------------------------------


def test_the_outbound_types_are_those_of_the_code() -> None:
    assert sorted(value for name, value in vars(EventType).items() if name.isupper()) == sorted(OUTBOUND)


def test_the_states_in_the_schema_are_those_of_the_code() -> None:
    assert SCHEMAS["common.json"]["$defs"]["status"]["enum"] == [status.value for status in TaskStatus]


def test_the_priorities_in_the_schema_are_those_of_the_code() -> None:
    assert SCHEMAS["common.json"]["$defs"]["priority"]["enum"] == [priority.value for priority in NotificationPriority]


def test_an_event_put_together_by_the_core_satisfies_the_envelope() -> None:
    example = FULL_EXAMPLES["task.status.v1"]
    members = {name: value for name, value in example["data"].items() if name != "task_id"}
    body = body_text(
        example["id"],
        "task.status.v1",
        lane_of(example["subject"], example["agentid"]),
        example["priority"],
        1_795_425_245_250_413,
        members_text(members),
        example["traceparent"],
    )
    text = event_text(opening(example["source"].removeprefix("urn:uuid:")), 41, body)
    assert parsed(text) == example


# --- The examples ---------------------------------------------------------------------------------


def test_every_json_block_of_the_document_can_be_checked() -> None:
    assert shortcomings(CONTRACT) == []


@pytest.mark.parametrize(
    "markdown",
    [
        pytest.param('```json\n{"a": 1}\n```\n', id="no schema"),
        pytest.param('```json schema=unheard-of.json\n{"a": 1}\n```\n', id="unknown schema"),
        pytest.param('```json schema=problem.json and more\n{"a": 1}\n```\n', id="more than a schema"),
        pytest.param('```jsonc\n{"a": 1}\n```\n', id="another JSON"),
        pytest.param('1. list\n\n   ```json\n   {"a": 1}\n   ```\n', id="indented"),
        pytest.param('~~~json\n{"a": 1}\n~~~\n', id="tildes"),
        pytest.param('```\n{"a": 1}\n```\n', id="no language"),
        pytest.param("```http\nPOST / HTTP/1.1\n\n[]\n```\n", id="body of an HTTP message"),
    ],
)
def test_a_json_block_that_escapes_the_check_is_found(markdown: str) -> None:
    assert shortcomings(markdown)


@pytest.mark.parametrize("block", [block for block in EXAMPLES if not block.is_wrong_on_purpose], ids=by_line)
def test_an_example_satisfies_the_schema_it_names(block: Block) -> None:
    assert complaints(block.schema or "", block.value) == []


@pytest.mark.parametrize("block", [block for block in EXAMPLES if block.is_wrong_on_purpose], ids=by_line)
def test_an_example_that_is_wrong_on_purpose_is_refused(block: Block) -> None:
    assert complaints(block.schema or "", block.value)


@pytest.mark.parametrize("event", EVENTS, ids=by_type)
def test_the_dataschema_of_an_example_is_a_file_of_the_package(event: dict[str, Any]) -> None:
    assert event["dataschema"].removeprefix(BASE) in DATA_SCHEMAS


@pytest.mark.parametrize("event", EVENTS, ids=by_type)
def test_the_dataschema_of_an_example_follows_from_its_type(event: dict[str, Any]) -> None:
    assert event["dataschema"] == BASE + event["type"].removeprefix(PREFIX) + ".json"


@pytest.mark.parametrize("event", EVENTS, ids=by_type)
def test_the_data_of_an_example_satisfies_its_dataschema(event: dict[str, Any]) -> None:
    assert complaints(event["dataschema"].removeprefix(BASE), event["data"]) == []


@pytest.mark.parametrize("type_", OUTBOUND + INBOUND)
def test_every_event_type_has_a_full_example(type_: str) -> None:
    assert type_ in FULL_EXAMPLES


@pytest.mark.parametrize("name", HTTP_DOCUMENTS)
def test_every_http_document_has_an_example(name: str) -> None:
    assert any(block.schema == name and not block.is_wrong_on_purpose for block in EXAMPLES)


# --- What a schema cannot say, and the examples must show -----------------------------------------


@pytest.mark.parametrize("event", OUTBOUND_EVENTS, ids=by_type)
def test_the_lane_of_an_example_is_its_subject(event: dict[str, Any]) -> None:
    assert event["partitionkey"] == event["subject"]


@pytest.mark.parametrize("event", EVENTS, ids=by_type)
def test_the_subject_of_an_example_is_its_task_or_else_its_agent(event: dict[str, Any]) -> None:
    assert event["subject"] == event["data"].get("task_id", event.get("agentid"))


@pytest.mark.parametrize("event", OUTBOUND_EVENTS, ids=by_type)
def test_the_priority_of_an_example_is_that_of_its_data_or_of_its_type(event: dict[str, Any]) -> None:
    by_type_alone = "medium" if event["type"] == f"{PREFIX}task.completed.v1" else "low"
    assert event["priority"] == event["data"].get("priority", by_type_alone)


def test_a_question_is_named_by_the_id_of_its_event() -> None:
    event = FULL_EXAMPLES["clarification.requested.v1"]
    assert event["data"]["clarification_id"] == event["id"]


def test_a_review_is_named_by_the_id_of_the_completion() -> None:
    event = FULL_EXAMPLES["task.completed.v1"]
    assert event["data"]["review_id"] == event["id"]


def test_a_decision_names_a_review_that_the_document_asked_for() -> None:
    completion, decision = FULL_EXAMPLES["task.completed.v1"], FULL_EXAMPLES["review.decided.v1"]
    assert decision["data"]["review_id"] == completion["data"]["review_id"]


def test_what_was_consumed_is_the_answer_that_was_given() -> None:
    answer, consumed = FULL_EXAMPLES["clarification.answered.v1"], FULL_EXAMPLES["clarification.consumed.v1"]
    assert consumed["data"]["answer_id"] == answer["data"]["answer_id"]


def test_the_ids_of_the_questions_in_a_request_differ() -> None:
    ids = [question["id"] for question in FULL_EXAMPLES["clarification.requested.v1"]["data"]["questions"]]
    assert len(set(ids)) == len(ids)


def test_what_the_agent_recommends_is_one_of_the_options() -> None:
    questions = FULL_EXAMPLES["clarification.requested.v1"]["data"]["questions"]
    offered = [(q["recommended"], q["options"]) for q in questions if "recommended" in q]
    assert offered
    assert all(recommended in options for recommended, options in offered)


def test_the_count_of_a_gap_fits_its_ends() -> None:
    gap = FULL_EXAMPLES["gap.v1"]["data"]
    assert gap["count"] == gap["to"] - gap["from"] + 1


def test_a_gap_comes_after_what_it_explains() -> None:
    gap = FULL_EXAMPLES["gap.v1"]
    assert gap["data"]["to"] < int(gap["sequence"])


def test_one_sequence_belongs_to_one_event_in_all_examples() -> None:
    places = {(event["source"], event["sequence"], event["id"]) for event in OUTBOUND_EVENTS}
    assert len(places) == len({place[:2] for place in places}) == len({place[2] for place in places})


def test_the_events_of_a_batch_stand_in_the_order_of_their_sequence() -> None:
    batch = next(block.value for block in EXAMPLES if block.schema == "batch.json")
    sequences = [event["sequence"] for event in batch]
    assert sequences == sorted(sequences)


def test_the_length_in_the_request_is_that_of_its_body() -> None:
    batch = next(block.value for block in EXAMPLES if block.schema == "batch.json")
    body = json.dumps(batch, separators=(",", ":"), ensure_ascii=False).encode()
    assert f"Content-Length: {len(body)}" in CONTRACT


# --- The content digest ---------------------------------------------------------------------------


def canonical(data: dict[str, Any]) -> str:
    """The text under the digest of a question, as docs/wire.md defines it."""
    shown = {member: data[member] for member in ("questions", "context", "default", "deadline") if member in data}
    return json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


QUESTIONS = {event["id"]: event["data"] for event in EVENTS if event["type"] == f"{PREFIX}clarification.requested.v1"}


@pytest.mark.parametrize("data", QUESTIONS.values(), ids=QUESTIONS)
def test_the_digest_of_a_question_is_that_of_the_shown_content(data: dict[str, Any]) -> None:
    assert data["content_digest"] == digest(canonical(data))


@pytest.mark.parametrize("absent", [(), ("default",), ("deadline",), ("default", "deadline")], ids=str)
def test_the_code_digests_the_text_that_the_document_defines(absent: tuple[str, ...]) -> None:
    question = FULL_EXAMPLES["clarification.requested.v1"]["data"]
    names = [name for name in ("questions", "context", "default", "deadline") if name not in absent]
    shown = {name: question[name] for name in names} | {"context": {"ä\u0001/\u007f": [1.0, 1e20, None, '€"\\']}}
    assert content_digest(shown) == digest(canonical(shown))


def test_an_answer_carries_the_digest_of_its_question() -> None:
    answer = FULL_EXAMPLES["clarification.answered.v1"]["data"]
    assert answer["content_digest"] == QUESTIONS[answer["clarification_id"]]["content_digest"]


def test_the_canonical_text_in_the_document_is_that_of_its_question() -> None:
    worked = [block for block in blocks_of(CONTRACT) if block.info.startswith("text sha256=")]
    question = FULL_EXAMPLES["clarification.requested.v1"]["data"]
    assert [block.text for block in worked] == [canonical(question)]
    assert worked[0].info == "text " + question["content_digest"].replace(":", "=")


@pytest.mark.parametrize(
    ("member", "other"),
    [
        ("questions", [{"id": "q1", "text": "Should GET /api/users be public?"}]),
        ("context", {}),
        ("default", "60"),
        ("deadline", "2026-11-23T11:00:00.000001Z"),
    ],
)
def test_another_content_has_another_digest(member: str, other: Any) -> None:
    question = FULL_EXAMPLES["clarification.requested.v1"]["data"]
    assert digest(canonical({**question, member: other})) != question["content_digest"]


@pytest.mark.parametrize("member", ["priority", "key", "task_id", "status"])
def test_what_is_not_shown_does_not_change_the_digest(member: str) -> None:
    question = FULL_EXAMPLES["clarification.requested.v1"]["data"]
    assert digest(canonical({**question, member: "other"})) == question["content_digest"]


# --- The document beside its examples -------------------------------------------------------------


def section(heading: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(heading)}$", CONTRACT, re.MULTILINE)
    assert match, heading
    rest = CONTRACT[match.end() :]
    following = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: following.start()] if following else rest


def members_in(heading: str) -> dict[str, bool]:
    """What the tables with a Required column under a heading name, and whether it is required."""
    rows = re.findall(r"^\| (`.+?) \| (.+?) \|", section(heading), re.MULTILINE)
    return {name: required == "yes" for names, required in rows for name in re.findall(r"`(\w+)`", names)}


@pytest.mark.parametrize("type_", OUTBOUND + INBOUND)
def test_the_section_of_a_type_explains_the_members_of_its_schema(type_: str) -> None:
    assert members_in(type_).keys() == SCHEMAS[f"{type_}.json"]["properties"].keys()


@pytest.mark.parametrize("type_", OUTBOUND + INBOUND)
def test_the_section_of_a_type_requires_what_its_schema_requires(type_: str) -> None:
    required = [name for name, is_required in members_in(type_).items() if is_required]
    assert sorted(required) == sorted(SCHEMAS[f"{type_}.json"]["required"])


ENVELOPES = {"envelope.json": "The envelope", "inbound-envelope.json": "The inbound envelope"}
IN_PROSE = {"tracestate", "datacontenttype"}


@pytest.mark.parametrize(("schema", "heading"), ENVELOPES.items())
def test_the_table_of_an_envelope_requires_what_its_schema_requires(schema: str, heading: str) -> None:
    required = [name for name, is_required in members_in(heading).items() if is_required]
    assert sorted(required) == sorted(SCHEMAS[schema]["required"])


@pytest.mark.parametrize(("schema", "heading"), ENVELOPES.items())
def test_the_table_of_an_envelope_explains_the_attributes_of_its_schema(schema: str, heading: str) -> None:
    assert members_in(heading).keys() | IN_PROSE == SCHEMAS[schema]["properties"].keys()


def test_every_state_has_its_a2a_state() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `TASK_STATE_\w+` \|$", section("Task states and A2A"), re.MULTILINE)
    assert sorted(rows) == sorted(TaskStatus)


def test_every_schema_is_named_in_the_list_of_schemas() -> None:
    text = section("The schemas")
    assert [name for name in SCHEMAS if name not in DATA_SCHEMAS and f"`{name}`" not in text] == []


def test_every_link_within_the_document_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", CONTRACT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", CONTRACT)) <= anchors


WORDS_FOR_ACTIONS = {
    "goes on": Action.SETTLE,
    "settles": Action.SETTLE,
    "backs": Action.BACK_OFF,
    "pauses": Action.PAUSE,
    "disables": Action.DISABLE,
    "halves the batch and": Action.HALVE,
    "halves the batch until": Action.BISECT,
}


def documented_actions() -> dict[str, Action]:
    """Action by status (``404``) or class (``4xx``), as the decision table of the document has it."""
    actions = {}
    for row in re.findall(r"^\| (.+?) \| (.+?) \|", section("What the client does with an answer"), re.MULTILINE):
        action = next((action for words, action in WORDS_FOR_ACTIONS.items() if row[1].startswith(words)), None)
        named = re.findall(r"\b[1-5](?:\d\d|xx)\b", re.sub(r"except [\d and,]+", "", row[0]))
        actions.update({status: action for status in named if action and status != "2xx"})
    return actions


@pytest.mark.parametrize("status", [*range(100, 200), *range(300, 600)])
def test_the_client_does_with_a_status_what_the_document_says(status: int) -> None:
    actions = documented_actions()
    assert action_for(status) is actions.get(str(status), actions.get(f"{status // 100}xx"))


# --- Planted violations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"quality_score": NaN}', id="NaN"),
        pytest.param('{"quality_score": Infinity}', id="Infinity"),
        pytest.param('{"quality_score": -Infinity}', id="minus Infinity"),
        pytest.param('{"status": "failed", "status": "completed"}', id="a member twice"),
        pytest.param('{"current_step": "\\ud83d"}', id="an escaped lone surrogate"),
        pytest.param('{"current_step": "\ud83d"}', id="a lone surrogate"),
        pytest.param('\ufeff{"status": "failed"}', id="a byte order mark"),
        pytest.param('{"status": "failed"} {}', id="a second value"),
        pytest.param("{'status': 'failed'}", id="single quotes"),
    ],
)
def test_a_text_that_is_not_the_json_of_the_contract_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of the rules is broken
        parsed(text)


def changed(value: Any, path: Place, new: Any) -> Any:
    """A copy of ``value`` with ``new`` at ``path``, or without what stands there."""
    copied = copy.deepcopy(value)
    parent = copied
    for step in path[:-1]:
        parent = parent[step]
    if new is ABSENT:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return copied


def place(path: Place) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


STATUS, ASKED, WITHDRAWN = "task.status.v1", "clarification.requested.v1", "clarification.withdrawn.v1"
CONSUMED, COMPLETED, ESCALATED = "clarification.consumed.v1", "task.completed.v1", "error.escalated.v1"
RESOLVED, HEARTBEAT, GAP = "error.resolved.v1", "agent.heartbeat.v1", "gap.v1"
ANSWERED, SEEN, DECIDED = "clarification.answered.v1", "clarification.seen.v1", "review.decided.v1"
CANCEL, MESSAGE = "task.cancel_requested.v1", "task.message.v1"

ALIEN = [[0.5]]  # what no member of the contract can be
FREE = {"metadata", "context", "test_results", "artifacts", "default", "recovery_history"}


def places_in(value: Any, path: Place = ()) -> Iterator[Place]:
    """Paths of everything in a value that the contract knows; the agent's own objects are left alone."""
    if path and path[-1] in FREE:
        return
    for step, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield (*path, step)
        yield from places_in(inner, (*path, step))


# (type, path in the event, what is planted there). A missing member is complained about at its parent.
VIOLATIONS: list[tuple[str, Place, Any]] = [
    *((STATUS, (name,), ABSENT) for name, is_required in members_in("The envelope").items() if is_required),
    *((SEEN, (name,), ABSENT) for name, is_required in members_in("The inbound envelope").items() if is_required),
    *((STATUS, (name,), ALIEN) for name in [*members_in("The envelope"), *sorted(IN_PROSE)]),
    *((SEEN, (name,), ALIEN) for name in [*members_in("The inbound envelope"), *sorted(IN_PROSE)]),
    *(
        (type_, ("data", name), ABSENT)
        for type_ in OUTBOUND + INBOUND
        for name, is_required in members_in(type_).items()
        if is_required
    ),
    *((type_, ("data", name), ALIEN) for type_ in OUTBOUND + INBOUND for name in members_in(type_)),
    *(
        (type_, ("data", *path), ALIEN)
        for type_ in OUTBOUND + INBOUND
        for path in places_in(FULL_EXAMPLES[type_]["data"])
        if len(path) > 1
    ),
    *((type_, ("dataschema",), f"{BASE}of.another.v1.json") for type_ in OUTBOUND + INBOUND),
    *(
        (type_, (attribute,), planted)
        for type_ in (STATUS, SEEN)
        for attribute, planted in [
            ("specversion", "0.3"),
            ("specversion", 1.0),
            ("type", "task.status.v1"),
            ("type", "dev.orchclient.task.status"),
            ("subject", "task\n123"),
            ("subject", "task-123\n"),
            ("subject", "task\x7f"),
            ("subject", "task\ufffe"),
            ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"),
            ("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n"),
            ("tracestate", "a=1\n"),
            ("datacontenttype", "text/plain"),
            ("data", "text"),
            ("data", None),
            ("fraction", 0.5),
            ("big", 2**31),
            ("small", -(2**31) - 1),
            ("text", "a\nb"),
            ("nested", {"a": 1}),
        ]
    ),
    (STATUS, ("id",), "019AB005-8022-7000-8000-000000000000"),
    (STATUS, ("id",), "6fa459ea-ee8a-4ca4-894e-db77e160355e"),
    (STATUS, ("id",), FULL_EXAMPLES[STATUS]["id"] + "\n"),
    (STATUS, ("source",), "8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31"),
    (STATUS, ("source",), "urn:uuid:8F14E45F-CEEA-467F-A0E6-4B0F1F4D2A31"),
    (STATUS, ("source",), FULL_EXAMPLES[STATUS]["source"] + "\n"),
    (STATUS, ("sequence",), "0000000000000000041"),
    (STATUS, ("sequence",), "000000000000000000041"),
    (STATUS, ("sequence",), "0000000000000000004x"),
    (STATUS, ("sequence",), FULL_EXAMPLES[STATUS]["sequence"] + "\n"),
    (STATUS, ("sequence",), 41),
    (STATUS, ("time",), "2026-11-23T09:14:05.250413"),
    (STATUS, ("time",), "2026-11-23T09:14:05Z"),
    (STATUS, ("time",), "2026-11-23T09:14:05.250Z"),
    (STATUS, ("time",), "2026-11-23T10:14:05.250413+01:00"),
    (STATUS, ("time",), "2026-11-23 09:14:05.250413Z"),
    (STATUS, ("time",), "2026-13-23T09:14:05.250413Z"),
    (STATUS, ("time",), "2026-11-23T09:14:05.250413Z\n"),
    (STATUS, ("time",), 1795425245250413),
    (STATUS, ("priority",), "urgent"),
    (STATUS, ("priority",), "HIGH"),
    (STATUS, ("priority",), None),
    (STATUS, ("data", "status"), "done"),
    (STATUS, ("data", "status"), "IN_PROGRESS"),
    (STATUS, ("data", "previous_status"), "queued"),
    (STATUS, ("data", "progress_percentage"), "45"),
    (STATUS, ("data", "progress_percentage"), True),
    (STATUS, ("data", "progress_percentage"), None),
    (STATUS, ("data", "attempt"), 1.5),
    (ASKED, ("data", "clarification_id"), "q-1"),
    (ASKED, ("data", "questions"), "Should it?"),
    (ASKED, ("data", "questions"), ["Should it?"]),
    (ASKED, ("data", "questions", 0, "id"), ABSENT),
    (ASKED, ("data", "questions", 0, "text"), ABSENT),
    (ASKED, ("data", "questions", 0, "options"), "yes"),
    (ASKED, ("data", "priority"), "urgent"),
    (ASKED, ("data", "context"), None),
    (ASKED, ("data", "deadline"), "2026-11-23T11:00:00"),
    (ASKED, ("data", "deadline"), "tomorrow"),
    (ASKED, ("data", "default"), 60),
    (ASKED, ("data", "content_digest"), "sha256:abc"),
    (ASKED, ("data", "content_digest"), "sha256:" + "A" * 64),
    (ASKED, ("data", "content_digest"), "sha1:" + "0" * 66),
    (ASKED, ("data", "content_digest"), "sha256:" + "0" * 64 + "\n"),
    (ASKED, ("data", "status"), "in_progress"),
    (ASKED, ("data", "current_step"), "Waiting"),
    (WITHDRAWN, ("data", "reason"), None),
    (COMPLETED, ("data", "status"), "approved"),
    (COMPLETED, ("data", "progress_percentage"), 99),
    (COMPLETED, ("data", "current_step"), "Done"),
    (COMPLETED, ("data", "pr_url"), 42),
    (COMPLETED, ("data", "test_results"), None),
    (COMPLETED, ("data", "review"), "yes"),
    (COMPLETED, ("data", "review_id"), ABSENT),
    (ESCALATED, ("data", "recovery_attempts"), 2.5),
    (ESCALATED, ("data", "fatal"), 1),
    (ESCALATED, ("data", "priority"), "fatal"),
    (ESCALATED, ("data", "status"), ABSENT),
    (ESCALATED, ("data", "status"), "cancelled"),
    (ESCALATED, ("data", "recovery_history"), "refreshed the token"),
    (ESCALATED, ("data", "recovery_history"), ["refreshed the token"]),
    (HEARTBEAT, ("data", "outbox", "pending"), ABSENT),
    (HEARTBEAT, ("data", "outbox", "dead"), ABSENT),
    (HEARTBEAT, ("data", "outbox", "oldest_age_s"), ABSENT),
    (HEARTBEAT, ("data", "outbox", "oldest_age_s"), None),
    (GAP, ("data", "to"), "40"),
    (GAP, ("data", "reason"), "lost"),
    (ANSWERED, ("time",), "2026-11-23T09:20:58"),
    (ANSWERED, ("data", "outcome"), "yes"),
    (ANSWERED, ("data", "answers"), "yes"),
    (ANSWERED, ("data", "answers"), []),
    (ANSWERED, ("data", "answers"), ABSENT),
    (ANSWERED, ("data", "answers", 0), {"question_id": "q1"}),
    (ANSWERED, ("data", "answers", 0), {"text": "yes"}),
    (ANSWERED, ("data", "answers", 0, "options"), "yes"),
    (ANSWERED, ("data", "responder", "kind"), "robot"),
    (ANSWERED, ("data", "responder", "kind"), "timeout"),
    (ANSWERED, ("data", "responder", "kind"), ABSENT),
    (ANSWERED, ("data", "responder", "id"), ABSENT),
    (ANSWERED, ("data", "answered_at"), "2026-11-23T10:20:58"),
    (ANSWERED, ("data", "answered_at"), "2026-11-23T10:20:58Z\n"),
    (ANSWERED, ("data", "answered_at"), "2026-11-23T10:20:58.0123456789Z"),
    (ANSWERED, ("data", "late"), "no"),
    (SEEN, ("data", "responder", "kind"), "policy"),
    (DECIDED, ("data", "outcome"), "answered"),
    (DECIDED, ("data", "outcome"), "expired"),
    (CANCEL, ("data", "requested_by", "kind"), "robot"),
    (MESSAGE, ("data", "urgent"), 1),
]


def name_of(violation: tuple[str, Place, Any]) -> str:
    type_, path, planted = violation
    return f"{type_}-{'.'.join(map(str, path))}-{'absent' if planted is ABSENT else repr(planted)[:40]}"


@pytest.mark.parametrize("violation", VIOLATIONS, ids=name_of)
def test_a_planted_violation_is_found_where_it_was_planted(
    violation: tuple[str, Place, Any],
) -> None:
    type_, path, planted = violation
    found = complaints(envelope_schema(type_), changed(FULL_EXAMPLES[type_], path, planted))
    above = place(path[:-1])
    assert any(where == above or where.startswith((place(path), f"{above}.responder")) for where, _ in found)


@pytest.mark.parametrize("type_", [STATUS, SEEN])
@pytest.mark.parametrize("name", ["data_base64", "agent_id", "agentId", "agent-id", "agent id", "region\n", "", "é"])
def test_an_extension_attribute_must_have_a_lower_case_alphanumeric_name(type_: str, name: str) -> None:
    assert complaints(envelope_schema(type_), {**FULL_EXAMPLES[type_], name: "x"})


@pytest.mark.parametrize("type_", [STATUS, SEEN])
@pytest.mark.parametrize("value", ["x", "", True, -(2**31), 2**31 - 1, None])
def test_an_unknown_extension_attribute_is_allowed(type_: str, value: Any) -> None:
    assert complaints(envelope_schema(type_), {**FULL_EXAMPLES[type_], "region2": value}) == []


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "common.json"])
def test_a_schema_takes_no_other_kind_of_json_value(name: str) -> None:
    other: Any = {} if name == "batch.json" else []
    assert complaints(name, other)
    assert complaints(name, "text")


@pytest.mark.parametrize("type_", OUTBOUND + INBOUND)
def test_an_unknown_member_of_data_is_allowed(type_: str) -> None:
    event = FULL_EXAMPLES[type_]
    assert complaints(envelope_schema(type_), changed(event, ("data", "of_tomorrow"), {"a": [1]})) == []


@pytest.mark.parametrize("schema", ["envelope.json", "inbound-envelope.json"])
def test_a_type_of_tomorrow_is_allowed_with_any_data(schema: str) -> None:
    event = FULL_EXAMPLES[STATUS if schema == "envelope.json" else SEEN]
    tomorrow = {
        **event,
        "type": f"{PREFIX}task.paused.v2",
        "dataschema": f"{BASE}task.paused.v2.json",
        "data": {},
    }
    assert complaints(schema, tomorrow) == []


@pytest.mark.parametrize("type_", [STATUS, SEEN])
@pytest.mark.parametrize(
    ("attribute", "planted"),
    [
        ("data", []),
        ("dataschema", ALIEN),
        ("dataschema", "https://example.com/task.paused.v2.json"),
        ("dataschema", f"{BASE}{'p' * 256}.v2.json"),
        ("type", f"{PREFIX}{'p' * 128}.v2"),
        ("type", f"{PREFIX}task.paused.v0"),
    ],
)
def test_a_type_of_tomorrow_keeps_the_rules_of_the_envelope(type_: str, attribute: str, planted: Any) -> None:
    event = {**FULL_EXAMPLES[type_], "type": f"{PREFIX}task.paused.v2", "dataschema": f"{BASE}task.paused.v2.json"}
    assert complaints(envelope_schema(type_), event) == []
    assert complaints(envelope_schema(type_), {**event, attribute: planted})


@pytest.mark.parametrize("type_", [STATUS, SEEN])
def test_a_trace_context_is_allowed(type_: str) -> None:
    trace = {"traceparent": FULL_EXAMPLES[STATUS]["traceparent"], "tracestate": "vendor=1"}
    assert complaints(envelope_schema(type_), {**FULL_EXAMPLES[type_], **trace}) == []


def test_an_approval_needs_no_answers() -> None:
    approved = changed(FULL_EXAMPLES[ANSWERED], ("data", "outcome"), "approved")
    assert complaints("inbound-envelope.json", changed(approved, ("data", "answers"), ABSENT)) == []


@pytest.mark.parametrize("planted", [None, 0, "no"])
def test_whether_an_error_is_fatal_is_a_boolean(planted: Any) -> None:
    survivable = changed(FULL_EXAMPLES[ESCALATED], ("data", "status"), ABSENT)
    assert complaints("envelope.json", changed(survivable, ("data", "fatal"), planted))


@pytest.mark.parametrize("planted", [None, 0, "no"])
def test_whether_a_review_is_wanted_is_a_boolean(planted: Any) -> None:
    unreviewed = changed(FULL_EXAMPLES[COMPLETED], ("data", "review_id"), ABSENT)
    assert complaints("envelope.json", changed(unreviewed, ("data", "review"), planted))


def test_a_completion_without_review_has_no_review_id() -> None:
    without = changed(FULL_EXAMPLES[COMPLETED], ("data", "review"), False)
    assert complaints("envelope.json", without)
    without = changed(without, ("data", "status"), "completed")
    assert complaints("envelope.json", without)
    assert complaints("envelope.json", changed(without, ("data", "review_id"), ABSENT)) == []


def test_an_escalation_that_is_not_fatal_leaves_the_status_alone() -> None:
    survivable = changed(FULL_EXAMPLES[ESCALATED], ("data", "fatal"), False)
    assert complaints("envelope.json", survivable)
    assert complaints("envelope.json", changed(survivable, ("data", "status"), ABSENT)) == []


def test_a_completion_without_a_pull_request_says_null() -> None:
    assert complaints("envelope.json", changed(FULL_EXAMPLES[COMPLETED], ("data", "pr_url"), None)) == []


def test_a_timeout_is_an_expiry_and_nothing_else() -> None:
    decided = FULL_EXAMPLES[ANSWERED]
    by_timeout = changed(decided, ("data", "responder"), {"kind": "timeout"})
    assert complaints("inbound-envelope.json", changed(by_timeout, ("data", "outcome"), "rejected"))
    assert complaints("inbound-envelope.json", changed(decided, ("data", "outcome"), "expired"))
    assert complaints("inbound-envelope.json", changed(by_timeout, ("data", "outcome"), "expired")) == []


SMALLEST: dict[str, Any] = {
    "batch.json": [],
    "batch-reply.json": {"results": []},
    "capabilities.json": {"protocol": ["1.0"]},
    "inbox-page.json": {"items": [], "cursor": "c", "has_more": False},
    "inbox-ack.json": {"source": FULL_EXAMPLES[STATUS]["source"], "cursor": "c"},
    "source-report.json": {"highest": 0, "gaps": []},
    "problem.json": {"title": "Not Found", "status": 404},
}
LARGEST: dict[str, Any] = {
    **{block.schema: block.value for block in EXAMPLES if block.schema in HTTP_DOCUMENTS},
    "problem.json": {"type": "t", "title": "Not Found", "status": 404, "detail": "d", "instance": "i"},
}


@pytest.mark.parametrize("schema", HTTP_DOCUMENTS)
def test_the_smallest_http_document_is_enough(schema: str) -> None:
    assert complaints(schema, SMALLEST[schema]) == []


@pytest.mark.parametrize(
    ("schema", "member"), [(schema, member) for schema in HTTP_DOCUMENTS[1:] for member in SMALLEST[schema]]
)
def test_a_member_of_the_smallest_http_document_cannot_be_left_out(schema: str, member: str) -> None:
    assert complaints(schema, changed(SMALLEST[schema], (member,), ABSENT))


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (schema, path)
        for schema in HTTP_DOCUMENTS
        for path in places_in(LARGEST[schema])
        if schema not in ("batch.json", "inbox-page.json") or len(path) == 1
    ],
)
def test_an_alien_value_in_an_http_document_is_found(schema: str, path: Place) -> None:
    assert complaints(schema, changed(LARGEST[schema], path, ALIEN))


@pytest.mark.parametrize(
    ("schema", "path", "planted"),
    [
        ("batch.json", (0,), FULL_EXAMPLES[SEEN]),
        ("batch-reply.json", ("results",), {}),
        ("batch-reply.json", ("results", 0, "id"), "1"),
        ("batch-reply.json", ("results", 0, "id"), ABSENT),
        ("batch-reply.json", ("results", 0, "status"), "ok"),
        ("batch-reply.json", ("results", 0, "status"), ABSENT),
        ("batch-reply.json", ("results", 4, "code"), ABSENT),
        ("batch-reply.json", ("results", 4, "code"), "Try again"),
        ("batch-reply.json", ("results", 4, "code"), "invalid\n"),
        ("capabilities.json", ("protocol",), "1.0"),
        ("capabilities.json", ("protocol", 0), "one"),
        ("capabilities.json", ("protocol", 0), "1000.0"),
        ("capabilities.json", ("encodings",), "gzip"),
        ("capabilities.json", ("batch", "max_events"), 1.5),
        ("capabilities.json", ("batch", "max_bytes"), 65536.5),
        ("inbox-page.json", ("items",), {}),
        ("inbox-page.json", ("items", 0, "data"), ABSENT),
        ("inbox-page.json", ("has_more",), "no"),
        ("inbox-ack.json", ("source",), "8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31"),
        ("source-report.json", ("gaps",), {}),
        ("source-report.json", ("gaps", 0), "17-17"),
        ("source-report.json", ("gaps", 0), [1]),
        ("source-report.json", ("gaps", 0), [1, 2, 3]),
        ("source-report.json", ("gaps", 0), [0, 1]),
        ("problem.json", ("status",), "400"),
    ],
)
def test_a_planted_violation_of_an_http_document_is_found(schema: str, path: Place, planted: Any) -> None:
    assert complaints(schema, changed(LARGEST[schema], path, planted))


# --- The limits ----------------------------------------------------------------------------------

MOST = 2**53 - 1

# (type or HTTP document, path, shortest, longest): characters of a text
TEXTS: list[tuple[str, Place, int, int]] = [
    (STATUS, ("subject",), 1, 256),
    (STATUS, ("partitionkey",), 1, 256),
    (STATUS, ("agentid",), 1, 256),
    (STATUS, ("tracestate",), 1, 512),
    (STATUS, ("data", "task_id"), 1, 256),
    (STATUS, ("data", "current_step"), 0, 4096),
    (ASKED, ("data", "questions", 0, "id"), 1, 64),
    (ASKED, ("data", "questions", 0, "text"), 1, 16384),
    (ASKED, ("data", "questions", 0, "options", 0), 1, 1024),
    (ASKED, ("data", "questions", 0, "recommended"), 1, 1024),
    (ASKED, ("data", "default"), 0, 16384),
    (ASKED, ("data", "key"), 1, 256),
    (WITHDRAWN, ("data", "reason"), 0, 4096),
    (CONSUMED, ("data", "answer_id"), 1, 255),
    (COMPLETED, ("data", "pr_url"), 0, 2048),
    (ESCALATED, ("data", "error_type"), 1, 256),
    (ESCALATED, ("data", "error_message"), 0, 65536),
    (ESCALATED, ("data", "dedup_key"), 1, 256),
    (ESCALATED, ("data", "traceback"), 0, 262144),
    (RESOLVED, ("data", "dedup_key"), 1, 256),
    (HEARTBEAT, ("data", "agent_id"), 1, 256),
    (SEEN, ("id",), 1, 255),
    (SEEN, ("source",), 1, 2048),
    (SEEN, ("subject",), 1, 256),
    (SEEN, ("tracestate",), 1, 512),
    (SEEN, ("data", "channel"), 1, 64),
    (ANSWERED, ("data", "answer_id"), 1, 255),
    (ANSWERED, ("data", "answers", 0, "question_id"), 1, 64),
    (ANSWERED, ("data", "answers", 1, "text"), 0, 16384),
    (ANSWERED, ("data", "answers", 0, "options", 0), 1, 1024),
    (ANSWERED, ("data", "comment"), 0, 16384),
    (ANSWERED, ("data", "responder", "id"), 1, 255),
    (ANSWERED, ("data", "responder", "display"), 1, 255),
    (DECIDED, ("data", "comment"), 0, 16384),
    (CANCEL, ("data", "reason"), 0, 4096),
    (MESSAGE, ("data", "text"), 1, 16384),
    ("batch-reply.json", ("results", 4, "code"), 1, 32),
    ("batch-reply.json", ("results", 4, "detail"), 0, 1000),
    ("capabilities.json", ("encodings", 0), 1, 32),
    ("inbox-page.json", ("cursor",), 1, 512),
    ("inbox-ack.json", ("cursor",), 1, 512),
    ("problem.json", ("type",), 1, 2048),
    ("problem.json", ("title",), 1, 255),
    ("problem.json", ("detail",), 0, 4096),
    ("problem.json", ("instance",), 1, 2048),
]

# (type or HTTP document, path, least, greatest)
NUMBERS: list[tuple[str, Place, int, int]] = [
    (STATUS, ("data", "progress_percentage"), 0, 100),
    (STATUS, ("data", "attempt"), 1, 2**31 - 1),
    (COMPLETED, ("data", "quality_score"), 0, 100),
    (ESCALATED, ("data", "recovery_attempts"), 0, 2**31 - 1),
    (HEARTBEAT, ("data", "outbox", "pending"), 0, MOST),
    (HEARTBEAT, ("data", "outbox", "dead"), 0, MOST),
    (HEARTBEAT, ("data", "outbox", "oldest_age_s"), 0, 3_153_600_000),
    (GAP, ("data", "from"), 1, MOST),
    (GAP, ("data", "to"), 1, MOST),
    (GAP, ("data", "count"), 1, MOST),
    ("batch-reply.json", ("inbox", "pending"), 0, MOST),
    ("capabilities.json", ("batch", "max_events"), 1, 1_000_000),
    ("capabilities.json", ("batch", "max_bytes"), 65_536, MOST),
    ("capabilities.json", ("inbox", "max_wait_s"), 0, 3600),
    ("source-report.json", ("highest",), 0, MOST),
    ("source-report.json", ("gaps", 0, 1), 1, MOST),
    ("problem.json", ("status",), 100, 599),
]

# (type or HTTP document, path, an entry, fewest, most); the path of a whole document is empty
LISTS: list[tuple[str, Place, Any, int, int]] = [
    (ASKED, ("data", "questions"), {"id": "q1", "text": "Why?"}, 1, 100),
    (ASKED, ("data", "questions", 0, "options"), "yes", 1, 100),
    (ESCALATED, ("data", "recovery_history"), {}, 0, 1000),
    (ANSWERED, ("data", "answers"), {"question_id": "q1", "text": "yes"}, 1, 100),
    (ANSWERED, ("data", "answers", 0, "options"), "yes", 0, 100),
    ("batch.json", (), FULL_EXAMPLES[RESOLVED], 0, 500),
    ("batch-reply.json", ("results",), {"id": FULL_EXAMPLES[STATUS]["id"], "status": "accepted"}, 0, 500),
    ("capabilities.json", ("protocol",), "1.0", 1, 16),
    ("capabilities.json", ("encodings",), "gzip", 0, 16),
    ("inbox-page.json", ("items",), FULL_EXAMPLES[MESSAGE], 0, 100),
    ("source-report.json", ("gaps",), [1, 1], 0, 1000),
]


def is_accepted(where: str, path: Place, value: Any) -> bool:
    """Whether the example of an event type or HTTP document stands with ``value`` at ``path``."""
    if where in SCHEMAS:
        return not complaints(where, changed(LARGEST[where], path, value) if path else value)
    return not complaints(envelope_schema(where), changed(FULL_EXAMPLES[where], path, value))


@pytest.mark.parametrize(("where", "path", "shortest", "longest"), TEXTS)
def test_a_text_has_the_length_that_the_contract_says(where: str, path: Place, shortest: int, longest: int) -> None:
    assert is_accepted(where, path, "t" * shortest)
    assert is_accepted(where, path, "t" * longest)
    assert not is_accepted(where, path, "t" * (longest + 1))
    assert shortest == 0 or not is_accepted(where, path, "")


@pytest.mark.parametrize(("where", "path", "least", "greatest"), NUMBERS)
def test_a_number_stays_in_the_range_that_the_contract_says(where: str, path: Place, least: int, greatest: int) -> None:
    assert is_accepted(where, path, least)
    assert is_accepted(where, path, greatest)
    assert not is_accepted(where, path, least - 1)
    assert not is_accepted(where, path, greatest + 1)


@pytest.mark.parametrize(("where", "path", "entry", "fewest", "most"), LISTS)
def test_a_list_has_the_entries_that_the_contract_says(
    where: str, path: Place, entry: Any, fewest: int, most: int
) -> None:
    assert is_accepted(where, path, [entry] * fewest)
    assert is_accepted(where, path, [entry] * most)
    assert not is_accepted(where, path, [entry] * (most + 1))
    assert fewest == 0 or not is_accepted(where, path, [])


def test_500_results_with_the_longest_code_fit_into_a_reply() -> None:
    result = {"id": FULL_EXAMPLES[STATUS]["id"], "status": "duplicate", "code": "c" * 32}
    reply = json.dumps({"results": [result] * 500, "inbox": {"pending": MOST}})
    assert len(reply.encode()) <= 65_536
