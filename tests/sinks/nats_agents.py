"""Agents in processes of their own that deliver to NATS, and die while they do."""

from __future__ import annotations

from typing import Any

from orchclient.sinks.nats import NatsSink, access_of
from tests.sinks import lives
from tests.sinks.lives import DiesAt, SaysSoTooEarly, record_and_deliver


def sink_of(url: str, **more: Any) -> NatsSink:
    return NatsSink(access_of("test", url), **more)


class Fatal(DiesAt, NatsSink):
    def __init__(self, url: str, at: int, *, after: bool) -> None:
        super().__init__(access_of("test", url))
        self.dies_at, self.after = at, after


class Early(SaysSoTooEarly, NatsSink):
    lies_at = 2


def killed(outbox: str, url: str, at: int, after: bool) -> None:
    record_and_deliver(outbox, Fatal(url, at, after=after), 30)


def too_early(outbox: str, url: str) -> None:
    record_and_deliver(outbox, Early(access_of("test", url)), 30)


def whole(outbox: str, url: str, events: int) -> None:
    record_and_deliver(outbox, sink_of(url), events)


def forking(outbox: str, url: str) -> None:
    lives.heir(outbox, sink_of(url))
