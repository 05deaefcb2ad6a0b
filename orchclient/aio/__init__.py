"""The client for asyncio: the verbs of ``orchclient.OrchestratorClient``, awaitable.

from orchclient.aio import OrchestratorClient

async with OrchestratorClient("backend-agent") as client:
    await client.update_task_status("task-123", "in_progress", progress_percentage=45)
"""

from __future__ import annotations

from orchclient.aio.client import OrchestratorClient
from orchclient.aio.handles import Clarification, Completion, Escalation, Review
from orchclient.aio.task import Task
from orchclient.aio.transaction import Transaction

__all__ = ["Clarification", "Completion", "Escalation", "OrchestratorClient", "Review", "Task", "Transaction"]
