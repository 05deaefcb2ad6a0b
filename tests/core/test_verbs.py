"""What each verb says, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchclient.core import verbs
from orchclient.core.errors import InvalidEvent
from orchclient.core.events import NotificationPriority, TaskStatus
from orchclient.core.redaction import Redactor
from tests.core.test_redaction import SECRET_KEYS, SECRET_TEXTS


def test_a_status_update_says_only_what_was_given() -> None:
    draft = verbs.status_update("t", TaskStatus.IN_PROGRESS, None, None, None)
    assert draft.data == {"status": "in_progress"}


words = st.text() | st.lists(st.sampled_from(sum(map(list, SECRET_TEXTS), list(SECRET_KEYS))), max_size=3).map(" ".join)


@given(words | st.none(), st.dictionaries(words, words) | st.none(), st.integers(0, 100) | st.none())
@example("password", {"a": "=hunter2"}, 1)
@example("Authorization:", {"Bearer": "abcdefgh"}, None)
def test_what_a_status_update_says_in_the_agent_s_own_words_is_all_that_may_hold_a_secret(
    step: str | None, metadata: dict[str, str] | None, progress: int | None
) -> None:
    draft, redactor = verbs.status_update("t", "in_progress", metadata, progress, step), Redactor()
    if not redactor.suspects(draft.said or ""):
        assert redactor.redact(draft.data) == draft.data


@pytest.mark.parametrize(("given", "told"), [(-5, 0), (0, 0), (45.5, 45.5), (100, 100), (250, 100)])
def test_progress_is_clamped_to_a_percentage(given: float, told: float) -> None:
    assert verbs.status_update("t", "testing", None, given, None).data["progress_percentage"] == told


@pytest.mark.parametrize("progress", [float("nan"), float("inf"), "45", True, [1]])
def test_progress_that_is_no_number_is_refused(progress: Any) -> None:
    with pytest.raises(InvalidEvent, match="progress_percentage"):
        verbs.status_update("t", "testing", None, progress, None)


@pytest.mark.parametrize("status", ["running", "", None, 3, ["testing"]])
def test_an_unknown_status_is_refused_with_the_known_ones(status: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"status: .*in_progress.*failed"):
        verbs.status_update("t", status, None, None, None)


@pytest.mark.parametrize("metadata", [["a"], "text", {1: "a"}, {("a",): 1}])
def test_metadata_that_is_no_object_is_refused(metadata: Any) -> None:
    with pytest.raises(InvalidEvent, match="metadata"):
        verbs.status_update("t", "testing", metadata, None, None)


def test_asking_makes_the_task_wait_and_fixes_what_the_person_is_shown() -> None:
    draft = verbs.clarification_request(
        dict,
        "id-1",
        "t",
        ["Auth?"],
        "high",
        {"endpoint": "/api"},
        ["yes", "no"],
        "yes",
        "no",
        datetime(2026, 12, 1, tzinfo=UTC),
        "k",
    )
    assert draft.status == TaskStatus.CLARIFICATION_NEEDED
    assert draft.priority == NotificationPriority.HIGH
    assert draft.data["questions"] == [{"id": "q1", "text": "Auth?", "options": ["yes", "no"], "recommended": "yes"}]
    assert draft.data["current_step"] == "Waiting for clarification"
    assert draft.data["deadline"] == "2026-12-01T00:00:00.000000Z"
    assert draft.data["clarification_id"] == "id-1"
    assert draft.data["content_digest"].startswith("sha256:")


def test_the_digest_covers_what_is_shown_and_nothing_else() -> None:
    def digest(event_id: str, question: str, key: str) -> str:
        data = verbs.clarification_request(dict, event_id, "t", question, "low", None, None, None, None, None, key).data
        text: str = data["content_digest"]
        return text

    assert digest("a", "Auth?", "k1") == digest("b", "Auth?", "k2")
    assert digest("a", "Auth?", "k1") != digest("a", "auth?", "k1")


@pytest.mark.parametrize(
    ("questions", "options", "recommended"),
    [
        ([], None, None),
        (7, None, None),
        (["a", 7], None, None),
        ([{"txt": "a"}], None, None),
        ([{"id": "x", "text": "a"}, {"id": "x", "text": "b"}], None, None),
        (["a"], [], None),
        (["a"], ["x", "x"], None),
        (["a"], ["x"], "y"),
        (["a", "b"], ["x", "y", "z"], None),
        ([" "], None, None),
    ],
)
def test_questions_that_nobody_could_answer_are_refused(questions: Any, options: Any, recommended: Any) -> None:
    with pytest.raises(InvalidEvent):
        verbs.clarification_request(dict, "id", "t", questions, "low", None, options, recommended, None, None, None)


def test_options_may_be_given_per_question() -> None:
    data = verbs.clarification_request(
        dict, "id", "t", ["a", "b"], "low", None, [["x", "y"], None], [None, "free"], None, None, None
    ).data
    assert data["questions"][0] == {"id": "q1", "text": "a", "options": ["x", "y"]}
    assert data["questions"][1] == {"id": "q2", "text": "b", "recommended": "free"}


def test_a_deadline_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="deadline: has no time zone"):
        verbs.clarification_request(dict, "id", "t", "a", "low", None, None, None, None, datetime(2026, 1, 1), None)  # noqa: DTZ001


def test_completing_completes_the_task_unless_somebody_must_decide() -> None:
    status = {review: verbs.completion_report("id-1", "t", None, {}, None, review).status for review in (True, False)}
    assert status == {True: TaskStatus.REVIEW_READY, False: TaskStatus.COMPLETED}


def test_completing_hands_in_the_score() -> None:
    draft = verbs.completion_report("id-1", "t", "https://x/pr/1", {"tests_passed": 15, "tests_failed": 1}, None, True)
    assert draft.data["quality_score"] == 75
    assert draft.data["progress_percentage"] == 100
    assert draft.data["current_step"] == "Completed - awaiting review"
    assert draft.data["review_id"] == "id-1"


def test_a_fatal_error_fails_the_task_and_another_does_not() -> None:
    fatal = verbs.error_escalation(str, "t", "database_connection", "down", 0, None, True, None)
    passing = verbs.error_escalation(str, "t", "timeout", "slow", 1, None, False, "k")
    assert (fatal.status, fatal.priority, fatal.data["status"]) == ("failed", "critical", "failed")
    assert (passing.status, passing.priority) == (None, "medium")
    assert "status" not in passing.data


@pytest.mark.parametrize("attempts", [-1, 1.5, "2", True])
def test_attempts_that_are_no_count_are_refused(attempts: Any) -> None:
    with pytest.raises(InvalidEvent, match="recovery_attempts"):
        verbs.error_escalation(str, "t", "e", "m", attempts, None, True, None)
