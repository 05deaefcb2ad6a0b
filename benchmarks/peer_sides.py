"""The sides of ``peers.py``: each library as its documentation has it used, given the same event, one process each.

    python peer_sides.py NAME URL DIRECTORY EVENTS

prints one JSON object: seconds of all puts, seconds until everything was sent, and microseconds of a put (median).
Queues in memory are made large enough for the burst, which their defaults are not.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from counting_sink import mark

ROOM = 300_000
DRAIN_S = 120.0
TASKS = 10
STEP = "Generating the routes"


@frozen
class Side:
    """How one library takes an event, and how it is told to send what it has."""

    put: Callable[[int], object]
    drain: Callable[[], object] = lambda: None


Made = Callable[[str, Path], Side]


def said(number: int) -> dict[str, Any]:
    """What every side tells."""
    progress = number % 101
    return {"task": f"task-{number % TASKS}", "status": "in_progress", "progress": progress, "mark": mark(number)}


# --- with a sender --------------------------------------------------------------------------------------------------


def orchclient_auto(url: str, directory: Path) -> Side:
    """Progress updates, synced within a second."""
    return _orchclient(url, directory, "auto")


def orchclient_full(url: str, directory: Path) -> Side:
    """The same, each synced before the call returns."""
    return _orchclient(url, directory, "full")


def _orchclient(url: str, directory: Path, durability: str) -> Side:
    from orchclient import OrchestratorClient

    client = OrchestratorClient("bench", outbox=directory / "outbox.db", url=url, durability=durability)

    def put(number: int) -> None:
        known = said(number)
        client.update_task_status(known["task"], known["status"], {"mark": known["mark"]}, known["progress"], STEP)

    def drain() -> None:
        assert client.flush(DRAIN_S)

    return Side(put, drain)


def posthog(url: str, directory: Path) -> Side:
    """``capture``."""
    from posthog import Posthog

    client = Posthog("key", host=url, max_queue_size=ROOM)
    return Side(
        lambda n: client.capture("progress", distinct_id="bench", properties=said(n)), lambda: client.flush(DRAIN_S)
    )


def segment(url: str, directory: Path) -> Side:
    """``track``."""
    from segment.analytics.client import Client

    client = Client("key", host=url, max_queue_size=ROOM)
    return Side(lambda n: client.track("bench", "progress", said(n)), client.flush)


def snowplow(url: str, directory: Path) -> Side:
    """``track`` of the asynchronous emitter."""
    from snowplow_tracker import AsyncEmitter, SelfDescribing, SelfDescribingJson, Tracker

    place = urlsplit(url)
    emitter = AsyncEmitter(str(place.hostname), protocol="http", port=place.port, buffer_capacity=ROOM)
    tracker = Tracker("bench", emitter, encode_base64=False)
    schema = "iglu:dev.orchclient/progress/jsonschema/1-0-0"
    return Side(lambda n: tracker.track(SelfDescribing(SelfDescribingJson(schema, said(n)))), emitter.sync_flush)


def sentry(url: str, directory: Path) -> Side:
    """``capture_event``, one request for each."""
    import sentry_sdk

    dsn = url.replace("http://", "http://key@") + "/1"
    sentry_sdk.init(dsn=dsn, transport_queue_size=ROOM, default_integrations=False)
    return Side(
        lambda n: sentry_sdk.capture_event({"message": "progress", "extra": said(n)}),
        lambda: sentry_sdk.flush(DRAIN_S),
    )


def opentelemetry(url: str, directory: Path) -> Side:
    """``emit`` of a log record, with the batch processor."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider()
    exporter = OTLPLogExporter(endpoint=f"{url}/v1/logs")
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=ROOM))
    logger = provider.get_logger("bench")
    return Side(lambda n: logger.emit(body=STEP, attributes=said(n)), lambda: provider.force_flush(int(DRAIN_S * 1000)))


# --- queues on the disk, without a sender ---------------------------------------------------------------------------


def persist_queue(url: str, directory: Path) -> Side:
    """``SQLiteAckQueue.put``."""
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(directory / "queue"), auto_commit=True)
    return Side(lambda n: queue.put(said(n)))


def litequeue(url: str, directory: Path) -> Side:
    """``LiteQueue.put``."""
    from litequeue import LiteQueue

    queue = LiteQueue(str(directory / "queue.db"))
    return Side(lambda n: queue.put(json.dumps(said(n))))


def huey(url: str, directory: Path) -> Side:
    """A task put into ``SqliteHuey``."""
    from huey import SqliteHuey

    queue = SqliteHuey("bench", filename=str(directory / "huey.db"))

    def deliver(event: dict[str, Any]) -> None:
        """What a worker would do."""

    task = queue.task()(deliver)
    return Side(lambda n: task(said(n)))


SENDERS: dict[str, tuple[Made, str]] = {
    "orchclient, auto": (orchclient_auto, ""),
    "orchclient, full": (orchclient_full, ""),
    "posthog capture": (posthog, "posthog"),
    "segment track": (segment, "segment-analytics-python"),
    "snowplow AsyncEmitter": (snowplow, "snowplow-tracker"),
    "sentry capture_event": (sentry, "sentry-sdk"),
    "OpenTelemetry logs": (opentelemetry, "opentelemetry-exporter-otlp-proto-http"),
}
QUEUES: dict[str, tuple[Made, str]] = {
    "persist-queue SQLiteAckQueue": (persist_queue, "persist-queue"),
    "litequeue": (litequeue, "litequeue"),
    "huey SqliteHuey": (huey, "huey"),
}
SIDES = SENDERS | QUEUES


def version_of(name: str) -> str:
    """The version of the library of a side."""
    return version(SIDES[name][1] or "orchclient") if SIDES[name][1] else ""


def main(name: str, url: str, directory: Path, events: int) -> None:
    """Put all events, as fast as it goes, then wait until they are sent."""
    logging.disable(logging.CRITICAL)
    side = SIDES[name][0](url, directory)
    taken, clock = [], time.perf_counter_ns
    began = clock()
    for number in range(events):
        before = clock()
        side.put(number)
        taken.append(clock() - before)
    put = clock()
    side.drain()
    done = clock()
    print(json.dumps({"put_s": (put - began) / 1e9, "wall_s": (done - began) / 1e9, "p50_us": median(taken) / 1e3}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
