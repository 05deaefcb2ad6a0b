"""Carrying a batch to one destination and bringing the verdict back, over HTTP or a wire of the destination's own.

Knows neither the outbox nor what follows from a verdict. A destination may be other people's code: what it raises is a
verdict too, and secrets are taken out of whatever it, or its receiver, says.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from attrs import frozen

from orchclient.core.batch import Batch
from orchclient.core.envelope import attributes_of
from orchclient.core.errors import ConfigError
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.policy import Action, Verdict, complete, printable, without_secrets
from orchclient.core.secret import Redact
from orchclient.delivery.clock import Clock
from orchclient.delivery.transport import Overlapping, Transport
from orchclient.sinks.sink import AnySink, Closed, DirectSink, Selective, Sink, is_direct

log = logging.getLogger("orchclient")

T = TypeVar("T")

Wire = Transport | DirectSink


def nothing() -> None:
    """There is nothing to do meanwhile."""


class Cut(Exception):
    """This process stopped in the middle of an exchange, which is nobody's failure."""


@frozen
class Carried:
    """What came of one attempt. ``status`` is None when there was no answer, or the wire is no HTTP."""

    verdict: Verdict
    status: int | None = None
    took_ms: float = 0.0
    sent_bytes: int = 0


class Courier(Protocol):
    """Goes between the flusher and one destination."""

    def greet(self) -> Carried | None:
        """Ask what the receiver takes; None when delivery may begin. Raises ``Cut``."""

    def chosen(self, bodies: Sequence[bytes]) -> Sequence[bool] | Carried:
        """Whether the destination takes each of these stored events; trouble when it cannot say."""

    def carry(self, batch: Batch, meanwhile: Callable[[], None] = nothing) -> Carried:
        """Deliver a batch; the verdict has a fate for each of its events when it settles. Raises ``Cut``.

        ``meanwhile`` is done once the batch is on its way, where the wire can tell when that is. It must not raise.
        """


def courier(sink: AnySink, wire: Wire, clock: Clock, deadline_s: float, redact: Redact) -> Courier:
    """The courier that fits a destination, with ``deadline_s`` seconds for each way."""
    if is_direct(sink):
        return _Guarded(_Direct(sink, clock, deadline_s, redact), sink, redact)
    transport = cast(Transport, wire)
    overlapping = transport if isinstance(transport, Overlapping) else None
    return _Guarded(_OverHttp(cast(Sink, sink), transport, overlapping, clock, deadline_s, redact), sink, redact)


class _Carrier(Protocol):
    def greet(self) -> Carried | None: ...

    def carry(self, batch: Batch, meanwhile: Callable[[], None]) -> Carried: ...


@frozen
class _OverHttp:
    sink: Sink
    transport: Transport
    overlapping: Overlapping | None  # the same, when it can tell that a request is on its way
    clock: Clock
    deadline_s: float
    redact: Redact

    def greet(self) -> Carried | None:
        outcome, _ = self._asked(self.sink.greeting)
        verdict = None if outcome is None else self.sink.greeted(outcome, self.clock.now_us())
        return None if outcome is None or verdict is None else self._told(verdict, outcome, 0)

    def carry(self, batch: Batch, meanwhile: Callable[[], None]) -> Carried:
        if self.overlapping is not None:
            self.overlapping.meanwhile = meanwhile
        try:
            outcome, sent_bytes = self._asked(lambda: self.sink.render(batch))
        finally:
            if self.overlapping is not None:
                self.overlapping.meanwhile = None
        assert outcome is not None  # a batch always has a request
        verdict = complete(self.sink.decide(batch, outcome, self.clock.now_us()), batch.ids)
        return self._told(verdict, outcome, sent_bytes)

    def _asked(self, make_request: Callable[[], HttpRequest | None]) -> tuple[HttpOutcome | None, int]:
        """The outcome of a request and its bytes; no outcome when there is nothing to ask."""
        try:
            request = make_request()
        except ConfigError as error:  # a token that cannot be had: it may be there at the next try
            return NoReply("settings", str(error)), 0
        if request is None:
            return None, 0
        outcome = self.transport.send(request, deadline_s=self.deadline_s)
        if isinstance(outcome, NoReply) and outcome.reason == "closed":
            raise Cut
        return outcome, len(request.body)

    def _told(self, verdict: Verdict, outcome: HttpOutcome, sent_bytes: int) -> Carried:
        status = outcome.status if isinstance(outcome, HttpReply) else None
        return Carried(without_secrets(verdict, self.redact), status, outcome.took_ms, sent_bytes)


@frozen
class _Direct:
    sink: DirectSink
    clock: Clock
    deadline_s: float
    redact: Redact

    def greet(self) -> Carried | None:
        return None

    def carry(self, batch: Batch, meanwhile: Callable[[], None]) -> Carried:
        began = self.clock.monotonic()
        try:
            said = self.sink.deliver(batch, deadline_s=self.deadline_s)
        except Closed:
            raise Cut from None
        verdict = complete(said, batch.ids)
        took_ms = (self.clock.monotonic() - began) * 1e3
        return Carried(without_secrets(verdict, self.redact), None, took_ms, batch.size)


class _Guarded:
    """What a destination's code raises is trouble of this destination: kept, told, and tried again."""

    def __init__(self, carrier: _Carrier, sink: AnySink, redact: Redact) -> None:
        self._courier = carrier
        self._sink = sink
        self._redact = redact
        self._has_raised = False

    def greet(self) -> Carried | None:
        return self._safely(self._courier.greet)

    def chosen(self, bodies: Sequence[bytes]) -> Sequence[bool] | Carried:
        sink = self._sink
        if not isinstance(sink, Selective):
            return [True] * len(bodies)
        return self._safely(lambda: [bool(sink.takes(attributes_of(body))) for body in bodies])

    def carry(self, batch: Batch, meanwhile: Callable[[], None] = nothing) -> Carried:
        return self._safely(lambda: self._courier.carry(batch, meanwhile))

    def _safely(self, go: Callable[[], T]) -> T | Carried:
        try:
            carried = go()
        except Cut:
            raise
        except Exception as error:  # noqa: BLE001  other people's code
            return self._raised(error)
        self._has_raised = False
        return carried

    def _raised(self, error: Exception) -> Carried:
        if not self._has_raised:  # once: the next attempts will say the same
            # As text: a handler that shows the locals of a traceback would print the headers among them.
            log.error("sink %s: its code raised\n%s", self._sink.name, self._redact(traceback.format_exc()))
        self._has_raised = True
        reason = printable(self._redact(f"the destination's code raised {type(error).__name__}: {error}"))
        return Carried(Verdict(Action.BACK_OFF, reason))
