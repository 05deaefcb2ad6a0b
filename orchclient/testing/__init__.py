"""For tests of agents: an orchestrator double that misbehaves on demand."""

from orchclient.testing.faultplan import Fault
from orchclient.testing.receiver import Receiver, SeenRequest

__all__ = ["Fault", "Receiver", "SeenRequest"]
