"""What a team's orchestrator may hold on a working day: for pictures, and for looks at every page."""

from __future__ import annotations

import json
import time
from typing import Any

from orchclient.core.timestamps import rfc3339
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.questions import Decision
from orchclient.server.reading import BATCH_TYPE, Limits, read_batch
from tests.server.events import Event, Outbox

MINUTE = 60.0


class Scene:
    """Fills an orchestrator with events that were made so many seconds ago."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self.now_us = orchestrator.now_us()

    def take(self, *events: tuple[float, Event]) -> list[Event]:
        """Each event with how long ago it was made."""
        for seconds, event in events:
            event["time"] = rfc3339(self.now_us - int(seconds * 1e6))
        told = [event for _, event in events]
        batch = read_batch(json.dumps(told).encode(), BATCH_TYPE, "", Limits())
        results = self.orchestrator.ingest(batch).results
        assert {each.status for each in results} == {"accepted"}, results
        return told

    def soon(self, seconds: float) -> str:
        return rfc3339(self.now_us + int(seconds * 1e6))


def working_day(orchestrator: Orchestrator) -> dict[str, Event]:
    """A day with everything on it; the events that pages are about, by a name."""
    scene = Scene(orchestrator)
    reviewer, backend, migrator = Outbox(agent="reviewer"), Outbox(agent="backend-7"), Outbox(agent="migrator")
    task = "add-users-endpoint"
    steps = (
        (5, "Reading the repository"),
        (20, "Planning three commits"),
        (35, "Writing the model"),
        (45, "Generating routes"),
    )
    branch = {"branch": "users-api"}
    begun = [
        backend.status(task, progress_percentage=percent, current_step=step, metadata=branch) for percent, step in steps
    ]
    question = backend.question(
        task,
        text="Should /api/users require authentication?",
        questions=[
            {
                "id": "q1",
                "text": "Should /api/users require authentication?",
                "options": ["Yes, like the other endpoints", "No, it is public", "Only for writes"],
                "recommended": "Yes, like the other endpoints",
            }
        ],
        context={"endpoint": "/api/users", "other_endpoints": "12 of 13 check a session", "branch": "users-api"},
        deadline=scene.soon(42 * MINUTE),
        default="Yes, like the other endpoints",
    )
    compared = migrator.status("move-to-postgres", progress_percentage=60, current_step="Comparing row counts")
    many = migrator.question(
        "move-to-postgres",
        questions=[
            {"id": "order", "text": "Which migration runs first?", "options": ["accounts", "orders"]},
            {"id": "window", "text": "When may the tables be locked?"},
        ],
        priority="medium",
    )
    tested = reviewer.status("fix-flaky-login-test", progress_percentage=80, current_step="Running the suite 50 times")
    completion = reviewer.completion(
        "fix-flaky-login-test",
        review=True,
        pr_url="https://github.com/example/shop/pull/318",
        quality_score=92.0,
        test_results={"tests_passed": 214, "tests_failed": 0, "code_coverage": 87},
        artifacts={"changed_files": ["tests/test_login.py", "shop/clock.py"]},
    )
    connecting = migrator.status("nightly-export", progress_percentage=10, current_step="Connecting")
    error = migrator.error(
        "nightly-export",
        error_type="database_connection",
        error_message="could not connect to server: Connection refused (10.0.4.17:5432)",
        priority="critical",
        recovery_attempts=3,
        context={"host": "10.0.4.17", "last_success": "02:14 UTC"},
        traceback='Traceback (most recent call last):\n  File "export.py", line 41, in run\n    connect(url)\n'
        "OperationalError: could not connect to server: Connection refused",
    )
    scene.take(
        *((60 * (30 - 6 * n), event) for n, event in enumerate(begun)),
        (3 * MINUTE, question),
        (40, backend.heartbeat()),
    )
    scene.take(
        (50 * MINUTE, compared),
        (11 * MINUTE, many),
        (8 * MINUTE, connecting),
        (6 * MINUTE, error),
        (5, migrator.heartbeat(pending=14, dead=1)),
    )
    scene.take(
        (90 * MINUTE, tested),
        (20 * MINUTE, completion),
        (
            4 * MINUTE,
            reviewer.status("update-dependencies", "testing", progress_percentage=71.5, current_step="Testing urllib3"),
        ),
        (200 * MINUTE, reviewer.completion("translate-readme", quality_score=88.0, test_results={"tests_passed": 4})),
    )
    return {"question": question, "many": many, "completion": completion, "error": error}


def answered(orchestrator: Orchestrator, question: Event, text: str = "Yes", name: str = "grace") -> None:
    """Somebody answers a question's first part in words."""
    first: Any = question["data"]["questions"][0]
    answers = [{"question_id": first["id"], "text": text}]
    who = {"kind": "human", "id": name}
    now_us = time.time_ns() // 1000
    assert orchestrator.answer(question["id"], Decision("answered", who, answers, None, "web", None, now_us))
