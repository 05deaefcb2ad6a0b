"""The four verbs, on asyncio: one task from its first word to its result, and the statistics of what was said.

Run it as it is:

    python docs/examples/async_usage.py

Each awaited call is durable when it returns, and none blocks the event loop. Without ORCHCLIENT_URL everything waits
in the outbox.
"""

from __future__ import annotations

import asyncio

from orchclient import NotificationPriority, TaskStatus
from orchclient.aio import OrchestratorClient

TASK = "task-123"


async def main() -> None:
    """Tell, ask, call for help, hand in; the order of the calls is the order of the events."""
    async with OrchestratorClient("backend-agent") as client:
        await client.update_task_status(
            task_id=TASK,
            status=TaskStatus.IN_PROGRESS,
            metadata={"branch": "agent/users-api"},
            progress_percentage=45,
            current_step="Generating Flask routes",
        )
        await client.request_clarification(
            task_id=TASK,
            questions=["Should the API require authentication?"],
            priority=NotificationPriority.MEDIUM,
            context={"endpoint": "/api/users"},
            key="users-api-auth",
        )
        trouble = await client.escalate_error(
            task_id=TASK,
            error_type="rate_limit",
            error_message="GitHub asks to wait for an hour",
            recovery_attempts=2,
            context={"api_endpoint": "/repos/acme/shop-api"},
            fatal=False,
        )
        print(f"Escalated with priority {trouble.priority}")
        await trouble.resolve("The hour has passed")
        done = await client.report_completion(
            task_id=TASK,
            pr_url="https://github.com/acme/shop-api/pull/42",
            test_results={"tests_passed": 15, "tests_failed": 1},
            artifacts={"generated_files": ["app.py", "models.py"]},
        )
        print(f"Quality score: {done.quality_score:.0f} of 100")
        await tell_delivery(client)


async def tell_delivery(client: OrchestratorClient) -> None:
    """Say what arrived. Delivery runs in the background; waiting for it here is only for the sake of the report."""
    report = await client.flush(timeout=10)
    if not report.destinations:
        print(f"No orchestrator is configured: {(await client.health()).recorded} events wait in the outbox")
    else:
        print(f"{report.pending} events wait in the outbox, {report.dead} were refused")


if __name__ == "__main__":
    asyncio.run(main())
