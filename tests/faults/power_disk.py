"""A simulated disk: it is fed a journal up to some moment, then the power goes, and it says what it could hold.

What was synced is there. Of the rest anything may be: nothing, all, a part in order, any 512-byte sectors, or garbage
where a sector was being written; only a sector that is written with the bytes that it holds keeps them. It knows files
and names, nothing of SQLite or of orchclient.

Two rules for names. Ordinary file systems (ext4, xfs, btrfs) keep changes of names in order, and syncing a file makes
its own name durable. ``strict_names`` is what POSIX says, which is nothing: a name is durable when its directory was
synced, and of the other changes any may be lost.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from os.path import dirname

from attrs import define, field, frozen

from tests.faults import power_journal as journal
from tests.faults.power_journal import Record

SECTOR = 512
Tree = Mapping[str, bytes | None]
"""Content by path; None for a directory."""


@frozen
class Change:
    """A write, or with ``data`` None a cut to a length; ``n`` is its place among all operations."""

    n: int
    at: int
    data: bytes | None

    def apply_to(self, content: bytearray) -> None:
        """Make the change."""
        if len(content) < self.at:
            content.extend(bytes(self.at - len(content)))
        if self.data is None:
            del content[self.at :]
        else:
            content[self.at : self.at + len(self.data)] = self.data

    def sectors(self) -> Iterator[Change]:
        """The change in pieces that a disk writes whole or not at all."""
        if self.data is None:
            yield self
            return
        at = 0
        while at < len(self.data):
            size = min(SECTOR - (self.at + at) % SECTOR, len(self.data) - at)
            yield Change(self.n, self.at + at, self.data[at : at + size])
            at += size


@define(eq=False)
class Inode:
    """One file, whatever its names: what is durable, and what was changed since. A directory has no content."""

    is_directory: bool = False
    durable: bytearray = field(factory=bytearray)
    pending: list[Change] = field(factory=list)

    def sync(self) -> None:
        """Everything so far is durable."""
        for change in self.pending:
            change.apply_to(self.durable)
        self.pending.clear()


@frozen(eq=False)
class Naming:
    """A change of names: ``path`` means ``inode`` from now on, or nothing; ``old`` is gone if it was a rename."""

    n: int
    path: str
    inode: Inode | None
    old: str = ""

    def apply_to(self, names: dict[str, Inode]) -> None:
        """Make the change, as far as there is anything to change."""
        if self.old:
            names.pop(self.old, None)
        if self.inode is None:
            names.pop(self.path, None)
        else:
            names[self.path] = self.inode


Survives = Callable[[int], bool]


@frozen
class Flavour:
    """What becomes of operations that were not synced: made anew for each cut.

    ``keeps_change`` is asked for every sector, ``keeps_name`` for every change of names.
    """

    keeps_change: Callable[[Change], bool]
    keeps_name: Callable[[int], bool]
    tears: int = -1  # the operation of which only the first sectors arrived
    spoils: Callable[[Change], bytes | None] = lambda change: None  # what a lost sector holds instead


def _nothing(rng: random.Random, n: int) -> Flavour:
    return Flavour(lambda change: False, lambda n: False)


def _everything(rng: random.Random, n: int) -> Flavour:
    return Flavour(lambda change: True, lambda n: True)


def _in_order(rng: random.Random, n: int) -> Flavour:
    last = n - int(rng.expovariate(1 / 20))  # mostly close to the cut: that is where what matters was written
    return Flavour(lambda change: change.n < last, lambda n: n < last, tears=last)


def _any_sectors(rng: random.Random, n: int) -> Flavour:
    share = rng.choice((0.1, 0.5, 0.9))
    return Flavour(lambda change: rng.random() < share, lambda n: rng.random() < share)


def _garbage(rng: random.Random, n: int) -> Flavour:
    def noise(change: Change) -> bytes | None:
        size = len(change.data or b"")
        return rng.choice((None, bytes(size), rng.randbytes(size)))

    flavour = _any_sectors(rng, n)
    return Flavour(flavour.keeps_change, flavour.keeps_name, spoils=noise)


FLAVOURS: dict[str, Callable[[random.Random, int], Flavour]] = {
    "nothing unsynced": _nothing,
    "in order, torn": _in_order,
    "any sectors": _any_sectors,
    "garbage": _garbage,
    "everything": _everything,
}


class Disk:
    """Fed records in order; asked at any moment what it would hold without power.

    ``drops_at_failed_sync``: as Linux does, pages that a failed sync could not write count as written afterwards.
    """

    def __init__(self, root: str, base: Tree, *, strict_names: bool, drops_at_failed_sync: bool = False) -> None:
        self._n = 0
        self._strict = strict_names
        self._drops = drops_at_failed_sync
        self._inodes: dict[int, Inode] = {}
        self._names: dict[str, Inode] = {}
        self._namings: list[Naming] = []
        self._root = root
        for path, content in base.items():
            self._names[path] = Inode(content is None, bytearray(content or b""))
        self._stable = dict(self._names)

    def feed(self, record: Record) -> None:
        """Take one more operation in."""
        self._n += 1
        act = self._ACTS.get(record.what)
        if act is not None:
            act(self, record)

    def adopt(self, path: str, inode: int) -> None:
        """Say which inode number a file of the base has."""
        self._inodes[inode] = self._names[path]

    def names_of(self, inode: int) -> list[str]:
        """The names that a file has right now."""
        file = self._inodes.get(inode)
        return [path for path, named in self._names.items() if named is file]

    def _create(self, record: Record) -> None:
        if self._names.get(record.path) is self._inodes.get(record.inode, self):
            return  # two processes that create one file both say so
        self._inodes[record.inode] = Inode(record.what == journal.MAKE_DIRECTORY)
        self._name(record.path, self._inodes[record.inode])

    def _write(self, record: Record) -> None:
        self._inodes[record.inode].pending.append(Change(self._n, record.offset, record.data))

    def _truncate(self, record: Record) -> None:
        self._inodes[record.inode].pending.append(Change(self._n, record.offset, None))

    def _unlink(self, record: Record) -> None:
        self._name(record.path, None)

    def _rename(self, record: Record) -> None:
        self._name(record.data.decode(), self._names[record.path], old=record.path)

    def _link(self, record: Record) -> None:
        self._name(record.data.decode(), self._names[record.path])

    def _name(self, path: str, inode: Inode | None, old: str = "") -> None:
        naming = Naming(self._n, path, inode, old)
        naming.apply_to(self._names)
        self._namings.append(naming)

    def _sync(self, record: Record) -> None:
        inode = self._inodes[record.inode]
        inode.sync()
        if not self._strict:
            own = [k for k, naming in enumerate(self._namings) if naming.inode is inode]
            self._make_durable(self._namings[: own[-1] + 1] if own else [])

    def _sync_directory(self, record: Record) -> None:
        inside = [k for k, naming in enumerate(self._namings) if dirname(naming.path) == record.path]
        if self._strict:
            self._make_durable([self._namings[k] for k in inside])
        else:
            self._make_durable(self._namings[: inside[-1] + 1] if inside else [])

    def _make_durable(self, namings: list[Naming]) -> None:
        for naming in namings:
            naming.apply_to(self._stable)
        self._namings = [naming for naming in self._namings if naming not in namings]

    def _fail_sync(self, record: Record) -> None:
        if self._drops:
            self._inodes[record.inode].pending.clear()

    def _map(self, record: Record) -> None:
        assert record.path.endswith("-shm"), f"{record.path} is written through a mapping, which no journal sees"

    _ACTS: Mapping[str, Callable[[Disk, Record], None]] = {
        journal.CREATE: _create,
        journal.MAKE_DIRECTORY: _create,
        journal.WRITE: _write,
        journal.TRUNCATE: _truncate,
        journal.SYNC: _sync,
        journal.SYNC_DIRECTORY: _sync_directory,
        journal.FAILED_SYNC: _fail_sync,
        journal.UNLINK: _unlink,
        journal.RENAME: _rename,
        journal.LINK: _link,
        journal.MAPPED: _map,
    }

    def without_power(self, flavour: str, rng: random.Random) -> dict[str, bytes | None]:
        """What the disk could hold if the power went now. Files in a directory that was lost are lost."""
        kept = FLAVOURS[flavour](rng, self._n)
        names = self._surviving_names(kept)
        tree = {path: None if inode.is_directory else bytes(_content(inode, kept)) for path, inode in names.items()}
        return {path: content for path, content in tree.items() if self._is_reachable(path, tree)}

    def _surviving_names(self, kept: Flavour) -> dict[str, Inode]:
        names = dict(self._stable)
        for naming in self._namings:
            if kept.keeps_name(naming.n):
                naming.apply_to(names)
            elif not self._strict:
                break  # in order: what follows a lost one is lost too
        return names

    def _is_reachable(self, path: str, tree: Tree) -> bool:
        above = dirname(path)
        return above == self._root or (above in tree and self._is_reachable(above, tree))


def _content(inode: Inode, kept: Flavour) -> bytearray:
    content = bytearray(inode.durable)
    for change in inode.pending:
        if change.n == kept.tears:
            _tear(change, content)
            continue
        for piece in change.sectors():
            if kept.keeps_change(piece):
                piece.apply_to(content)
            else:
                noise = kept.spoils(piece)
                if noise and not _is_there_already(piece, content):
                    Change(piece.n, piece.at, noise).apply_to(content)
    return content


def _is_there_already(piece: Change, content: bytearray) -> bool:
    return piece.data is not None and content[piece.at : piece.at + len(piece.data)] == piece.data


def _tear(change: Change, content: bytearray) -> None:
    sectors = list(change.sectors())
    for sector in sectors[: (change.n + len(sectors)) % (len(sectors) + 1)]:
        sector.apply_to(content)
