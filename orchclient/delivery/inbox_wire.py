"""How an inbox is asked: over HTTP by a dialect, or by a destination that can be called.

Knows neither the outbox nor when to ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from attrs import define, field, frozen

from orchclient.core.errors import ConfigError
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.policy import printable
from orchclient.core.polling import Heard
from orchclient.delivery.clock import Clock
from orchclient.delivery.courier import Cut
from orchclient.delivery.transport import Transport
from orchclient.sinks.sink import DirectInbox, InboxDialect, is_called


class InboxWire(Protocol):
    """What an inbox worker asks with. One thread asks; ``close`` may be called from any."""

    @property
    def longest_wait_s(self) -> float:
        """How long a poll is held at most."""

    def greet(self) -> bool:
        """Ask how long that is; whether there was an answer."""

    def poll(self, source: str, cursor: str, wait_s: float) -> Heard:
        """The items of an outbox (a UUID) behind a cursor. Raises ``Cut``."""

    def acknowledge(self, source: str, cursor: str) -> Heard:
        """Tell that everything up to the cursor is stored. Raises ``Cut``."""

    def close(self) -> None:
        """End what is asked now, and refuse later questions."""

    def forget_inherited(self) -> None:
        """In a forked child: leave the parent's connection as it is."""


def wire_of(
    inbox: InboxDialect | DirectInbox, make_transport: Callable[[], Transport], clock: Clock, deadline_s: float
) -> InboxWire:
    """The wire that fits an inbox."""
    if is_called(inbox):
        return Called(inbox)
    return OverHttp(cast(InboxDialect, inbox), make_transport(), clock, deadline_s)


@frozen
class OverHttp:
    """Requests out, answers in. ``deadline_s`` holds for each; how long a poll is held comes on top."""

    dialect: InboxDialect
    transport: Transport
    clock: Clock
    deadline_s: float = 10.0

    @property
    def longest_wait_s(self) -> float:
        """As the receiver said."""
        return self.dialect.longest_wait_s

    def greet(self) -> bool:
        """Ask for the capabilities."""
        outcome = self._answer(self.dialect.greeting, self.deadline_s)
        self.dialect.greeted(outcome)
        return isinstance(outcome, HttpReply)

    def poll(self, source: str, cursor: str, wait_s: float) -> Heard:
        """One request."""
        request = partial(self.dialect.poll, source, cursor, wait_s)
        return self.dialect.polled(self._answer(request, wait_s + self.deadline_s), self.clock.now_us())

    def acknowledge(self, source: str, cursor: str) -> Heard:
        """One request."""
        request = partial(self.dialect.acknowledgement, source, cursor)
        return self.dialect.acknowledged(self._answer(request, self.deadline_s), self.clock.now_us())

    def close(self) -> None:
        """Cut the connection."""
        self.transport.close()

    def forget_inherited(self) -> None:
        """A transport that is not ours has what its maker gave it."""
        forget = getattr(self.transport, "forget_inherited", None)
        if forget is not None:
            forget()

    def _answer(self, make_request: Callable[[], HttpRequest], deadline_s: float) -> HttpOutcome:
        try:
            request = make_request()
        except ConfigError as error:  # a token that cannot be had: it may be there at the next try
            return NoReply("settings", printable(str(error)))
        outcome = self.transport.send(request, deadline_s=deadline_s)
        if isinstance(outcome, NoReply) and outcome.reason == "closed":
            raise Cut
        return outcome


@define
class Called:
    """Calls in this process: a poll waits until the event is set that ``close`` sets."""

    inbox: DirectInbox
    _is_closed: threading.Event = field(factory=threading.Event)

    @property
    def longest_wait_s(self) -> float:
        """As the destination has it."""
        return self.inbox.longest_wait_s

    def greet(self) -> bool:
        """There is nothing to ask."""
        return True

    def poll(self, source: str, cursor: str, wait_s: float) -> Heard:
        """One call."""
        heard = self.inbox.page(source, cursor, wait_s, self._is_closed)
        if self._is_closed.is_set():
            raise Cut
        return heard

    def acknowledge(self, source: str, cursor: str) -> Heard:
        """One call."""
        if self._is_closed.is_set():
            raise Cut
        return self.inbox.acknowledge(source, cursor)

    def close(self) -> None:
        """End the wait under way."""
        self._is_closed.set()

    def forget_inherited(self) -> None:
        """A new event, that is set: a thread that is gone may hold the lock of the old one."""
        closed = threading.Event()
        closed.set()
        self._is_closed = closed
