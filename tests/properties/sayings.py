"""What an agent may say, as a table: the call, and what it must mean on the wire and for the task.

Written from the design and the wire contract, not from the code: the model of the machine folds these, and never
reads what the client made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

from orchclient import OrchestratorClient
from orchclient.core.events import Receipt

TASKS = ("alpha", "beta", 'γ "3"\\')
AGENTS = ("builder", "tester")

Call = Callable[[OrchestratorClient, str], Receipt]


@frozen
class Saying:
    """One call: ``says`` are members of its data, ``changes`` is what becomes of the task's state."""

    name: str
    call: Call = field(repr=False)
    type: str = field(repr=False)
    priority: str = field(repr=False)
    says: Mapping[str, Any] = field(repr=False)
    changes: Mapping[str, Any] = field(repr=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"<{self.name}>")  # how Hypothesis shows it


@define
class TaskModel:
    """What the sayings about one task add up to."""

    agent: str = ""
    status: str = "pending"
    progress: float | None = None
    step: str | None = None
    metadata: dict[str, Any] = field(factory=dict)
    seq: int = 0

    def hear(self, agent: str, seq: int, changes: Mapping[str, Any]) -> None:
        """Take one more saying in."""
        self.agent, self.seq = agent, seq
        self.status = changes.get("status", self.status)
        self.progress = changes.get("progress", self.progress)
        self.step = changes.get("step", self.step)
        self.metadata |= changes.get("metadata", {})


def notice(type_: str, data: Mapping[str, Any]) -> Saying:
    """What the outbox itself says, in place of an agent: of a gap, or how it stands."""

    def call(client: OrchestratorClient, task: str) -> Receipt:
        raise AssertionError("no agent says that")

    return Saying("notice", call, type_, "low", data, {})


NOTICE, HEARTBEAT = "gap.v1", "agent.heartbeat.v1"
NOTICES = (NOTICE, HEARTBEAT)


def _update(name: str, status: str, **said: Any) -> Saying:
    def call(client: OrchestratorClient, task: str) -> Receipt:
        return client.update_task_status(task, status, said.get("metadata"), said.get("progress"), said.get("step"))

    wire = {"progress": "progress_percentage", "step": "current_step", "metadata": "metadata"}
    clamped = said | ({"progress": min(max(said["progress"], 0), 100)} if "progress" in said else {})
    says = {"status": status} | {wire[member]: value for member, value in clamped.items()}
    return Saying(name, call, "task.status.v1", "low", says, {"status": status} | clamped)


def _question(name: str, priority: str, key: str | None) -> Saying:
    def call(client: OrchestratorClient, task: str) -> Receipt:
        return client.request_clarification(task, ["Which?", "When?"], priority, {"why": "unclear"}, key=key).receipt

    changes = {"status": "clarification_needed", "step": "Waiting for clarification"}
    says = {
        "status": "clarification_needed",
        "current_step": "Waiting for clarification",
        "questions": [{"id": "q1", "text": "Which?"}, {"id": "q2", "text": "When?"}],
        "priority": priority,
        "context": {"why": "unclear"},
    }
    return Saying(name, call, "clarification.requested.v1", priority, says | ({"key": key} if key else {}), changes)


def _result(name: str, tests: Mapping[str, Any], score: float, *, review: bool) -> Saying:
    def call(client: OrchestratorClient, task: str) -> Receipt:
        return client.report_completion(task, "https://example.org/pr/1", tests, review=review).receipt

    status = "review_ready" if review else "completed"
    changes = {"status": status, "progress": 100, "step": "Completed - awaiting review"}
    says = {
        "status": status,
        "progress_percentage": 100,
        "test_results": dict(tests),
        "quality_score": score,
        "review": review,
    }
    return Saying(name, call, "task.completed.v1", "medium", says, changes)


def _trouble(name: str, kind: str, attempts: int, priority: str, *, fatal: bool) -> Saying:
    def call(client: OrchestratorClient, task: str) -> Receipt:
        return client.escalate_error(task, kind, "it broke", attempts, {"line": 3}, fatal=fatal).receipt

    says = {"error_type": kind, "recovery_attempts": attempts, "fatal": fatal, "priority": priority}
    changes = {"status": "failed"} if fatal else {}
    return Saying(name, call, "error.escalated.v1", priority, says | changes, changes)


SAYINGS: tuple[Saying, ...] = (
    _update("starts", "in_progress", progress=0, step="Started"),
    _update("progresses", "in_progress", progress=40),
    _update("over the top", "in_progress", progress=140.5),
    _update("notes a branch", "in_progress", metadata={"branch": "feature/ü", "files": [1, 2]}),
    _update("notes another", "testing", metadata={"branch": None, "depth": {"a": {"b": 1.5}}}),
    _update("writes a lot", "testing", metadata={"log": "line of a log\n" * 80}),
    _update("writes even more", "in_progress", step="x", metadata={"log": "0123456789abcdef" * 200}),
    _update("takes a step", "review_ready", step="step\twith \u2028 \U0001f600"),
    _question("asks", "medium", None),
    _question("asks by key", "critical", "which-database"),
    _result("completes", {"tests_passed": 3, "tests_failed": 1}, 60.0, review=False),
    _result("asks for review", {"total_tests": 0, "lint_score": 9, "security_score": 55}, 55.0, review=True),
    _trouble("fails", "github_api_auth", 0, "critical", fatal=True),
    _trouble("stumbles", "flaky_test", 2, "medium", fatal=False),
)
