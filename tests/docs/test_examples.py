"""The programs in docs/examples do what they show, as a newcomer runs them: with an orchestrator, and with nothing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from orchclient import OrchestratorClient
from orchclient.core.questions import content_digest
from orchclient.testing.receiver import Receiver

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EXAMPLE_S = 60
ARRIVE_S = 10.0
BACKEND, GITHUB = "backend_agent.py", "github_escalation.py"
EVENTS = {BACKEND: 7, GITHUB: 3}

Event = dict[str, Any]


@frozen
class Ran:
    """One run of an example: what it printed, and what its orchestrator got."""

    printed: str
    events: list[Event]
    repeats: int


def run(example: str, home: Path, **settings: str) -> str:
    """Runs an example with no settings but these, every warning an error; its output. It must be quiet on stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHCLIENT_")}
    environ = {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "ORCHCLIENT_DB": str(outbox(home)), **settings}
    command = [sys.executable, "-W", "error", str(EXAMPLES / example)]
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=EXAMPLE_S)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def outbox(home: Path) -> Path:
    return home / "outbox" / "outbox.db"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Every example, run once with an orchestrator of its own."""
    return {example: _ran(example, tmp_path_factory.mktemp("run")) for example in EVENTS}


def _ran(example: str, home: Path) -> Ran:
    with Receiver() as receiver:
        printed = run(example, home, ORCHCLIENT_URL=receiver.url)
        assert receiver.wait_for(EVENTS[example], ARRIVE_S)
        return Ran(printed, receiver.events, receiver.repeats.total())


@pytest.fixture
def backend(runs: dict[str, Ran]) -> Ran:
    return runs[BACKEND]


@pytest.fixture
def github(runs: dict[str, Ran]) -> Ran:
    return runs[GITHUB]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def types(ran: Ran) -> list[str]:
    return [event["type"].removeprefix("dev.orchclient.") for event in ran.events]


def said(event: Event) -> Event:
    """The event's data without the ids that differ from run to run."""
    return {name: value for name, value in event["data"].items() if name not in ("clarification_id", "content_digest")}


def envelope_validator() -> Draft202012Validator:
    schemas = [
        json.loads(file.read_text(encoding="utf-8"))
        for file in files("orchclient.core.schemas").iterdir()
        if file.name.endswith(".json")
    ]
    registry: Registry[Any] = Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in schemas)
    envelope = next(each for each in schemas if each["$id"].endswith("/envelope.json"))
    return Draft202012Validator(envelope, registry=registry)


# --- Both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EVENTS)
def test_every_event_of_an_example_is_valid_by_the_schemas_of_the_contract(runs: dict[str, Ran], example: str) -> None:
    validator = envelope_validator()
    assert [error.message for event in runs[example].events for error in validator.iter_errors(event)] == []


def test_the_schemas_refuse_an_event_of_an_example_with_a_member_missing(github: Ran) -> None:
    escalation = copy.deepcopy(github.events[-1])
    del escalation["data"]["recovery_attempts"]
    assert not envelope_validator().is_valid(escalation)


@pytest.mark.parametrize("example", EVENTS)
def test_an_example_arrives_once_in_the_order_of_its_calls(runs: dict[str, Ran], example: str) -> None:
    sequences = [int(event["sequence"]) for event in runs[example].events]
    assert (sequences, runs[example].repeats) == (list(range(1, EVENTS[example] + 1)), 0)


@pytest.mark.parametrize("example", EVENTS)
def test_with_an_orchestrator_an_example_says_that_nothing_waits(runs: dict[str, Ran], example: str) -> None:
    assert "0 events wait in the outbox, 0 were refused\n" in runs[example].printed


@pytest.mark.parametrize("example", EVENTS)
def test_without_a_url_an_example_says_that_everything_waits(tmp_path: Path, example: str) -> None:
    expected = f"No orchestrator is configured: {EVENTS[example]} events wait in the outbox\n"
    assert expected in run(example, tmp_path)


@pytest.mark.parametrize("example", EVENTS)
def test_what_waited_without_a_url_is_delivered_once_there_is_one(
    receiver: Receiver, tmp_path: Path, example: str
) -> None:
    run(example, tmp_path)
    with OrchestratorClient("later", outbox=outbox(tmp_path), url=receiver.url, background=False) as client:
        assert client.flush(ARRIVE_S)
    assert len(receiver.events) == EVENTS[example]


@pytest.mark.parametrize("example", EVENTS)
def test_an_example_run_again_on_the_same_outbox_is_the_next_attempt_of_its_task(
    receiver: Receiver, tmp_path: Path, example: str
) -> None:
    run(example, tmp_path)
    run(example, tmp_path, ORCHCLIENT_URL=receiver.url)
    starts = [event["data"]["attempt"] for event in receiver.events if "attempt" in event["data"]]
    asked = sum(event["type"].endswith("clarification.requested.v1") for event in receiver.events)
    assert asked == (example == BACKEND)  # the second run asks the same question
    assert (starts, len(receiver.events)) == ([1, 2], 2 * EVENTS[example] - asked)


# --- The backend agent --------------------------------------------------------------------------------------------


def test_the_backend_agent_starts_reports_asks_and_completes(backend: Ran) -> None:
    status = "task.status.v1"
    assert types(backend) == [status, status, status, "clarification.requested.v1", status, status, "task.completed.v1"]


