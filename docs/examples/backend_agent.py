"""A backend agent builds a Flask API, and tells its orchestrator and people about it all the way.

Run it as it is, there is nothing to set up:

    python docs/examples/backend_agent.py

Every call writes to the outbox and returns; without an orchestrator everything waits there. To have it delivered, run
it again, or `orchclient flush`, with

    ORCHCLIENT_URL=https://orchestrator.example ORCHCLIENT_TOKEN=...

ORCHCLIENT_DB names another outbox file than the one that all agents of this user share.
"""

from __future__ import annotations

from typing import Any

from orchclient import Clarification, Completion, NotificationPriority, OrchestratorClient, Task

AGENT = "backend-agent"
TASK = "flask-user-api"


def main() -> None:
    """Work on one task from its start to its result."""
    with OrchestratorClient(AGENT) as client:
        # The handle starts the task; an exception that leaves the block would be escalated with its traceback.
        with client.task(TASK) as task:
            task.progress(5, "Reading the task and the repository")
            task.progress(35, "Generating the Flask routes", endpoints=4)
            question = ask(task)
            # An answer can take hours. The agent goes on with what it recommended, and says so in the pull request.
            task.progress(60, "Writing the models and their migrations", assumed=question.id)
            task.progress(85, "Running the tests")
            completion = hand_in(task)
        print(f"Quality score: {completion.quality_score:.0f} of 100")
        tell_delivery(client)
        tell_statistics(client.get_communication_stats())


def ask(task: Task) -> Clarification:
    """Ask people what the task leaves open: three questions that one person answers together."""
    return task.ask(
        [
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
        NotificationPriority.HIGH,
        context={"endpoint": "/api/users", "found": "The ticket names no login and no retention time."},
        # The key makes it the same question when the agent is started again.
        key="users-api-open-points",
    )


def hand_in(task: Task) -> Completion:
    """Hand in the pull request with what a reviewer wants to know."""
    return task.complete(
        "https://github.com/acme/shop-api/pull/42",
        test_results={
            "tests_passed": 23,
            "tests_failed": 1,
            "total_tests": 24,
            "code_coverage": 87,
            "lint_score": 9.2,
            "security_score": 95,
        },
        artifacts={
            "generated_files": ["app.py", "models.py", "routes/users.py", "migrations/0001_users.py"],
            "documentation": ["docs/users-api.md"],
            "test_report": "reports/pytest.xml",
        },
    )


def tell_delivery(client: OrchestratorClient) -> None:
    """Say what arrived. Delivery runs in the background; waiting for it here is only for the sake of the report."""
    report = client.flush(timeout=10)
    if not report.destinations:
        print(f"No orchestrator is configured: {client.health().recorded} events wait in the outbox")
    else:
        print(f"{report.pending} events wait in the outbox, {report.dead} were refused")


def tell_statistics(stats: dict[str, Any]) -> None:
    """Print what the agent said so far, on this and on earlier runs, and how each destination fares."""
    print("Communication statistics:")
    for name in ("agent_id", "updates_sent", "clarifications_requested", "completions_reported", "errors_escalated"):
        print(f"  {name}: {stats[name]}")
    print(f"  health_status: {stats['health_status']}")
    for name, sink in stats["delivery"].items():
        print(f"  {name}: {sink['delivered']} delivered, {sink['pending']} pending, {sink['dead']} dead")


if __name__ == "__main__":
    main()
