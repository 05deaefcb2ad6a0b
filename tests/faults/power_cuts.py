"""Makes power cuts: runs a workload under the disk shim, then cuts its journal at many points and judges each.

All cores work: every process takes a stretch of the journal, and feeds its disk and its ledger up to there first.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path

from attrs import define, evolve, field, frozen

from tests.faults import power_afterlife, power_journal, power_laws
from tests.faults.power_disk import FLAVOURS, Disk, Tree
from tests.faults.power_journal import Record
from tests.faults.power_ledger import Ledger, Told
from tests.faults.preload import MEMORY, REPOSITORY, command, environment

WORKLOAD_S = 30.0
MEMORY_BYTES = 512 << 20
"""What one process may take: a judge that runs wild must not take the machine down."""

WORKERS = min(os.cpu_count() or 1, 8)


# --- running --------------------------------------------------------------------------------------------------------


@frozen
class Run:
    """A workload that ran under the shim: its journal, the directory it had, and what was there before."""

    journal: Path
    root: str
    base: Tree = field(factory=dict, repr=False)
    ledgers: Mapping[str, Ledger] = field(factory=dict, repr=False)
    """Of directories that stood there after an earlier cut: what had been promised about each."""
    earlier: Mapping[str, Told] = field(factory=dict, repr=False)


def run_workload(workload: str, scratch: Path, *, seed: int = 1, planted_bug: str = "", lies: str = "") -> Run:
    """Run a workload in a directory of its own, which is gone afterwards; the journal stays in ``scratch``."""
    with tempfile.TemporaryDirectory(prefix="orchclient-power-", dir=MEMORY) as name:
        root = Path(name, "root")
        root.mkdir(mode=0o700)
        return Run(_journal(workload, root, scratch, seed, planted_bug, lies), str(root))


def run_recovery(first: Run, scratch: Path, *, images: int, seed: int) -> Run:
    """Cut a run at so many points; in each of the directories that are left, let an agent start again."""
    with tempfile.TemporaryDirectory(prefix="orchclient-power-", dir=MEMORY) as name:
        root = Path(name, "root")
        root.mkdir(mode=0o700)
        ledgers: dict[str, Ledger] = {}
        for n, (tree, ledger) in enumerate(_images(first, images, seed)):
            into = root / f"r{n:03}"
            _lay_out(tree, first.root, into, random.Random(n))
            ledgers[str(into)] = ledger.after_a_cut(ledger.outbox.replace(first.root, str(into), 1))
        base = {str(path): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}
        journal = _journal("recover", root, scratch, seed, "", "")
    return Run(journal, str(root), base, ledgers, _truth(power_journal.records(first.journal)))


def _images(run: Run, count: int, seed: int) -> Iterator[tuple[dict[str, bytes | None], Ledger]]:
    """What disks held after cuts in the later half of a run, with what had been promised until then."""
    records, rng = power_journal.records(run.journal), random.Random(seed)
    world = World.at_start(Cuts(run, count), records)
    for k, point in enumerate(sorted(rng.randrange(len(records) // 2, len(records)) for _ in range(count))):
        world.feed_up_to(point)
        if not world.ledger.is_adrift:
            yield world.disk.without_power(list(FLAVOURS)[k % len(FLAVOURS)], rng), world.ledger


def _journal(workload: str, root: Path, scratch: Path, seed: int, planted_bug: str, lies: str) -> Path:
    journal = Path(tempfile.mkdtemp(dir=scratch), f"{workload}-{seed}.journal")
    settings = {"DISK_ROOT": root, "DISK_JOURNAL": journal} | ({"DISK_LIES": lies} if lies else {})
    done = subprocess.run(
        command("power_workloads", workload, root, seed, planted_bug),
        env=environment("disk", settings),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=WORKLOAD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return journal


# --- cutting --------------------------------------------------------------------------------------------------------


@frozen
class Cuts:
    """An order: how many cuts to make in a run, under which rules, and by what to judge each."""

    run: Run
    count: int
    seed: int = 1
    strict_names: bool = False
    drops_at_failed_sync: bool = False
    judges_afterlife: bool = False
    gives_up_taken_numbers: bool = False  # a planted bug; the pool that has made such cuts is spoilt
    flavours: tuple[str, ...] = tuple(FLAVOURS)
    finds: tuple[str, ...] = ()
    """Of a control: the kinds of violation of which one each is enough."""


@define
class Tally:
    """What became of the cuts: how many there were, how many broke a law of a kind, and the first that did."""

    cuts: int = 0
    broken: Counter[str] = field(factory=Counter)
    examples: dict[str, str] = field(factory=dict)

    def add(self, other: Tally) -> None:
        """Take another tally in."""
        self.cuts += other.cuts
        self.broken += other.broken
        self.examples = other.examples | self.examples

    @property
    def lost(self) -> int:
        """Cuts in which something that was promised was lost."""
        return self.broken["lost"]

    @property
    def corrupt(self) -> int:
        """Cuts after which the file was not sound, or could not be used."""
        return self.broken["corrupt"] + self.broken["unusable"]

    def has(self, kind: str) -> bool:
        """Whether a violation of a kind was found; a file that is damaged may show it in two ways."""
        return bool(self.corrupt if kind == "corrupt" else self.broken[kind])

    def __str__(self) -> str:
        return "\n".join([f"{self.cuts} cuts, broken: {dict(self.broken)}", *self.examples.values()])


def make_cuts(pool: Executor, order: Cuts) -> Tally:
    """Make the cuts, on all cores."""
    tally, share = Tally(), -(-order.count // WORKERS)
    for part in pool.map(_stretch, [evolve(order, count=share)] * WORKERS, range(WORKERS)):
        tally.add(part)
    return tally


def _stretch(order: Cuts, part: int) -> Tally:
    """The cuts in one stretch of the journal, in its order."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if order.gives_up_taken_numbers:
        power_afterlife.give_up_taken_numbers()
    records = power_journal.records(order.run.journal)
    begin, end = len(records) * part // WORKERS, len(records) * (part + 1) // WORKERS
    rng = random.Random(f"{order.seed}/{part}")
    points = sorted(rng.randrange(begin, end) + 1 for _ in range(order.count))
    tally, world = Tally(), World.at_start(order, records)
    with tempfile.TemporaryDirectory(prefix="orchclient-cut-", dir=MEMORY) as scratch:
        for k, point in enumerate(points):
            world.feed_up_to(point)
            flavour = order.flavours[k % len(order.flavours)]
            broken = world.cut(flavour, random.Random(f"{order.seed}/{part}/{k}"), Path(scratch, "root"))
            tally.add(_counted(broken, f"{flavour}, cut {point} of {len(records)} in {order.run.journal}, number {k}"))
            if order.finds and all(tally.has(kind) for kind in order.finds):
                break
    return tally


