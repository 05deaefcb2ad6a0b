"""What ``orchclient doctor`` says of delivery: who holds the -wal, who delivers, and what waits for what."""

from __future__ import annotations

from collections.abc import Iterator

from orchclient.cli.finding import Finding
from orchclient.cli.output import age, number, printable, size
from orchclient.delivery.clock import SystemClock
from orchclient.outbox.holders import is_stopped
from orchclient.reporting import OutboxReport, SinkReport


def wal(report: OutboxReport) -> Iterator[Finding]:
    """Readers that keep the -wal from shrinking, and processes that are stopped while others wait for them."""
    found = report.wal
    if found.bytes > found.limit:
        cure = "Let the readers named below end; the next commits then cut it." if found.held_by else ""
        yield Finding("problem", f"The -wal has grown to {size(found.bytes)}, its limit is {size(found.limit)}", cure)
    for holder in found.held_by:
        yield Finding("problem", f"{holder} the outbox", f"Let it go on, or end it: kill {holder.pid}")
    if not found.held_by and found.bytes <= found.limit:
        yield Finding("ok", f"Nobody holds the outbox for long; its -wal has {size(found.bytes)}")


def delivery(report: OutboxReport) -> Iterator[Finding]:
    """Each destination: counts, who delivers, its inbox."""
    for sink in report.sinks:
        yield from _counts(sink)
        yield from _leader(sink)
        yield from _inbox(sink)
    if report.unreadable_items:
        what = f"Items of the inbox that break their schema and count for nothing: {report.unreadable_items}"
        yield Finding("warning", what, "Tell whoever runs the orchestrator.", "inbox")


def _counts(sink: SinkReport) -> Iterator[Finding]:
    counts = (
        f"{sink.name}: {number(sink.delivered)} delivered, {number(sink.pending)} pending, {number(sink.dead)} dead"
    )
    if sink.state == "delivering":
        yield Finding("ok", counts, check="delivery")
    else:
        what = f"{counts}; {sink.state}: {sink.reason}"
        yield Finding("warning", what, "After mending it: orchclient flush", "delivery")
    if sink.dead:
        what = f"{sink.name}: {number(sink.dead)} dead events"
        yield Finding("warning", what, "Look: orchclient list --state dead", "delivery")


def _leader(sink: SinkReport) -> Iterator[Finding]:
    """The process that was elected, when it is there; the kernel lets go of the lock of one that died."""
    if not sink.is_served:
        if sink.pending:
            yield Finding("warning", f"{sink.name}: nobody delivers right now", "Run: orchclient flush", "leader")
        return
    holder = sink.holder or {}
    pid = holder.get("pid")
    since = age((SystemClock.now_us() - holder.get("since_us", 0)) / 1e6)
    who = printable(f"pid {pid} (agent {holder.get('agent')})")
    if isinstance(pid, int) and is_stopped(pid):
        what = f"{sink.name}: {who} delivers, and is stopped: others wait for it"
        yield Finding("problem", what, f"Let it go on: kill -CONT {pid}; or end it: kill {pid}", "leader")
    else:
        yield Finding("ok", f"{sink.name}: {who} delivers, for {since}", check="leader")


def _inbox(sink: SinkReport) -> Iterator[Finding]:
    if sink.inbox is None:
        return
    what = f"{sink.name}: inbox {sink.inbox.state}"
    if sink.inbox.state in ("polling", "absent"):
        yield Finding("ok", what, check="inbox")
    else:
        yield Finding("warning", f"{what}: {sink.inbox.reason}", "Answers wait meanwhile.", "inbox")
