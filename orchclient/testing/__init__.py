"""For tests of agents: an orchestrator double that misbehaves on demand, and people who answer."""

from orchclient.testing.faultplan import Fault
from orchclient.testing.items import WRONG_DIGEST
from orchclient.testing.orchestrator import ACK_PATH, EVENTS_PATH, INBOX_PATH
from orchclient.testing.receiver import Receiver, SeenRequest

__all__ = ["ACK_PATH", "EVENTS_PATH", "INBOX_PATH", "WRONG_DIGEST", "Fault", "Receiver", "SeenRequest"]
