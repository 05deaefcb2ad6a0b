"""What a record call costs, beside the raw SQLite statement that keeps the same promise on the same disk.

Four questions, each against its limit:
  a  a progress update (safe from kill -9 at once, from power loss within a second) against one INSERT with NORMAL,
     in a burst, while what is recorded is sent, and at one call a millisecond
  b  an event that is synced before the call returns against one INSERT with FULL
  c  1, 4 and 16 threads that sync every event against the same threads on one connection with a lock
  d  4 and 16 threads that sync none at once, against the same

What is synced is measured once both files have their size: as long as a -wal grows, each sync of it costs about as much
again, whoever writes it, and how long that goes on is a matter of when it is moved. processes.py asks more processes.
The raw side turns the same event into JSON and inserts the text into a table of two columns, nothing else.
Exits with 1 when a file holds another number of events than were acknowledged.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from threading import Barrier, Lock
from typing import Any

from attrs import evolve, frozen
from blind_sink import blind_sink
from measure import Spread, event_texts, parser, percentile, report, rotated, rows_in, tell, workspace

from orchclient import OrchestratorClient

ROUNDS = 7
WARM_UP = 20
GROWN = 3000
"""Calls after which neither side's -wal grows any more."""
THREADS = (1, 4, 16)
TASK = "bench-task"

Call = Callable[[int], object]
"""One call; the number makes each one differ."""

Record = Callable[[OrchestratorClient, int], object]
"""One call of a client."""


@frozen
class Load:
    """How many calls, by how many threads, and how long each thread rests after a call."""

    calls: int
    threads: int = 1
    pause_s: float = 0.0
    warm_up: int = WARM_UP


@frozen
class Sample:
    """What one run of a case gave."""

    ordered_ns: list[int]
    seconds: float
    rows: int
    warm_up: int

    @property
    def p50_us(self) -> float:
        return percentile(self.ordered_ns, 0.5) / 1e3

    @property
    def p99_us(self) -> float:
        return percentile(self.ordered_ns, 0.99) / 1e3

    @property
    def worst_ms(self) -> float:
        return self.ordered_ns[-1] / 1e6

    @property
    def per_second(self) -> float:
        return len(self.ordered_ns) / self.seconds

    @property
    def is_complete(self) -> bool:
        return self.rows == len(self.ordered_ns) + self.warm_up


@frozen
class Pair:
    """One question: the raw limit and ours, each of which measures itself in a fresh directory."""

    title: str
    sides: Mapping[str, Callable[[Path], Sample]]  # the raw one first


def main() -> int:
    """Measure, print the table; 1 when events were lost or doubled."""
    options = parser(__doc__).parse_args()
    with workspace(options.dir) as directory, blind_sink() as url:
        samples = _measured(_pairs(directory, url, shrink=10 if options.quick else 1), directory)
        rows = [row for title, sides in samples.items() for row in _rows(title, sides)]
        print(report("Recording", directory, rows))
    broken = [(title, name) for title, sides in samples.items() for name in sides if not _are_complete(sides[name])]
    for title, name in broken:
        tell(f"LOST OR DOUBLED: {title}, {name}: {[each.rows for each in samples[title][name]]} rows")
    return 1 if broken else 0


def _are_complete(taken: Sequence[Sample]) -> bool:
    return all(each.is_complete for each in taken)


# --- The questions ------------------------------------------------------------------------------------------------


