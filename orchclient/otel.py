"""What ``health()`` says as OpenTelemetry metrics: instruments that are read when the agent's own reader collects.

Extra ``otel``. No thread, no exporter, no state of the outbox: only a way to be asked. Trace context needs none of
this, see ``tracing``. Names and units follow OpenTelemetry's semantic conventions (general, 1.30): what can fall is an
up-down counter, a state is one series for each that there is, 1 for the current one.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attrs import frozen

from orchclient.client import OrchestratorClient
from orchclient.core.errors import ConfigError, OutboxError
from orchclient.outbox.cursors import SinkState
from orchclient.reporting import OutboxReport

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

log = logging.getLogger("orchclient")

SAME_LOOK_S = 1.0
"""Instruments that are read together are read off one look at the outbox."""

DESTINATION = "orchclient.destination.name"
STATE = "orchclient.destination.state"

Point = tuple[float, dict[str, str]]


@frozen
class _Instrument:
    kind: str  # the method of a meter that makes it
    name: str
    unit: str
    description: str
    points: Callable[[OutboxReport], Iterator[Point]]


def observe(client: OrchestratorClient, meter: Meter | None = None) -> None:
    """Register the metrics of a client's outbox and destinations; they are read until the client is closed.

    One client a process is enough: what it reports is the outbox, whichever process recorded or delivers.

    :param meter: default the global provider's, named ``orchclient``.

    Raises ``ConfigError`` when OpenTelemetry is not installed.
    """
    observation, meter = _opentelemetry(meter)
    looks = _Looks(client)
    for each in INSTRUMENTS:
        make: Callable[..., Any] = getattr(meter, f"create_observable_{each.kind}")
        make(each.name, [_callback(each, looks, observation)], unit=each.unit, description=each.description)


def _opentelemetry(meter: Meter | None) -> tuple[type[Observation], Meter]:
    try:
        from opentelemetry.metrics import Observation, get_meter
    except ImportError as error:
        raise ConfigError("OpenTelemetry is not installed: pip install 'orchclient[otel]'") from error
    from orchclient import __version__

    return Observation, meter or get_meter("orchclient", __version__)


def _callback(
    instrument: _Instrument, looks: _Looks, observation: type[Observation]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(options: CallbackOptions) -> Iterable[Observation]:
        report = looks.look_for(instrument.name)
        if report is None:
            return []
        return [observation(value, attributes) for value, attributes in instrument.points(report)]

    return read


class _Looks:
    """One look at the outbox for all instruments of a collection; no instrument sees the same one twice.

    Holds the client weakly: a meter keeps its callbacks for ever.
    """

    def __init__(self, client: OrchestratorClient) -> None:
        self._client = weakref.ref(client)
        self._lock = threading.Lock()
        self._report: OutboxReport | None = None
        self._at_s = 0.0
        self._readers: set[str] = set()

    def look_for(self, reader: str) -> OutboxReport | None:
        """The outbox now; None when the client is gone or closed, or the file cannot be read."""
        with self._lock:
            now_s = time.monotonic()
            if self._report is None or reader in self._readers or now_s - self._at_s > SAME_LOOK_S:
                self._report, self._at_s, self._readers = self._health(), now_s, set()
            self._readers.add(reader)
            return self._report

    def _health(self) -> OutboxReport | None:
        client = self._client()
        try:
            return client.health() if client is not None else None
        except OutboxError as error:
            log.debug("no metrics: %s", error)
            return None


def _of_each(field: str) -> Callable[[OutboxReport], Iterator[Point]]:
    """A point for each destination."""

    def points(report: OutboxReport) -> Iterator[Point]:
        for sink in report.sinks:
            yield getattr(sink, field), {DESTINATION: sink.name}

    return points


def _oldest_age(report: OutboxReport) -> Iterator[Point]:
    for sink in report.sinks:
        yield sink.oldest_age_s or 0.0, {DESTINATION: sink.name}


def _served(report: OutboxReport) -> Iterator[Point]:
    for sink in report.sinks:
        yield int(sink.is_served), {DESTINATION: sink.name}


def _states(report: OutboxReport) -> Iterator[Point]:
    for sink in report.sinks:
        for state in SinkState:
            yield int(sink.state == state.value), {DESTINATION: sink.name, STATE: state.value}


def _recorded(report: OutboxReport) -> Iterator[Point]:
    yield report.recorded, {}


def _wal_bytes(report: OutboxReport) -> Iterator[Point]:
    yield report.wal.bytes, {}


_DESTINATION = "orchclient.destination."
INSTRUMENTS = (
    _Instrument("counter", "orchclient.outbox.recorded", "{event}", "Events recorded.", _recorded),
    _Instrument("up_down_counter", "orchclient.outbox.wal.size", "By", "Size of the outbox's -wal file.", _wal_bytes),
    _Instrument(
        "up_down_counter", _DESTINATION + "pending", "{event}", "Events still to be delivered.", _of_each("pending")
    ),
    _Instrument(
        # Not a counter: what an operator sends again is pending once more.
        "up_down_counter",
        _DESTINATION + "delivered",
        "{event}",
        "Events delivered.",
        _of_each("delivered"),
    ),
    _Instrument("up_down_counter", _DESTINATION + "dead", "{event}", "Dead letters.", _of_each("dead")),
    _Instrument(
        "up_down_counter", _DESTINATION + "expired", "{event}", "Events that will not come.", _of_each("expired")
    ),
    _Instrument("gauge", _DESTINATION + "oldest_age", "s", "Age of the oldest pending event, 0 without.", _oldest_age),
    _Instrument("up_down_counter", _DESTINATION + "status", "1", "1 for the current state, else 0.", _states),
    _Instrument("up_down_counter", _DESTINATION + "served", "1", "1 while a process delivers to it, else 0.", _served),
)
