"""For tests of agents: doubles of an orchestrator and of chat services that misbehave on demand; people who answer."""

from orchclient.testing.faultplan import Fault
from orchclient.testing.items import WRONG_DIGEST
from orchclient.testing.orchestrator import ACK_PATH, EVENTS_PATH, INBOX_PATH
from orchclient.testing.receiver import Receiver, SeenRequest
from orchclient.testing.services import DiscordDouble, SlackApiDouble, SlackDouble, WebhookDouble

__all__ = [
    "ACK_PATH",
    "EVENTS_PATH",
    "INBOX_PATH",
    "WRONG_DIGEST",
    "DiscordDouble",
    "Fault",
    "Receiver",
    "SeenRequest",
    "SlackApiDouble",
    "SlackDouble",
    "WebhookDouble",
]
