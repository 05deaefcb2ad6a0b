"""Recording and sending a burst, beside the libraries that people use for it today; and putting, beside queues on disk.

Every side gets the same 20,000 events in a burst in a process of its own and sends them to the same receiver, which
counts them; the order rotates. The others keep nothing on disk (but the queues, which send nothing). A side that lost
an event is marked; exits with 1 when it was ours. Needs the dependency group ``benchmarks``; what is not installed is
left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from statistics import median

from attrs import frozen
from counting_sink import Came, came, counting_sink
from measure import Spread, parser, report, rotated, tell, workspace
from peer_sides import QUEUES, SENDERS, SIDES, version_of

ROUNDS = 5
EVENTS = 20_000
OURS = "orchclient, auto"
SIDE_S = 300.0


@frozen
class Sample:
    """One burst."""

    put_s: float
    wall_s: float
    p50_us: float
    came: Came


def main() -> int:
    """Measure, print the tables; 1 when an event of ours did not come."""
    options = parser(__doc__).parse_args()
    events, rounds = (500, 1) if options.quick else (EVENTS, ROUNDS)
    names = [name for name in SIDES if _is_installed(name)]
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    with workspace(options.dir) as directory, counting_sink() as url:
        for number in range(rounds):
            for name in rotated(names, number):
                tell(f"round {number + 1} of {rounds}: {name}")
                samples[name].append(_burst(name, url, directory / f"{number}-{names.index(name)}", events))
        print(report(f"Recording and sending {events:,} events", directory, _sent(samples, events)))
        if any(name in QUEUES for name in names):
            print(report(f"Putting {events:,} events", directory, _put(samples, events)))
    return (
        0 if all(_is_whole(each, events) for name in samples if "orchclient" in name for each in samples[name]) else 1
    )


def _is_installed(name: str) -> bool:
    try:
        version_of(name)
    except PackageNotFoundError as missing:
        tell(f"{missing.name} is not installed: its row is left out")
        return False
    return True


def _burst(name: str, url: str, directory: Path, events: int) -> Sample:
    directory.mkdir(mode=0o700)
    program = [sys.executable, str(Path(__file__).with_name("peer_sides.py")), name, url, str(directory), str(events)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=SIDE_S, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return Sample(**json.loads(done.stdout.splitlines()[-1]), came=came(url))


def _is_whole(sample: Sample, events: int) -> bool:
    return sample.came.events == events and not sample.came.repeated


def _sent(samples: dict[str, list[Sample]], events: int) -> list[dict[str, object]]:
    return [
        {
            "library": f"{name} {version_of(name)}".strip(),
            "put, median µs": f"{median(each.p50_us for each in taken):.0f}",
            "seconds until sent": f"{median(each.wall_s for each in taken):.2f}",
            "events/s": f"{median(events / each.wall_s for each in taken):,.0f}",
            "events/s of orchclient": Spread.of_ratios(
                [1 / each.wall_s for each in taken], [1 / each.wall_s for each in samples[OURS]]
            ),
            "arrived": _arrived(taken, events),
        }
        for name, taken in samples.items()
        if name in SENDERS
    ]


def _arrived(taken: list[Sample], events: int) -> str:
    if all(_is_whole(each, events) for each in taken):
        return "all, once"
    return ", ".join(f"{each.came.events:,}" for each in taken)


def _put(samples: dict[str, list[Sample]], events: int) -> list[dict[str, object]]:
    ours = [each.p50_us for each in samples[OURS]]
    return [
        {
            "library": f"{name} {version_of(name)}".strip(),
            "put, median µs": f"{median(each.p50_us for each in taken):.0f}",
            "of orchclient, auto": Spread.of_ratios([each.p50_us for each in taken], ours),
            "puts/s": f"{median(events / each.put_s for each in taken):,.0f}",
        }
        for name, taken in samples.items()
        if name in QUEUES
    ]


if __name__ == "__main__":
    sys.exit(main())
