"""What ``orchclient status --check`` finds: a line for each thing that somebody should look at. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import frozen

from orchclient.cli.output import age, plural, printable
from orchclient.reporting import OutboxReport, SinkReport


@frozen
class Thresholds:
    """From when on waiting is worth a finding: seconds of the oldest pending event, and a number of them."""

    max_age_s: float
    max_pending: int | None


@frozen
class Trouble:
    """One finding: a word for programs, the destination (empty: the outbox), and a line for people."""

    code: str
    destination: str
    message: str


def troubles(report: OutboxReport, thresholds: Thresholds, is_served: Callable[[str], bool]) -> list[Trouble]:
    """Everything that is wrong, destination by destination; ``is_served`` tells whether somebody delivers to one."""
    found = [each for sink in report.sinks for each in _of_sink(sink, thresholds, is_served)]
    if report.recorded and not report.sinks:
        message = f"{plural(report.recorded, 'event')} pending, and no destination was ever configured"
        found.append(Trouble("no_destination", "", message))
    if report.set_aside:
        found.append(Trouble("set_aside", "", f"{set_aside(report)}: see orchclient doctor"))
    return found


def set_aside(report: OutboxReport) -> str:
    """That files of this outbox were damaged, for people."""
    count = len(report.set_aside)
    return f"{plural(count, 'damaged file')} of this outbox {'was' if count == 1 else 'were'} set aside"


def _of_sink(sink: SinkReport, thresholds: Thresholds, is_served: Callable[[str], bool]) -> Iterator[Trouble]:
    def trouble(code: str, message: str) -> Trouble:
        return Trouble(code, sink.name, f"{sink.name}: {message}")

    if sink.state in ("paused", "disabled"):
        yield trouble(sink.state, f"{sink.state}: {printable(sink.reason)}")
    if sink.inbox and sink.inbox.state == "paused":
        yield trouble("inbox", f"inbox paused: {printable(sink.inbox.reason)}")
    if sink.dead:
        yield trouble("dead", plural(sink.dead, "dead letter"))
    is_due = sink.pending > sink.held  # what only waits for its turn is in no trouble
    if is_due and sink.oldest_age_s is not None and sink.oldest_age_s > thresholds.max_age_s:
        waits = f"{plural(sink.pending, 'event')} pending, the oldest for {age(sink.oldest_age_s)}"
        yield trouble("old", f"{waits}{_why(sink)}")
    if thresholds.max_pending is not None and sink.pending > thresholds.max_pending:
        yield trouble("many", f"{plural(sink.pending, 'event')} pending, more than {thresholds.max_pending}")
    if sink.pending and not is_served(sink.name):
        yield trouble("nobody", f"{plural(sink.pending, 'event')} pending, and nobody delivers")


def _why(sink: SinkReport) -> str:
    return f" ({sink.state}: {printable(sink.reason)})" if sink.state in ("waiting", "throttled") else ""
