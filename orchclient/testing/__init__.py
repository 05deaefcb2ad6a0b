"""For tests of agents: doubles of an orchestrator and of chat services that misbehave on demand; people who answer.

Names are loaded when they are first used: pytest imports this package at every start, for the plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchclient.testing.clock import ManualClock
    from orchclient.testing.expectations import Expectation
    from orchclient.testing.faultplan import Fault
    from orchclient.testing.items import WRONG_DIGEST
    from orchclient.testing.orchestrator import ACK_PATH, EVENTS_PATH, INBOX_PATH
    from orchclient.testing.receiver import Receiver, SeenRequest
    from orchclient.testing.recorded import Recorded
    from orchclient.testing.replay import Delivered, Replay
    from orchclient.testing.services import DiscordDouble, SlackApiDouble, SlackDouble, WebhookDouble

_HOMES = {
    "ACK_PATH": "orchclient.testing.orchestrator",
    "EVENTS_PATH": "orchclient.testing.orchestrator",
    "INBOX_PATH": "orchclient.testing.orchestrator",
    "WRONG_DIGEST": "orchclient.testing.items",
    "Delivered": "orchclient.testing.replay",
    "DiscordDouble": "orchclient.testing.services",
    "Expectation": "orchclient.testing.expectations",
    "Fault": "orchclient.testing.faultplan",
    "ManualClock": "orchclient.testing.clock",
    "Receiver": "orchclient.testing.receiver",
    "Recorded": "orchclient.testing.recorded",
    "Replay": "orchclient.testing.replay",
    "SeenRequest": "orchclient.testing.receiver",
    "SlackApiDouble": "orchclient.testing.services",
    "SlackDouble": "orchclient.testing.services",
    "WebhookDouble": "orchclient.testing.services",
}

__all__ = [
    "ACK_PATH",
    "EVENTS_PATH",
    "INBOX_PATH",
    "WRONG_DIGEST",
    "Delivered",
    "DiscordDouble",
    "Expectation",
    "Fault",
    "ManualClock",
    "Receiver",
    "Recorded",
    "Replay",
    "SeenRequest",
    "SlackApiDouble",
    "SlackDouble",
    "WebhookDouble",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'orchclient.testing' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
