"""Events of every kind, as the outbox hands them over: examples, and any text at all inside."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from orchclient.core.batch import Batch

ID = "01a207af-1842-726b-b2a7-000000000042"
PUBLIC = "https://answers.example"


def event_of(type_: str, data: dict[str, Any], *, priority: str = "low", task: str = "task-42", id_: str = ID) -> Any:
    return {
        "specversion": "1.0",
        "source": "urn:uuid:8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31",
        "sequence": "00000000000000000007",
        "id": id_,
        "type": f"dev.orchclient.{type_}",
        "subject": task,
        "partitionkey": task,
        "agentid": "backend-1",
        "time": "2026-11-26T09:14:05.250413Z",
        "priority": priority,
        "data": {"task_id": task, **data},
    }


def batch_with(event: dict[str, Any]) -> Batch:
    return Batch.of_texts([event["id"]], [json.dumps(event)])


STATUS = event_of(
    "task.status.v1",
    {"status": "in_progress", "progress_percentage": 40, "current_step": "Running the migrations"},
)
QUESTION = event_of(
    "clarification.requested.v1",
    {
        "clarification_id": ID,
        "questions": [
            {
                "id": "q1",
                "text": "Which database shall the new service use?",
                "options": ["PostgreSQL 16", "SQLite"],
                "recommended": "PostgreSQL 16",
            },
            {"id": "q2", "text": "May old sessions be dropped?"},
        ],
        "priority": "high",
        "context": {"branch": "feature/sessions", "files": 12},
        "deadline": "2026-11-26T14:00:00.000000Z",
        "default": "PostgreSQL 16",
    },
    priority="high",
)
ONE_QUESTION = {
    **QUESTION,
    "data": {**QUESTION["data"], "questions": QUESTION["data"]["questions"][:1], "priority": "critical"},
}
COMPLETION = event_of(
    "task.completed.v1",
    {
        "status": "completed",
        "pr_url": "https://github.com/acme/shop/pull/17",
        "test_results": {"tests_passed": 40, "tests_failed": 2, "total_tests": 42, "code_coverage": 85.5},
        "artifacts": {"report": "report.html", "coverage": "cov.xml"},
        "quality_score": 86.19,
        "review": True,
        "review_id": ID,
    },
    priority="medium",
)
ERROR = event_of(
    "error.escalated.v1",
    {
        "error_type": "database_connection",
        "error_message": "could not connect to db-1:5432 after 3 attempts",
        "recovery_attempts": 3,
        "context": {"host": "db-1"},
        "fatal": True,
        "priority": "critical",
        "traceback": "Traceback ...\n" * 100,
    },
    priority="critical",
)
REMINDER = event_of(
    "reminder.v1",
    {
        "about": {
            "id": ID,
            "type": "dev.orchclient.clarification.requested.v1",
            "data": {"questions": [{"id": "q1", "text": "Which database shall the new service use?"}]},
        },
        "number": 3,
        "waited_s": 18_060,
        "escalated": True,
    },
    priority="high",
)
KINDS = {
    "status": STATUS,
    "question": QUESTION,
    "withdrawn": event_of("clarification.withdrawn.v1", {"clarification_id": ID, "reason": "found it in the wiki"}),
    "answered": event_of("clarification.consumed.v1", {"clarification_id": ID, "answer_id": "a1"}),
    "completion": COMPLETION,
    "error": ERROR,
    "resolved": event_of("error.resolved.v1", {"dedup_key": "db-1"}),
    "reminder": REMINDER,
    "gap": event_of("gap.v1", {"from": 3, "to": 14, "reason": "folded", "count": 12}),
}

NASTY = (
    *("@everyone", "@here", "<!channel>", "<!here|x>", "<@U123>", "<@&123456>", "<#1>", "<:a:1>", "```", "`", "**"),
    *("__", "~~", "||", "[text](https://evil.example)", "<https://evil.example|click>", "# head\n", "> quote\n"),
    *("\u202egnp.exe", "\u200b", "\x00", "\x1b[31m", "\u2028", "&lt;", "&amp;", "\U0001f469\u200d\U0001f467"),
    *("\U0001f1e9\U0001f1ea", "e\u0301" * 9, "\ud800", "\u05e9\u05dc", "\U000e0041", "\ufeff", "-# small", "\\"),
)
words = st.one_of(st.sampled_from(NASTY), st.text(max_size=12))
any_text = st.one_of(
    st.lists(words, max_size=12).map("".join),
    st.builds(lambda word, times: word * times, words, st.integers(1, 10_000 // 4)),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=9),
    max_leaves=8,
)
questions = st.lists(
    st.fixed_dictionaries(
        {"text": any_text}, optional={"options": st.lists(any_text, max_size=15), "recommended": any_text}
    ),
    max_size=6,
).map(lambda few: few) | st.builds(lambda text: [{"text": text}] * 300, any_text)


@st.composite
def any_events(draw: st.DrawFn) -> Any:
    """An event of any kind of which every text is anything; members may be missing or of another type."""
    event = json.loads(json.dumps(draw(st.sampled_from(list(KINDS.values())))))
    for member in list(event["data"]):
        value = event["data"][member]
        if draw(st.integers(0, 3)):
            if isinstance(value, str) and member not in ("status",):
                event["data"][member] = draw(any_text)
            elif isinstance(value, dict):
                event["data"][member] = draw(st.dictionaries(any_text, json_values, max_size=9))
            elif member == "questions":
                event["data"][member] = draw(questions)
        elif draw(st.booleans()):
            event["data"][member] = draw(json_values)
    for attribute in ("subject", "agentid"):
        event[attribute] = draw(any_text)
    return event
