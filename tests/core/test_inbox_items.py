"""Reading an item: by hand, and held against the published schemas."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource

import orchclient.core.schemas
from orchclient.core.inbox_items import ANSWERED, CANCEL_REQUESTED, DECIDED, MESSAGE, SEEN, read_item
from orchclient.testing.items import human, item_of, new_id

AT = "2026-11-23T10:20:58+01:00"
DIGEST = "sha256:" + "a" * 64


def _schema() -> Any:
    folder = Path(orchclient.core.schemas.__file__).parent
    documents = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    known = [(document["$id"], Resource.from_contents(document)) for document in documents.values()]
    return jsonschema.Draft202012Validator(
        documents["inbound-envelope.json"], registry=Registry().with_resources(known)
    )


SCHEMA = _schema()

WELL_FORMED = {
    ANSWERED: {
        "clarification_id": new_id(),
        "answer_id": "answer-1",
        "outcome": "answered",
        "answers": [{"question_id": "q1", "options": ["yes"]}, {"question_id": "q2", "text": "60"}],
        "comment": "go on",
        "responder": human("u-1"),
        "channel": "web",
        "answered_at": AT,
        "late": False,
        "content_digest": DIGEST,
    },
    SEEN: {"clarification_id": new_id(), "responder": human("u-1"), "seen_at": AT},
    DECIDED: {"review_id": new_id(), "outcome": "rejected", "responder": {"kind": "policy"}, "decided_at": AT},
    CANCEL_REQUESTED: {"reason": "", "requested_by": human("u-1"), "requested_at": AT},
    MESSAGE: {"text": "hello", "urgent": True, "sent_by": human("u-1"), "sent_at": AT},
}


@pytest.mark.parametrize("kind", WELL_FORMED)
def test_a_well_formed_item_is_read(kind: str) -> None:
    item = read_item(item_of(kind, "task-1", WELL_FORMED[kind]))
    assert (item.problem, item.type, item.task, item.is_known) == ("", kind, "task-1", True)


def test_an_item_names_what_it_is_about() -> None:
    answered, decided = (read_item(item_of(kind, "t", WELL_FORMED[kind])) for kind in (ANSWERED, DECIDED))
    assert answered.request_id == WELL_FORMED[ANSWERED]["clarification_id"]
    assert (answered.answer_id, decided.answer_id) == ("answer-1", decided.id)
    assert decided.request_id == WELL_FORMED[DECIDED]["review_id"]


def test_an_item_of_an_unknown_type_is_readable_and_not_known() -> None:
    item = read_item(item_of("task.praised.v1", "t", {"stars": 5}))
    assert (item.problem, item.is_known) == ("", False)


@pytest.mark.parametrize("value", [None, 7, "text", [], {}, {"id": []}, {"data": None}], ids=repr)
def test_what_is_no_item_has_a_problem(value: Any) -> None:
    assert read_item(value).problem


def test_the_task_of_the_data_is_the_subject() -> None:
    item = item_of(MESSAGE, "task-1", WELL_FORMED[MESSAGE])
    assert "subject" in read_item({**item, "subject": "task-2"}).problem


REPLACEMENTS: list[Any] = [None, True, 0, 1.5, -(2**31), 2**31, "", " ", "x", "x" * 300, "x" * 20_000, "\x00", "\ufffe"]
REPLACEMENTS += [
    [],
    {},
    [{}],
    [""],
    {"kind": "human"},
    {"kind": "timeout"},
    {"kind": []},
    "expired",
    "approved",
    "answered",
]
REPLACEMENTS += [DIGEST, DIGEST + "\n", DIGEST.upper(), new_id(), AT, "2026-13-01T00:00:00Z", AT + "\n", "\u0661" * 4]
REPLACEMENTS += [[{"question_id": "q", "text": None}], [{"question_id": "q"}], [{"question_id": "q", "options": [""]}]]
REPLACEMENTS += [
    [{"question_id": "q", "text": ""}] * 101,
    "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
    "1.0",
    "application/json",
]
NAMES = ["trace", "Trace", "a_b", "", "traceparent", "tracestate", "datacontenttype", "dataschema", "specversion", "é"]


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """An item in which at most a few members are others, gone or new."""
    kind = draw(st.sampled_from(list(WELL_FORMED)))
    item = item_of(kind, "task-1", deepcopy(WELL_FORMED[kind]))
    for _ in range(draw(st.integers(0, 2))):
        target = draw(st.sampled_from([item, item["data"] if isinstance(item.get("data"), dict) else item]))
        name = draw(st.sampled_from([*target, *NAMES]))
        if draw(st.integers(0, 3)) == 0:
            target.pop(name, None)
        else:
            target[name] = deepcopy(draw(st.sampled_from(REPLACEMENTS)))  # which may be changed in its turn
    return item


@settings(max_examples=1500, deadline=None)
@given(nearly_right())
def test_reading_by_hand_and_by_the_schemas_are_one(item: dict[str, Any]) -> None:
    """Beyond the schemas only this: ``data.task_id`` is the subject."""
    problem = read_item(item).problem
    is_valid = SCHEMA.is_valid(item)
    if "subject" not in problem or not is_valid:
        assert is_valid == (not problem), problem
