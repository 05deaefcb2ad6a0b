"""orchclient: the SDK inside an AI agent.

Every call records one event durably in a local outbox and returns; a background flusher delivers the outbox to an
orchestrator and to people. Names are loaded when they are first used, so that the import costs next to nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from orchclient.client import OrchestratorClient
    from orchclient.core.answers import Answer, Responder
    from orchclient.core.errors import (
        ConfigError,
        InvalidEvent,
        OrchClientError,
        OutboxBusy,
        OutboxError,
        OutboxFull,
        OutboxUnsafe,
        UnknownEvent,
    )
    from orchclient.core.events import NotificationPriority, Receipt, TaskStatus
    from orchclient.core.settled import Settled
    from orchclient.core.task_state import TaskState
    from orchclient.escalating import EscalationHandler
    from orchclient.handles import Clarification, Completion, Escalation, Review
    from orchclient.people import Message
    from orchclient.recovery import recovering
    from orchclient.reporting import FlushReport
    from orchclient.task import Task

_HOMES = {
    "OrchestratorClient": "orchclient.client",
    "TaskStatus": "orchclient.core.events",
    "NotificationPriority": "orchclient.core.events",
    "Receipt": "orchclient.core.events",
    "Settled": "orchclient.core.settled",
    "TaskState": "orchclient.core.task_state",
    "Task": "orchclient.task",
    "Clarification": "orchclient.handles",
    "Completion": "orchclient.handles",
    "Escalation": "orchclient.handles",
    "Review": "orchclient.handles",
    "Answer": "orchclient.core.answers",
    "Responder": "orchclient.core.answers",
    "Message": "orchclient.people",
    "EscalationHandler": "orchclient.escalating",
    "recovering": "orchclient.recovery",
    "FlushReport": "orchclient.reporting",
    "OrchClientError": "orchclient.core.errors",
    "InvalidEvent": "orchclient.core.errors",
    "ConfigError": "orchclient.core.errors",
    "OutboxError": "orchclient.core.errors",
    "OutboxFull": "orchclient.core.errors",
    "OutboxUnsafe": "orchclient.core.errors",
    "OutboxBusy": "orchclient.core.errors",
    "UnknownEvent": "orchclient.core.errors",
}

__all__ = [
    "Answer",
    "Clarification",
    "Completion",
    "ConfigError",
    "Escalation",
    "EscalationHandler",
    "FlushReport",
    "InvalidEvent",
    "Message",
    "NotificationPriority",
    "OrchClientError",
    "OrchestratorClient",
    "OutboxBusy",
    "OutboxError",
    "OutboxFull",
    "OutboxUnsafe",
    "Receipt",
    "Responder",
    "Review",
    "Settled",
    "Task",
    "TaskState",
    "TaskStatus",
    "UnknownEvent",
    "__version__",
    "recovering",
]

# The application decides where log records go.
logging.getLogger("orchclient").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchclient' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
