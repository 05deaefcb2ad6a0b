"""What the benchmarks share: where they work, in what order, what they make of the numbers, how they print them.

Absolute numbers of a shared disk say little an hour later. So every case runs beside its raw limit in the same round,
the order rotates from round to round, and what is printed is the ratio inside a round: median [smallest..largest].
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self, TypeVar

from attrs import frozen

import orchclient
from orchclient.core.envelope import event_text, opening
from orchclient.outbox import identity, journal

T = TypeVar("T")

IN_MEMORY = ("tmpfs", "ramfs")


# --- Where --------------------------------------------------------------------------------------------------------


def parser(description: str | None) -> ArgumentParser:
    """The arguments that every benchmark takes."""
    found = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    found.add_argument("--dir", type=Path, default=Path.cwd(), help="measure on this disk (default: the current one)")
    found.add_argument("--quick", action="store_true", help="few calls: shows that it works, not how fast")
    return found


@contextmanager
def workspace(chosen: Path) -> Iterator[Path]:
    """A directory of our own on the chosen disk, removed at the end."""
    # Nothing is deleted between two measurements: freeing blocks on a disk with discard slows down the next one.
    with TemporaryDirectory(prefix=".orchclient-bench-", dir=chosen) as directory:
        yield Path(directory)


# --- In what order ------------------------------------------------------------------------------------------------


def rotated(items: Sequence[T], round_number: int) -> list[T]:
    """The items beginning with another one in every round."""
    first = round_number % len(items)
    return [*items[first:], *items[:first]]


def tell(text: str) -> None:
    """Progress, for a person who waits; the result alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


# --- What to make of it -------------------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@frozen
class Spread:
    """The median of several rounds between the smallest and the largest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """The spread of the values of all rounds."""
        kept = list(values)
        return cls(median(kept), min(kept), max(kept))

    @classmethod
    def of_ratios(cls, ours: Sequence[float], raw: Sequence[float]) -> Self:
        """The spread of the ratios inside each round."""
        return cls.of(our / limit for our, limit in zip(ours, raw, strict=True))

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}..{self.high:.2f}]"


# --- What is in a file --------------------------------------------------------------------------------------------


def rows_in(path: Path) -> int:
    """How many events a file holds, whoever wrote it."""
    with closing(sqlite3.connect(path)) as con:
        return int(con.execute("SELECT count(*) FROM events").fetchone()[0])


def event_texts(path: Path) -> list[str]:
    """Every event of an outbox as it is sent. The outbox must be closed."""
    with closing(sqlite3.connect(path)) as con:
        sources = identity.identities(con)
        entries = journal.read_range(con, 0, journal.MAX_SEQ)
        return [event_text(opening(sources.of(entry.seq)), entry.seq, entry.body) for entry in entries]


# --- How to print it ----------------------------------------------------------------------------------------------


def report(title: str, directory: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """The result as Markdown: when, with what, on what, and the table."""
    return f"## {title}\n\n{surroundings(directory)}\n\n{table(rows)}\n"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table with the keys of the first row as its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def surroundings(directory: Path) -> str:
    """Versions, date and machine. The load matters: a busy neighbour shows in every number."""
    kind = file_system(directory)
    note = " **In memory: what syncs is free here, so these rows say nothing.**" if kind in IN_MEMORY else ""
    return (
        f"orchclient {orchclient.__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {cpu_model()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the end; {platform.system()} {platform.release()}, {kind}.{note}"
    )


def cpu_model() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def file_system(directory: Path) -> str:
    """The type of the file system that a directory is on; the longest mount point that contains it counts."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return "unknown file system"
    place = directory.resolve()
    mounts = [(Path(line.split()[4]), line.partition(" - ")[2].split()[0]) for line in lines]
    fitting = [(len(point.parts), kind) for point, kind in mounts if place.is_relative_to(point)]
    return max(fitting, default=(0, "unknown file system"))[1]
