"""What is told to an agent that asked: the fate of one event at one destination, after it was settled."""

from __future__ import annotations

from attrs import frozen


@frozen
class Settled:
    """An event that a destination has got, or will not get.

    ``reason`` is empty for a delivered event, and for a dead letter what the receiver said (printable, cut at 200
    characters). ``settled_us`` is in UTC microseconds.
    """

    destination: str
    event_id: str
    seq: int
    task_id: str
    type: str
    settled_us: int
    is_dead: bool = False
    reason: str = ""
