"""Four processes that record into one outbox, each event synced, beside four that write to one SQLite file.

The raw side is what one writes first: a connection in each process, WAL, synchronous=FULL, and SQLite's own busy
timeout. Every process records as often as it can for the same time. Fair: the one that got fewest turns against the
one that got most. Exits with 1 when a file of ours holds another number of events than were acknowledged.

    python processes.py            # all; a process of it is started as: processes.py SIDE FILE SECONDS
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from attrs import frozen
from measure import Spread, parser, percentile, report, rotated, rows_in, tell, workspace

PROCESSES = 4
ROUNDS = 7
SECONDS = 2.0
WARM_UP = 700
BUSY_S = 5.0
RAW, OURS = "INSERT, FULL, busy timeout", "progress, full"
TEXT = json.dumps({"id": "x" * 36, "data": {"step": "Generating the routes", "metadata": {"file": "routes.py"}}}) * 3
END_S = 60.0


@frozen
class Sample:
    """What one run of one side gave."""

    waits_us: list[float]  # in order of size, of all processes
    turns: list[int]  # of each process
    failed: int
    is_whole: bool
    seconds: float

    @property
    def per_second(self) -> float:
        return len(self.waits_us) / self.seconds

    @property
    def fairness(self) -> float:
        return min(self.turns) / max(self.turns)


def main() -> int:
    """Measure and print the table; 1 when events of ours were lost or doubled."""
    options = parser(__doc__).parse_args()
    rounds, seconds = (1, 0.2) if options.quick else (ROUNDS, SECONDS)
    samples: dict[str, list[Sample]] = {RAW: [], OURS: []}
    with workspace(options.dir) as directory:
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for side in rotated(list(samples), number):
                samples[side].append(_measured(side, Path(mkdtemp(dir=directory)) / "outbox.db", seconds))
        print(report(f"Recording by {PROCESSES} processes", directory, [_row(side, samples) for side in samples]))
    return 0 if all(each.is_whole for each in samples[OURS]) else 1


def _measured(side: str, path: Path, seconds: float) -> Sample:
    if side == RAW:  # its file is made by one: SQLite's first switch to WAL does not wait for others, as ours does
        _, close, _ = _raw(str(path))
        close()
    with ExitStack() as running:
        command = [sys.executable, __file__, side, str(path), str(seconds)]
        processes = [
            running.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(PROCESSES)
        ]
        for each in processes:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        told = [json.loads(said) for said in _ended_together(processes)]
    acknowledged = sum(each["recorded"] for each in told)
    waits_us = sorted(wait for each in told for wait in each["waits_us"])
    turns, failed = [len(each["waits_us"]) for each in told], sum(each["failed"] for each in told)
    return Sample(waits_us, turns, failed, rows_in(path) == acknowledged, seconds)


def _ended_together(processes: list[subprocess.Popen[str]]) -> list[str]:
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    return [each.communicate(timeout=END_S)[0] for each in processes]


def _row(side: str, samples: dict[str, list[Sample]]) -> dict[str, object]:
    ours, raw = samples[side], samples[RAW]
    return {
        "case": side,
        "calls/s": f"{median(each.per_second for each in ours):,.0f}",
        "calls/s of raw": Spread.of_ratios([each.per_second for each in ours], [each.per_second for each in raw]),
        "p50 µs": f"{median(percentile(each.waits_us, 0.5) for each in ours):.0f}",
        "p99 ms": f"{median(percentile(each.waits_us, 0.99) for each in ours) / 1e3:.1f}",
        "worst ms": Spread.of(each.waits_us[-1] / 1e3 for each in ours),
        "fewest turns of most": Spread.of(each.fairness for each in ours),
        "gave up": sum(each.failed for each in ours),
        "rows = calls": "yes" if all(each.is_whole for each in ours) else "NO",
    }


# --- one process of a side ------------------------------------------------------------------------------------------


def _raw(path: str) -> tuple[Callable[[int], object], Callable[[], object], type[Exception]]:
    con = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
    con.execute("PRAGMA journal_mode=WAL")
    con.execute("PRAGMA synchronous=FULL")
    con.execute("CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, body TEXT)")
    return lambda _: con.execute("INSERT INTO events (body) VALUES (?)", (TEXT,)), con.close, sqlite3.Error


def _ours(path: str) -> tuple[Callable[[int], object], Callable[[], object], type[Exception]]:
    from orchclient import OrchestratorClient, OutboxError

    client = OrchestratorClient("bench", outbox=path, mode="offline", durability="full")

    def record(number: int) -> object:
        return client.update_task_status("task", "in_progress", {"file": "routes.py"}, number % 101, "Generating")

    return record, client.close, OutboxError


def one_process(side: str, path: str, seconds: float) -> None:
    """Record for so long, and say how long each call took."""
    record, close, error = {RAW: _raw, OURS: _ours}[side](path)
    recorded, failed, waits_us = 0, 0, list[float]()

    def call(number: int) -> float:
        nonlocal recorded, failed
        began = time.perf_counter()
        try:
            record(number)
            recorded += 1
        except error:
            failed += 1
        return (time.perf_counter() - began) * 1e6

    for number in range(WARM_UP):
        call(number)
    failed = 0
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        waits_us.append(call(len(waits_us)))
    close()
    print(json.dumps({"recorded": recorded, "failed": failed, "waits_us": waits_us}))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in (RAW, OURS):
        one_process(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(main())