def _counted(broken: list[str], where: str) -> Tally:
    kinds = {text.partition(":")[0]: f"{where}: {text}" for text in reversed(broken)}
    return Tally(1, Counter(kinds.keys()), kinds)


@define
class World:
    """The disk and the ledger at one moment of a journal."""

    disk: Disk
    ledger: Ledger
    truth: Mapping[str, Told]
    order: Cuts
    _records: list[Record]
    _at: int = 0

    @classmethod
    def at_start(cls, order: Cuts, records: list[Record]) -> World:
        """Before the first operation."""
        run, strict, drops = order.run, order.strict_names, order.drops_at_failed_sync
        disk = Disk(run.root, run.base, strict_names=strict, drops_at_failed_sync=drops)
        return cls(disk, Ledger(f"{run.root}/outbox.db"), {**run.earlier, **_truth(records)}, order, records)

    def feed_up_to(self, point: int) -> None:
        """Let everything before a point happen."""
        while self._at < point:
            record = self._records[self._at]
            if record.what == power_journal.NOTE and "recovers" in record.note:
                self._begin_anew(record.note["recovers"], record.note["inodes"])
            self.disk.feed(record)
            names = self.disk.names_of(record.inode) if record.what == power_journal.SYNC else ()
            self.ledger.hear(record, names)
            self._at += 1

    def _begin_anew(self, directory: str, inodes: Mapping[str, int]) -> None:
        self.ledger = self.order.run.ledgers[directory].snapshot()
        for path, inode in inodes.items():
            self.disk.adopt(path, inode)

    def cut(self, flavour: str, rng: random.Random, into: Path) -> list[str]:
        """The power goes: what was left breaks which promises?"""
        root = self.order.run.root
        _lay_out(self.disk.without_power(flavour, rng), root, into, rng)
        moved = evolve(self.ledger, outbox=self.ledger.outbox.replace(root, str(into), 1))
        if self.order.judges_afterlife:
            return power_afterlife.violations(moved)
        return power_laws.violations(moved, self.truth)


def _truth(records: list[Record]) -> dict[str, Told]:
    """Every call that ever returned, by the id of its event, in the order of their places."""
    notes = [record.note for record in records if record.what == power_journal.NOTE]
    told = [Told(**note[kind]) for note in notes for kind in ("returned", "elsewhere") if kind in note]
    return {each.id: each for each in sorted(told, key=lambda each: each.seq)}


def _lay_out(tree: Tree, root: str, into: Path, rng: random.Random) -> None:
    """Make the files of a disk, private as their owner had them."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(mode=0o700)
    for path, content in sorted(tree.items()):
        target = into / path.removeprefix(root + "/")
        if content is None:
            target.mkdir(mode=0o700)
        elif not path.endswith("-shm"):
            _write_private(target, content)
        elif rng.random() < 0.5:
            _write_private(target, rng.randbytes(32_768))  # shared memory may hold anything, and nobody may trust it


def _write_private(path: Path, content: bytes) -> None:
    path.touch(0o600)
    path.write_bytes(content)
