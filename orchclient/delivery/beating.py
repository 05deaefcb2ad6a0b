"""Telling orchestrators now and then that the agent lives, and how its outbox stands."""

from __future__ import annotations

from collections.abc import Collection

from orchclient.core.heartbeat import is_working
from orchclient.core.ids import uuid7
from orchclient.delivery.clock import Clock
from orchclient.outbox import heartbeats
from orchclient.outbox.heartbeats import Occasion
from orchclient.outbox.outbox import Outbox


class Beating:
    """One process's heartbeats, in the name of its agent. Several may look after one outbox: the first one beats."""

    def __init__(self, outbox: Outbox, clock: Clock, agent: str, every_s: float) -> None:
        self.every_s = every_s
        self._outbox = outbox
        self._clock = clock
        self._agent = agent

    def beat(self, sinks: Collection[str]) -> bool:
        """Record a heartbeat for these destinations if one is due; whether it was.

        It survives the death of the process; power loss from the late sync on that any delivery has.
        """
        works = is_working(self._outbox.last_statuses)
        occasion, now_us = Occasion(self._agent, sinks, int(self.every_s * 1e6), works), self._clock.now_us()
        if not sinks or self._outbox.query(lambda con: heartbeats.due(con, occasion, now_us)) is None:
            return False
        event_id = uuid7(now_us // 1000, self._clock.randomness())
        return self._outbox.write(lambda con: heartbeats.record(con, occasion, event_id, now_us))
