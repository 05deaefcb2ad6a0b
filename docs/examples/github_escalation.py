"""An agent cannot log in to GitHub, tries what it can by itself, then calls a person: critical, with its history.

Run it as it is:

    python docs/examples/github_escalation.py

Without ORCHCLIENT_URL the call for help waits in the outbox (ORCHCLIENT_DB, or the one that all agents of this user
share) until an orchestrator is configured and `orchclient flush` or the next run delivers it.
"""

from __future__ import annotations

from orchclient import Escalation, OrchestratorClient, Task

AGENT = "backend-agent"
TASK = "publish-user-api"
REPOSITORY = "acme/shop-api"
BRANCH = "agent/users-api"

LOGINS = ("the cached installation login", "a renewed installation login", "the login of the deploy robot")


def main() -> None:
    """Publish a branch, which goes wrong, and leave the task in the hands of a person."""
    with OrchestratorClient(AGENT) as client:
        with client.task(TASK) as task:
            task.progress(90, "Opening the pull request")
            outcome = publish(task)
        if isinstance(outcome, Escalation):
            print(f"Escalated github_api_auth after {task.recovery_attempts} attempts, priority {outcome.priority}")
        else:
            task.complete(outcome, {"tests_passed": 24, "tests_failed": 0})
        print(f"The task is {task.snapshot().status}")
        tell_delivery(client)


def publish(task: Task) -> str | Escalation:
    """The address of the pull request, or the call for help when no login works."""
    for login in LOGINS:
        try:
            return open_pull_request(login)
        except GitHubLoginError as error:
            # Counted and remembered in the handle; nothing is told to anybody yet.
            attempt = task.recovery_attempted(error, f"Tried {login}")
            print(f"Attempt {attempt} failed: {error}")
    # The error type decides: github_api_auth is critical, however often the agent tried.
    return task.escalate(
        "github_api_auth",
        f"GitHub refuses every login of the agent for {REPOSITORY}",
        context={
            "api_endpoint": f"POST /repos/{REPOSITORY}/pulls",
            "branch": BRANCH,
            "http_status": 401,
            "needed": "Install the GitHub app on the repository again, then start the task again.",
        },
    )


class GitHubLoginError(Exception):
    """GitHub did not accept who we say we are."""


def open_pull_request(login: str) -> str:
    """Stands for the agent's GitHub client, on a day when its app was removed from the repository."""
    raise GitHubLoginError(f"401 from GitHub for {REPOSITORY} with {login}")


def tell_delivery(client: OrchestratorClient) -> None:
    """Say what arrived. Delivery runs in the background; waiting for it here is only for the sake of the report."""
    report = client.flush(timeout=10)
    if not report.destinations:
        print(f"No orchestrator is configured: {client.health().recorded} events wait in the outbox")
    else:
        print(f"{report.pending} events wait in the outbox, {report.dead} were refused")


if __name__ == "__main__":
    main()