def _pairs(directory: Path, url: str, shrink: int) -> list[Pair]:
    progress, error = _example(directory / "progress", _progress), _example(directory / "error", _error)
    burst, paced = Load(30_000 // shrink), Load(2_000 // shrink, pause_s=0.001)
    synced = Load(2_000 // shrink, warm_up=GROWN // shrink)
    return [
        _pair("a: progress, burst", burst, progress, _progress, "auto", "NORMAL"),
        _pair("a: progress, burst, being sent", burst, progress, _progress, "auto", "NORMAL", url),
        _pair("a: progress, 1 per ms", paced, progress, _progress, "auto", "NORMAL"),
        _pair("b: error, synced", synced, error, _error, "auto", "FULL"),
        *(
            _pair(f"c: progress, synced, threads: {count}", evolve(synced, threads=count), progress, _progress, "full")
            for count in THREADS
        ),
        *(
            _pair(f"d: progress, threads: {count}", evolve(burst, threads=count), progress, _progress, "auto", "NORMAL")
            for count in THREADS[1:]
        ),
    ]


def _pair(
    title: str,
    load: Load,
    event: dict[str, Any],
    record: Record,
    durability: str,
    synchronous: str = "FULL",
    url: str | None = None,
) -> Pair:
    return Pair(
        title,
        {
            f"INSERT, {synchronous}": lambda place: _raw(place, load, event, synchronous),
            f"{record.__name__.strip('_')}, {durability}": lambda place: _ours(place, load, record, durability, url),
        },
    )


def _progress(client: OrchestratorClient, number: int) -> object:
    return client.update_task_status(TASK, "in_progress", {"file": "routes.py"}, number % 101, "Generating the routes")


def _error(client: OrchestratorClient, number: int) -> object:
    context = {"file": "routes.py", "number": number}
    return client.escalate_error(TASK, "build_failure", "The build failed", 1, context, fatal=False)


def _example(directory: Path, record: Record) -> dict[str, Any]:
    """The event that a call of ours records, as the raw side gets it."""
    path = directory / "outbox.db"
    with OrchestratorClient("bench", outbox=path, mode="offline", background=False) as client:
        record(client, 50)
    event: dict[str, Any] = json.loads(event_texts(path)[0])
    return event


# --- The two sides ------------------------------------------------------------------------------------------------


def _raw(directory: Path, load: Load, event: dict[str, Any], synchronous: str) -> Sample:
    path, lock = directory / "raw.db", Lock()
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as con:
        con.execute("PRAGMA journal_mode=WAL")
        con.execute(f"PRAGMA synchronous={synchronous}")
        con.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT)")

        def insert(number: int) -> None:
            text = json.dumps(event | {"sequence": f"{number:020d}"})
            con.execute("INSERT INTO events (body) VALUES (?)", (text,))

        def insert_locked(number: int) -> None:
            text = json.dumps(event | {"sequence": f"{number:020d}"})
            with lock:
                con.execute("INSERT INTO events (body) VALUES (?)", (text,))

        ordered_ns, seconds = _timed(insert if load.threads == 1 else insert_locked, load)
    return Sample(ordered_ns, seconds, rows_in(path), load.warm_up)


def _ours(directory: Path, load: Load, record: Record, durability: str, url: str | None) -> Sample:
    path, mode = directory / "outbox.db", "online" if url else "offline"
    with OrchestratorClient("bench", outbox=path, url=url, mode=mode, durability=durability, heartbeat="off") as client:
        ordered_ns, seconds = _timed(lambda number: record(client, number), load)
    return Sample(ordered_ns, seconds, rows_in(path), load.warm_up)


def _timed(call: Call, load: Load) -> tuple[list[int], float]:
    """The time of every call, in order of size, and of all together; the calls are shared out among the threads."""
    for number in range(load.warm_up):
        call(number)
    started = Barrier(load.threads + 1)

    def work(mine: range) -> list[int]:
        started.wait()
        return _each(call, mine, load.pause_s)

    with ThreadPoolExecutor(load.threads) as pool:
        futures = [pool.submit(work, range(first, load.calls, load.threads)) for first in range(load.threads)]
        started.wait()
        began = time.perf_counter()
        taken = [each for future in futures for each in future.result()]
        seconds = time.perf_counter() - began
    return sorted(taken), seconds


def _each(call: Call, numbers: range, pause_s: float) -> list[int]:
    clock, taken = time.perf_counter_ns, []
    for number in numbers:
        began = clock()
        call(number)
        taken.append(clock() - began)
        if pause_s:
            time.sleep(pause_s)
    return taken


# --- Rounds and rows ----------------------------------------------------------------------------------------------


def _measured(pairs: Sequence[Pair], directory: Path) -> dict[str, dict[str, list[Sample]]]:
    """Every side once a round, by question: these rotate, and inside each the two sides take turns in being first."""
    samples: dict[str, dict[str, list[Sample]]] = {pair.title: {name: [] for name in pair.sides} for pair in pairs}
    for number in range(ROUNDS):
        tell(f"round {number + 1} of {ROUNDS}")
        for pair in rotated(pairs, number):
            for name in rotated(list(pair.sides), number):
                place = Path(mkdtemp(dir=directory))
                samples[pair.title][name].append(pair.sides[name](place))
    return samples


def _rows(title: str, sides: Mapping[str, Sequence[Sample]]) -> list[dict[str, object]]:
    raw = next(iter(sides.values()))
    return [_row(title, name, taken, raw) for name, taken in sides.items()]


def _row(title: str, name: str, ours: Sequence[Sample], raw: Sequence[Sample]) -> dict[str, object]:
    return {
        "question": title,
        "case": name,
        "p50 µs": f"{median(each.p50_us for each in ours):.1f}",
        "p99 µs": f"{median(each.p99_us for each in ours):.0f}",
        "worst ms": f"{max(each.worst_ms for each in ours):.1f}",
        "calls/s": f"{median(each.per_second for each in ours):,.0f}",
        "p50 of raw": Spread.of_ratios([each.p50_us for each in ours], [each.p50_us for each in raw]),
        "p99 of raw": Spread.of_ratios([each.p99_us for each in ours], [each.p99_us for each in raw]),
        "calls/s of raw": Spread.of_ratios([each.per_second for each in ours], [each.per_second for each in raw]),
        "rows = calls": "yes" if _are_complete(ours) else "NO",
    }


if __name__ == "__main__":
    sys.exit(main())
