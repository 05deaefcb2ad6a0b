"""How fast a backlog drains through the client, beside a bare requests session and OpenTelemetry's log exporter.

The backlog is recorded once and copied for every round. The client gets it with no destination known, finds the sink
and drains it in batches of 500; the bare session posts bodies that were built before, in the same batches, to the same
sink: a blind one, in a process of its own, that counts and answers 202 with nothing in it. OpenTelemetry's OTLP
exporter (HTTP, protobuf) is handed as many log records with the same text in batches of 500, made before and in memory
only.

Exits with 1 when the client does not count every event as delivered, the sink got other bytes than from the bare
session, or an export failed. Without opentelemetry-exporter-otlp-proto-http installed that row is left out.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

import requests
from attrs import frozen
from blind_sink import Arrived, blind_sink, counted
from measure import Spread, event_texts, parser, report, rotated, tell, workspace

from orchclient import OrchestratorClient
from orchclient.core.envelope import batch_body

ROUNDS = 7
BATCH = 500
TASKS = 10
FLUSH_S = 600.0
HEADERS = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
BARE, CLIENT, OTEL = "requests.post, prebuilt bodies", "orchclient flush", "OpenTelemetry OTLPLogExporter"


@frozen
class Sample:
    """One drain: how long it took, the processor time of all threads of this side, and what the sink got."""

    seconds: float
    cpu_s: float
    arrived: Arrived
    is_complete: bool


def main() -> int:
    """Measure, print the table; 1 when anything did not arrive."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=100_000, help="how large the backlog is (default: 100000)")
    options = arguments.parse_args()
    events = min(options.events, 5_000) if options.quick else options.events
    with workspace(options.dir) as directory, blind_sink() as url:
        samples = _measured(directory, url, events)
        print(report(f"Draining {events:,} events", directory, _rows(samples, events)))
    return _judged(samples)


def _judged(samples: dict[str, list[Sample]]) -> int:
    expected = samples[BARE][0].arrived
    broken = [name for name, taken in samples.items() for each in taken if not each.is_complete]
    same = [each for name in (BARE, CLIENT) for each in samples[name]]
    other = [each.arrived for each in same if each.arrived != expected]
    for name in broken:
        tell(f"NOT ALL DELIVERED: {name}")
    for arrived in other:
        tell(f"OTHER BYTES: the sink got {arrived}, of the bare session {expected}")
    return 1 if broken or other else 0


# --- The backlog --------------------------------------------------------------------------------------------------


def _recorded(path: Path, events: int) -> Path:
    """An outbox with a backlog, closed."""
    with OrchestratorClient("bench", outbox=path, mode="offline") as client:
        for number in range(events):
            client.update_task_status(
                f"task-{number % TASKS}", "in_progress", {"file": "routes.py"}, number % 101, "Generating the routes"
            )
    return path


def _copied(source: Path, directory: Path) -> Path:
    """The same backlog in a file of its own, made by SQLite, readable by the owner only as an outbox must be."""
    directory.mkdir(mode=0o700)
    copy = directory / source.name
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(copy)) as other:
        original.backup(other)
    return copy


def _bodies(path: Path) -> list[bytes]:
    texts = [text.encode() for text in event_texts(path)]
    return [batch_body(texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)]


# --- The two ways to send it --------------------------------------------------------------------------------------


def _measured(directory: Path, url: str, events: int) -> dict[str, list[Sample]]:
    tell(f"recording {events:,} events")
    backlog = _recorded(directory / "outbox.db", events)
    bodies = _bodies(backlog)
    _warmed_up(directory / "warm-up", url)
    copies = [_copied(backlog, directory / f"round-{number}") for number in range(ROUNDS)]
    exported = _export_of(backlog)
    ways = {BARE: lambda copy: _bare(url, bodies), CLIENT: lambda copy: _drained(url, copy, events)}
    if exported is not None:
        ways[OTEL] = lambda copy: exported(url)
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for number, copy in enumerate(copies):
        tell(f"round {number + 1} of {ROUNDS}")
        for name in rotated(list(samples), number):
            samples[name].append(ways[name](copy))
    return samples


