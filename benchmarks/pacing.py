"""What a record call costs while 100,000 events drain, beside the same call with nothing to drain.

One call a millisecond, as an agent that works makes them. The backlog leaves to a blind sink in a process of its own;
only calls that were made while it did count. Exits with 1 when an event is missing at the end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from blind_sink import blind_sink
from measure import Spread, parser, percentile, report, rotated, tell, workspace

from orchclient import OrchestratorClient

ROUNDS = 9
BACKLOG = 100_000
CALLS = 600
PAUSE_S = 0.001
IDLE, DRAINING = "nothing to drain", "while the backlog drains"


def main() -> int:
    """Measure, print the table; 1 when anything is missing."""
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=BACKLOG, help="how large the backlog is (default: 100000)")
    options = arguments.parse_args()
    events, rounds = (3_000, 2) if options.quick else (options.events, ROUNDS)
    taken: dict[str, list[list[float]]] = {IDLE: [], DRAINING: []}
    is_whole = True
    with workspace(options.dir) as directory, blind_sink() as url:
        _round(directory / "warm-up", url, 0)
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for name in rotated(list(taken), number):
                backlog = events if name == DRAINING else 0
                waits, arrived = _round(directory / f"{number}-{backlog}", url, backlog)
                taken[name].append(waits)
                is_whole &= arrived
        print(report(f"Recording while {events:,} events drain", directory, _rows(taken)))
    return 0 if is_whole else 1


def _round(directory: Path, url: str, backlog: int) -> tuple[list[float], bool]:
    """What the calls took, ascending, and whether everything was delivered in the end."""
    directory.mkdir(mode=0o700)
    outbox = directory / "outbox.db"
    with OrchestratorClient("bench", outbox=outbox, mode="offline") as client, client.transaction():
        for number in range(backlog):
            _record(client, number)
    with OrchestratorClient("bench", outbox=outbox, url=url) as client:
        client.start_task("task-0")  # delivery starts
        waits = _timed_while_draining(client) if backlog else _timed(client, CALLS)
        client.flush(60)
        sink = client.health().sinks[0]
    return sorted(waits), (sink.pending, sink.dead) == (0, 0)


def _timed_while_draining(client: OrchestratorClient) -> list[float]:
    waits: list[float] = []
    while _pending(client):
        waits += _timed(client, 20)
    return waits


def _timed(client: OrchestratorClient, calls: int) -> list[float]:
    waits = []
    for number in range(calls):
        began = time.perf_counter()
        _record(client, number)
        waits.append(time.perf_counter() - began)
        time.sleep(PAUSE_S)
    return waits


def _pending(client: OrchestratorClient) -> bool:
    return client.health().sinks[0].pending > 1_000


def _record(client: OrchestratorClient, number: int) -> None:
    client.update_task_status(f"task-{number % 10}", "in_progress", {"file": "routes.py"}, number % 101, "Generating")


def _rows(taken: dict[str, list[list[float]]]) -> list[dict[str, object]]:
    def at(name: str, share: float) -> list[float]:
        return [percentile(waits, share) for waits in taken[name]]

    return [
        {
            "case": name,
            "calls": sum(map(len, rounds)),
            "p50 µs": f"{Spread.of(at(name, 0.5)).middle * 1e6:.1f}",
            "p99 µs": f"{Spread.of(at(name, 0.99)).middle * 1e6:.1f}",
            "p50 of idle": Spread.of_ratios(at(name, 0.5), at(IDLE, 0.5)),
            "p99 of idle": Spread.of_ratios(at(name, 0.99), at(IDLE, 0.99)),
        }
        for name, rounds in taken.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
