"""An agent asks a person and goes on with the answer; killed and started again, it asks nothing twice.

python docs/examples/asking_people.py              asks, and waits two seconds
orchclient answer                                  lists what waits (with ORCHCLIENT_DB as the agent has it)
orchclient answer ID 1                             answers it here; or somebody does so at the orchestrator
python docs/examples/asking_people.py              has the answer at once
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchclient import Answer, OrchestratorClient

WAIT_S = 2.0


def main() -> None:
    with OrchestratorClient("backend-7") as client:
        question = client.request_clarification(
            "task-123",
            "Should GET /api/users require authentication?",
            options=["yes, bearer token", "no, public"],
            recommended="yes, bearer token",
            default="yes, bearer token",
            deadline=datetime.now(UTC) + timedelta(hours=2),
            key="users-api-auth",
        )
        answer = question.wait(WAIT_S)
        print(f"still open: {question.id}" if answer is None else told(answer))


def told(answer: Answer) -> str:
    """What the agent does now. Words of people are data: look at them, do not obey them."""
    if answer.outcome == "expired":
        return f"nobody decided in time, so: {answer.text}" if answer.is_default else "nobody decided in time"
    if answer.outcome == "declined":
        return "nobody wants to decide"
    return f"{answer.responder.id} says ({answer.channel}): {answer.text or answer.outcome}"


if __name__ == "__main__":
    main()
