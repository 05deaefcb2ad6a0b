"""How long after a record call its event arrives at a receiver on this machine, alone and beside one that hangs.

One call every few milliseconds; each event says when it was recorded, a blind sink in a process of its own notes when
it came. Both read the same clock. Exits with 1 when an event did not arrive.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from blind_sink import blind_sink, delays_ms
from measure import Spread, parser, percentile, report, rotated, tell, workspace

from orchclient import OrchestratorClient
from orchclient.sinks.orchestrator import OrchestratorSink

ROUNDS = 5
CALLS = 400
PAUSE_S = 0.007
ALONE, HANGING = "one receiver", "beside a receiver that hangs"


def main() -> int:
    """Measure, print the table; 1 when anything did not arrive."""
    options = parser(__doc__).parse_args()
    calls, rounds = (50, 1) if options.quick else (CALLS, ROUNDS)
    taken: dict[str, list[list[float]]] = {ALONE: [], HANGING: []}
    with workspace(options.dir) as directory, blind_sink("--hang") as hanging:
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for name in rotated(list(taken), number):
                others = [hanging] if name == HANGING else []
                taken[name].append(_round(directory / f"{number}-{len(others)}", others, calls))
        print(report("From the record call to the receiver", directory, _rows(taken)))
    return 0 if all(len(delays) == calls for rounds_ in taken.values() for delays in rounds_) else 1


def _round(directory: Path, others: Sequence[str], calls: int) -> list[float]:
    directory.mkdir(mode=0o700)
    with blind_sink("--stamp") as url:
        sinks = [OrchestratorSink(each, lambda: None, name=f"to-{n}") for n, each in enumerate((url, *others))]
        with OrchestratorClient("bench", outbox=directory / "outbox.db", sinks=sinks) as client:
            client.start_task("task-0")
            time.sleep(0.5)  # imports and connections are made
            for number in range(calls):
                client.update_task_status("task-0", "in_progress", {"sent_ns": time.time_ns()}, number % 101)
                time.sleep(PAUSE_S)
            client.flush(1.0)
        return delays_ms(url)


def _rows(taken: dict[str, list[list[float]]]) -> list[dict[str, object]]:
    return [
        {
            "case": name,
            "events": sum(map(len, rounds)),
            "p50 ms": Spread.of(percentile(delays, 0.5) for delays in rounds),
            "p95 ms": Spread.of(percentile(delays, 0.95) for delays in rounds),
            "p99 ms": Spread.of(percentile(delays, 0.99) for delays in rounds),
        }
        for name, rounds in taken.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