def test_the_backend_agent_reports_its_progress_with_steps(backend: Ran) -> None:
    progress = [
        (event["data"]["progress_percentage"], event["data"]["current_step"], event["data"]["status"])
        for event in backend.events
        if event["type"].endswith("task.status.v1")
    ]
    assert progress == [
        (0, "Started", "in_progress"),
        (5, "Reading the task and the repository", "in_progress"),
        (35, "Generating the Flask routes", "in_progress"),
        (60, "Writing the models and their migrations", "in_progress"),
        (85, "Running the tests", "in_progress"),
    ]


def test_the_backend_agent_asks_three_questions_with_options_and_a_recommendation(backend: Ran) -> None:
    event = backend.events[3]
    assert event["priority"] == "high"
    assert said(event) == {
        "task_id": "flask-user-api",
        "questions": [
            {
                "id": "login",
                "text": "How do callers of the API log in?",
                "options": ["Session cookie", "JWT in the Authorization header", "No login, internal network only"],
                "recommended": "JWT in the Authorization header",
            },
            {
                "id": "database",
                "text": "Which database is in production?",
                "options": ["PostgreSQL", "MySQL", "SQLite"],
                "recommended": "PostgreSQL",
            },
            {
                "id": "deletion",
                "text": "What happens to a user's data when the user is deleted?",
                "options": ["Remove it at once", "Keep it for 30 days"],
                "recommended": "Keep it for 30 days",
            },
        ],
        "context": {"endpoint": "/api/users", "found": "The ticket names no login and no retention time."},
        "priority": "high",
        "status": "clarification_needed",
        "current_step": "Waiting for clarification",
        "key": "users-api-open-points",
    }


def test_the_question_of_the_backend_agent_carries_its_id_and_the_digest_of_what_is_shown(backend: Ran) -> None:
    event = backend.events[3]
    shown = {member: event["data"][member] for member in ("questions", "context")}
    found = event["data"]["clarification_id"], event["data"]["content_digest"]
    assert found == (event["id"], content_digest(shown))


def test_the_backend_agent_hands_in_its_result_with_the_quality_score(backend: Ran) -> None:
    assert said(backend.events[-1]) == {
        "task_id": "flask-user-api",
        "status": "completed",
        "progress_percentage": 100,
        "current_step": "Completed - awaiting review",
        "pr_url": "https://github.com/acme/shop-api/pull/42",
        "test_results": {
            "tests_passed": 23,
            "tests_failed": 1,
            "total_tests": 24,
            "code_coverage": 87,
            "lint_score": 9.2,
            "security_score": 95,
        },
        "artifacts": {
            "generated_files": ["app.py", "models.py", "routes/users.py", "migrations/0001_users.py"],
            "documentation": ["docs/users-api.md"],
            "test_report": "reports/pytest.xml",
        },
        "quality_score": 95.0,  # 23/24 * 80 + 10 + 10 = 96.67, and security is the ceiling
        "review": False,
    }


def test_the_backend_agent_prints_its_score_and_its_statistics(backend: Ran) -> None:
    assert backend.printed.splitlines() == [
        "Quality score: 95 of 100",
        "0 events wait in the outbox, 0 were refused",
        "Communication statistics:",
        "  agent_id: backend-agent",
        "  updates_sent: 5",
        "  clarifications_requested: 1",
        "  completions_reported: 1",
        "  errors_escalated: 0",
        "  health_status: healthy",
        "  orchestrator: 7 delivered, 0 pending, 0 dead",
    ]


# --- The agent without a login ------------------------------------------------------------------------------------


def test_the_agent_without_a_login_escalates_after_three_attempts_with_their_history(github: Ran) -> None:
    escalation = github.events[-1]
    logins = ("the cached installation login", "a renewed installation login", "the login of the deploy robot")
    assert (escalation["type"], escalation["priority"]) == ("dev.orchclient.error.escalated.v1", "critical")
    assert escalation["data"] == {
        "task_id": "publish-user-api",
        "error_type": "github_api_auth",
        "error_message": "GitHub refuses every login of the agent for acme/shop-api",
        "recovery_attempts": 3,
        "context": {
            "api_endpoint": "POST /repos/acme/shop-api/pulls",
            "branch": "agent/users-api",
            "http_status": 401,
            "needed": "Install the GitHub app on the repository again, then start the task again.",
        },
        "fatal": True,
        "priority": "critical",
        "recovery_history": [
            {
                "attempt": number,
                "error": f"GitHubLoginError: 401 from GitHub for acme/shop-api with {login}",
                "action": f"Tried {login}",
            }
            for number, login in enumerate(logins, 1)
        ],
        "status": "failed",
    }


def test_the_agent_without_a_login_escalates_once_and_nothing_else_after_it(github: Ran) -> None:
    assert types(github) == ["task.status.v1", "task.status.v1", "error.escalated.v1"]


def test_the_agent_without_a_login_prints_its_attempts_and_the_priority(github: Ran) -> None:
    assert github.printed.splitlines() == [
        "Attempt 1 failed: 401 from GitHub for acme/shop-api with the cached installation login",
        "Attempt 2 failed: 401 from GitHub for acme/shop-api with a renewed installation login",
        "Attempt 3 failed: 401 from GitHub for acme/shop-api with the login of the deploy robot",
        "Escalated github_api_auth after 3 attempts, priority critical",
        "The task is failed",
        "0 events wait in the outbox, 0 were refused",
    ]
