"""Whether a call costs the same with ten stored events and with ten million.

One outbox for each number of events, filled through orchclient's own journal, all in one directory. Every round
measures each question in each outbox, in rotating order; a ratio is the median in an outbox over the median in the
smallest one of the same round. The first questions are an agent's, then the flusher's, the rest are an operator's.

Then: what `orchclient status` takes beyond a bare Python, and how much more memory a process needs that delivers with a
million events pending, to a receiver that never answers, than one with none.

Exits with 1 when an outbox holds another number of events than were put in.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from typing import Any
from zlib import crc32

from attrs import define, field
from measure import Spread, parser, report, rotated, rows_in, table, tell, workspace

from orchclient import OrchestratorClient
from orchclient.core.batching import BatchLimit
from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event
from orchclient.core.http import HttpReply, HttpRequest
from orchclient.core.ids import uuid7
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.worker import Worker
from orchclient.outbox import cursors, desk, folding, journal, leadership, listing
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.testing import Fault, Receiver

SIZES = (10, 1_000, 100_000, 1_000_000, 10_000_000)
QUICK_SIZES = (10, 1_000, 10_000)
ROUNDS = 15
FLAT = 1.2
AT_ONCE = 50_000
"""Events in one transaction of filling; the -wal is moved after each."""

START_US = 1_700_000_000_000_000
TASKS = 500
BATCH = 5
"""Events in a batch: the smallest outbox has to give one, too."""

SHOW = "show, any event by its id"
SINK = "orchestrator"
SETTINGS: dict[str, Any] = {
    "mode": "offline",
    "max_pending": 10**9,
    "max_outbox_bytes": 2**40,
}


def main() -> int:
    """Fill, measure, print the tables; 1 when events were lost or doubled."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=SIZES[-1], help="the largest outbox (default: ten million)")
    arguments.add_argument("--memory-of", type=Path, help="internal: the program whose memory is measured")
    arguments.add_argument("--url", default="", help="internal")
    options = arguments.parse_args()
    if options.memory_of:
        return _deliver(options.memory_of, options.url)
    sizes = [size for size in (QUICK_SIZES if options.quick else SIZES) if size <= options.events]
    rounds = 3 if options.quick else ROUNDS
    with workspace(options.dir) as directory:
        stores = [Stored.filled(directory / str(size), size) for size in sizes]
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for store in rotated(stores, number):
                _measure(store)
        print(report("Scale", directory, [_row(name, stores) for name in stores[0].taken_us]))
        print(table(_status_rows(stores, rounds)), end="\n\n")
        print(table([_memory_row(directory, min(sizes[-1], 1_000_000))]), end="\n\n")
        broken = [store for store in stores if rows_in(store.path) != store.expected]
    for store in broken:
        tell(f"LOST OR DOUBLED: {store.size:,} events: not {store.expected:,} rows")
    return 1 if broken else 0


# --- What is stored -----------------------------------------------------------------------------------------------


@define
class Stored:
    """One outbox, how many events it must hold, and what was measured in it: medians in microseconds, by question."""

    path: Path
    size: int
    expected: int
    taken_us: dict[str, list[float]] = field(factory=lambda: defaultdict(list))

    @classmethod
    def filled(cls, directory: Path, size: int) -> Stored:
        """Fill an outbox: delivered up to its middle, two dead letters, the rest pending."""
        began, path = time.perf_counter(), directory / "outbox.db"
        with opened(path) as client:
            outbox = _outbox(client)
            events = map(_event, range(1, size + 1))
            while rows := list(islice(events, AT_ONCE)):
                outbox.write(lambda con, rows=rows: con.executemany(journal._INSERT, rows))
                outbox._checkpoint(wait=True)
            outbox.write(lambda con: _settled(con, size))
        tell(f"{size:,} events in {time.perf_counter() - began:.0f} s, {path.stat().st_size / 1e6:,.0f} MB")
        return cls(path, size, size)


@contextmanager
def opened(path: Path, *, background: bool = False) -> Iterator[OrchestratorClient]:
    """A client that sends nothing and keeps no thread, so that nothing else runs."""
    with OrchestratorClient("bench", outbox=path, background=background, **SETTINGS) as client:
        yield client


def _outbox(client: OrchestratorClient) -> Outbox:
    outbox: Outbox = client._station._outbox  # type: ignore[union-attr]
    return outbox


def _event(seq: int) -> Event:
    """A short status update, one a millisecond."""
    at_us, task = START_US + seq * 1000, f"task-{seq % TASKS}"
    id_ = _id(seq)
    members = f',"status":"in_progress","progress_percentage":{seq % 101}'
    body = body_text(id_, "task.status.v1", lane_of(task, "bench"), "low", at_us, members)
    return Event(id_, task, "bench", "task.status.v1", "low", at_us, crc32(body.encode()), body)