def _warmed_up(directory: Path, url: str) -> None:
    """The client imports requests when it first delivers; the other side did so before."""
    directory.mkdir(mode=0o700)
    _drained(url, _recorded(directory / "outbox.db", BATCH), BATCH)


def _bare(url: str, bodies: Sequence[bytes]) -> Sample:
    before = counted(url)
    with requests.Session() as session:
        session.trust_env = False  # the client does not look for .netrc and proxies either
        began = _Watch()
        for body in bodies:
            session.post(f"{url}/v1/events", data=body, headers=HEADERS, timeout=10).raise_for_status()
        seconds, cpu_s = began.elapsed()
    return Sample(seconds, cpu_s, counted(url).since(before), is_complete=True)


def _drained(url: str, outbox: Path, events: int) -> Sample:
    before = counted(url)
    with OrchestratorClient("bench", outbox=outbox, url=url, mode="online", background=False) as client:
        began = _Watch()
        done = client.flush(FLUSH_S)
        seconds, cpu_s = began.elapsed()
        counts = client.get_communication_stats()["delivery"]["orchestrator"]
    is_complete = bool(done) and (counts["delivered"], counts["pending"], counts["dead"]) == (events, 0, 0)
    return Sample(seconds, cpu_s, counted(url).since(before), is_complete)


def _export_of(backlog: Path) -> Callable[[str], Sample] | None:
    """Sends the backlog's texts as log records through OpenTelemetry's exporter; None where it is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import (
            InMemoryLogRecordExporter,
            LogRecordExportResult,
            SimpleLogRecordProcessor,
        )
    except ImportError:
        tell("opentelemetry-exporter-otlp-proto-http is not installed: its row is left out")
        return None
    kept, provider = InMemoryLogRecordExporter(), LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    logger = provider.get_logger("bench")
    for text in event_texts(backlog):
        logger.emit(body=text, attributes={"task": "task-1"})
    records = kept.get_finished_logs()
    batches = [records[first : first + BATCH] for first in range(0, len(records), BATCH)]

    def export(url: str) -> Sample:
        before = counted(url)
        exporter = OTLPLogExporter(endpoint=f"{url}/v1/logs", timeout=10)
        began = _Watch()
        results = [exporter.export(batch) for batch in batches]
        seconds, cpu_s = began.elapsed()
        exporter.shutdown()
        all_sent = all(result is LogRecordExportResult.SUCCESS for result in results)
        return Sample(seconds, cpu_s, counted(url).since(before), is_complete=all_sent)

    return export


class _Watch:
    """Wall and processor time since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def elapsed(self) -> tuple[float, float]:
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


def _rows(samples: dict[str, list[Sample]], events: int) -> list[dict[str, object]]:
    return [
        {
            "case": name,
            "seconds": f"{median(each.seconds for each in taken):.2f}",
            "events/s": f"{median(events / each.seconds for each in taken):,.0f}",
            "CPU µs/event": f"{median(each.cpu_s / events * 1e6 for each in taken):.1f}",
            "events/s of bare": Spread.of_ratios(
                [1 / each.seconds for each in taken], [1 / each.seconds for each in samples[BARE]]
            ),
            "requests": taken[0].arrived.requests,
            "MB": f"{taken[0].arrived.bytes / 1e6:.1f}",
            "all arrived": "yes" if all(_is_whole(name, each, samples[BARE][0]) for each in taken) else "NO",
        }
        for name, taken in samples.items()
    ]


def _is_whole(name: str, sample: Sample, bare: Sample) -> bool:
    if name == OTEL:  # another encoding, so other bytes
        return sample.is_complete and sample.arrived.requests == bare.arrived.requests
    return sample.is_complete and sample.arrived == bare.arrived


if __name__ == "__main__":
    sys.exit(main())