def _id(seq: int) -> str:
    return uuid7((START_US + seq * 1000) // 1000, seq.to_bytes(10))


def _settled(con: sqlite3.Connection, size: int) -> None:
    """As if delivery had come to the middle, with the first two events dead; and everything is folded."""
    cursors.add_sink(con, SINK, SINK, "", START_US, from_beginning=True)
    con.execute("UPDATE sinks SET cursor = ?", (size // 2,))
    for entry in list(journal.read_range(con, 0, 2)):
        desk.bury(con, SINK, entry.seq, entry.task, 1, "refused", START_US)
    con.execute("UPDATE meta SET value = ? WHERE key = 'folded_seq'", (size,))
    con.execute("INSERT INTO tallies VALUES ('bench', 'task.status.v1', ?, ?)", (size, START_US + size * 1000))


# --- What is asked ------------------------------------------------------------------------------------------------


def _measure(store: Stored) -> None:
    """Every question once, in a fresh client; the small outboxes are put back afterwards, so that they stay small."""
    path = store.path
    if is_small := store.size <= 1000:
        path = Path(shutil.copy(store.path, store.path.with_name("copy.db")))
    note = store.taken_us
    note["open"].append(
        _median_us(lambda: OrchestratorClient("bench", outbox=path, **SETTINGS), 15, lambda c: c.close())
    )
    recorded = _recorded(path, note)
    with opened(path) as client:
        outbox = _outbox(client)
        _turns(outbox, note, store.size)
        seqs = Random(7)  # the same in every outbox, as far as it has them
        outbox._fold(outbox.query(folding.behind) or 1)  # what was recorded a moment ago
        for name, ask in _questions(client, outbox, lambda: seqs.randint(1, store.size)).items():
            note[name].append(_median_us(ask, 30))
    if is_small:
        assert rows_in(path) == store.expected + recorded, "events were lost"
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    else:
        store.expected += recorded


def _median_us(call: Callable[[], Any], times: int, after: Callable[[Any], object] = lambda _: None) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter_ns()
        result = call()
        taken.append(time.perf_counter_ns() - began)
        after(result)
    return median(taken) / 1e3


PROGRESS, SYNCED = 200, 40


def _recorded(path: Path, note: dict[str, list[float]]) -> int:
    """Record as an agent does, with a housekeeper in the background; how many events."""
    with opened(path, background=True) as client:
        client.update_task_status("task-1", "in_progress")  # starts the thread
        calls = iter(range(10**6))
        note["record progress, auto"].append(
            _median_us(lambda: client.update_task_status("task-1", "in_progress", None, next(calls) % 101), PROGRESS)
        )
        note["record an error, full"].append(
            _median_us(lambda: client.escalate_error("task-1", "build", "failed", fatal=False), SYNCED)
        )
    return 1 + PROGRESS + SYNCED


class Stopwatch:
    """A transport whose receiver takes everything; it notes when it was asked."""

    def __init__(self) -> None:
        self.asked_ns = 0

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply:
        """Everything was accepted."""
        self.asked_ns = time.perf_counter_ns()
        return HttpReply(200)

    def close(self) -> None:
        """Nothing to close."""


class Renderer:
    """A sink that sends nothing, so that only the outbox is measured."""

    name = kind = SINK
    target = ""
    from_beginning = True
    checks_sequence = True

    def greeting(self) -> None:
        """No question first."""

    def greeted(self, outcome: object, now_us: int) -> None:
        """Never asked."""

    def limit(self) -> BatchLimit:
        """Small batches."""
        return BatchLimit(BATCH, max_events=BATCH)

    def render(self, batch: Any) -> HttpRequest:
        """The texts are ready; what a dialect makes of them is the same at any size."""
        return HttpRequest("POST", "http://127.0.0.1:9/")

    def decide(self, batch: Any, outcome: object, now_us: int) -> Any:
        """All accepted."""
        from orchclient.core.policy import decide

        return decide(HttpReply(200), batch.ids, now_us)


def _turns(outbox: Outbox, note: dict[str, list[float]], size: int) -> None:
    """A worker's turns: up to the request it reads the next batch, from there on it settles."""
    epoch = outbox.write(lambda con: leadership.begin_epoch(con, SINK, Holder(1, "h", "bench", 0)))
    watch = Stopwatch()
    worker = Worker(outbox, Renderer(), watch, SystemClock(), epoch)  # type: ignore[arg-type]
    read, settle = [], []
    for turn in range(60):
        outbox.write(lambda con: con.execute("UPDATE sinks SET cursor = ?", (size // 2,)))
        began = time.perf_counter_ns()
        worker.turn()
        ended = time.perf_counter_ns()
        if turn >= 5:
            read.append(watch.asked_ns - began)
            settle.append(ended - watch.asked_ns)
    note[f"read the next batch ({BATCH} events)"].append(median(read) / 1e3)
    note["settle it"].append(median(settle) / 1e3)


def _questions(client: OrchestratorClient, outbox: Outbox, any_seq: Callable[[], int]) -> dict[str, Callable[[], Any]]:
    def listed(**wanted: Any) -> Callable[[], Any]:
        return lambda: outbox.query(lambda con: listing.events(con, limit=BATCH, **wanted))

    def show() -> Any:
        prefix = _id(any_seq())
        return outbox.query(lambda con: listing.event(con, prefix))

    return {
        "status (the report)": client.health,
        "statistics": client.get_communication_stats,
        "a task's state": lambda: client.task_state("task-1"),
        SHOW: show,
        "list the newest": listed(),
        "list the dead": listed(states=("dead",)),
        "list the pending": listed(states=("pending",)),
    }


def _row(name: str, stores: Sequence[Stored]) -> dict[str, object]:
    first = stores[0].taken_us[name]
    ratios = {f"{store.size:,}": Spread.of_ratios(store.taken_us[name], first) for store in stores[1:]}
    return {
        "question": name,
        f"µs at {stores[0].size}": f"{median(first):.0f}",
        **{f"at {size}, of that": ratio for size, ratio in ratios.items()},
        f"flat within {FLAT}": _is_flat(name, list(ratios.values())),
    }


def _is_flat(name: str, ratios: Sequence[Spread]) -> str:
    if name == SHOW:
        return "by bisection"
    return "yes" if all(ratio.middle <= FLAT for ratio in ratios) else "NO"


# --- The command --------------------------------------------------------------------------------------------------


def _status_rows(stores: Sequence[Stored], rounds: int) -> list[dict[str, object]]:
    taken: dict[str, list[float]] = defaultdict(list)
    used: dict[str, list[float]] = defaultdict(list)
    commands = {"bare": [sys.executable, "-c", "pass"]} | {
        f"{store.size:,}": [sys.executable, "-m", "orchclient", "--db", str(store.path), "status"] for store in stores
    }
    for number in range(rounds):
        for name in rotated(list(commands), number):
            began, before = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
            subprocess.run(commands[name], check=True, capture_output=True, env=_quiet())
            after = getrusage(RUSAGE_CHILDREN)
            taken[name].append((time.perf_counter() - began) * 1e3)
            used[name].append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3)
    bare, bare_used = taken.pop("bare"), used.pop("bare")
    return [
        {
            "`orchclient status` with": f"{name} events",
            "ms in all": f"{median(each):.0f}",
            "ms beyond a bare Python": _beyond(each, bare),
            "of it CPU ms": _beyond(used[name], bare_used),
        }
        for name, each in taken.items()
    ]


def _beyond(ours: Sequence[float], bare: Sequence[float]) -> Spread:
    return Spread.of(own - python for own, python in zip(ours, bare, strict=True))


def _quiet() -> dict[str, str]:
    unwanted = ("ORCHCLIENT_", "PYTHONDONTWRITEBYTECODE")  # compiling at every start is not what is measured
    clean = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return clean | {"PYTHONPATH": os.pathsep.join(sys.path)}


# --- The memory ---------------------------------------------------------------------------------------------------


def _memory_row(directory: Path, pending: int) -> dict[str, object]:
    """Two programs that deliver to a receiver that never answers: one with a backlog, one without."""
    peaks = {}
    with Receiver() as receiver:
        receiver.always(Fault.hang())
        for count in (0, pending):
            place = directory / f"memory-{count}"
            Stored.filled(place, count)  # both exist: making the tables takes memory of its own
            _all_pending(place / "outbox.db")
            command = [sys.executable, __file__, "--memory-of", str(place / "outbox.db"), "--url", receiver.url]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=_quiet())
            peaks[count] = json.loads(done.stdout)
    with_none, with_many = peaks[0], peaks[pending]
    return {
        "pending": f"{with_many['pending']:,}",
        "peak RSS with none, MB": f"{with_none['peak_mb']:.1f}",
        "peak RSS with these, MB": f"{with_many['peak_mb']:.1f}",
        "growth, MB": f"{with_many['peak_mb'] - with_none['peak_mb']:.1f}",
        "requests": f"{with_none['attempts']} and {with_many['attempts']}",
    }


def _all_pending(path: Path) -> None:
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("DELETE FROM work")
        con.execute("UPDATE sinks SET cursor = 0, dead = 0")


ATTEMPTS = 3
RECORDED = 2000


def _deliver(path: Path, url: str) -> int:
    """Record and deliver until a few attempts have failed, look at everything, and tell the most memory ever used."""
    settings = SETTINGS | {"mode": "online", "url": url, "request_timeout": 1.0, "max_pending": 10**9}
    with OrchestratorClient("bench", outbox=path, **settings) as client:
        for percent in range(RECORDED):
            client.update_task_status("task-1", "in_progress", None, percent % 101)
        for _ in range(ATTEMPTS):
            client.flush(5)
        health = client.health()
        client.get_communication_stats()
        tried = _outbox(client).query(lambda con: con.execute("SELECT count(*) FROM attempts").fetchone()[0])
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"peak_mb": peak_kb / 1024, "pending": health.sinks[0].pending, "attempts": tried}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
