"""Names the processes that hold a lock of an outbox right now: who reads, commits or checkpoints.

A process that was stopped, or a program that forgot to end a query, keeps its locks for as long as it lives. Linux says
who holds which: proc_locks(5). Nothing is opened but what is in /proc; elsewhere nobody can be named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from orchclient.outbox.files import companions

# Bytes of the -shm that SQLite locks (sqlite.org/walformat.html, section 2.3.1). Byte 128 is held by everyone.
_ACTS = {120: "commits", 121: "checkpoints", 122: "recovers", **dict.fromkeys(range(123, 128), "reads")}
_AT_THE_GATE = {"READ": "commits", "WRITE": "checkpoints"}
_LONGEST_COMMAND = 60
_LOOK_AGAIN_S = 0.05


@frozen
class Holder:
    """A process that holds a lock, and what it does with it: reads, commits, checkpoints or recovers."""

    pid: int
    command: str
    acts: tuple[str, ...]
    is_stopped: bool

    def __str__(self) -> str:
        stopped = ", stopped" if self.is_stopped else ""
        return f"pid {self.pid} ({self.command}{stopped}), which {' and '.join(self.acts)}"


def holders(path: str) -> tuple[Holder, ...]:
    """Everyone who holds a lock at this moment, this process too."""
    acts: dict[int, set[str]] = {}
    for pid, act in _held(path):
        acts.setdefault(pid, set()).add(act)
    return tuple(Holder(pid, _command(pid), tuple(sorted(acts[pid])), is_stopped(pid)) for pid in sorted(acts))


def lasting_holders(path: str) -> tuple[Holder, ...]:
    """Every other process that still holds a lock when it is looked at again: a commit or a read takes less."""
    first = _others(path)
    if not first:
        return ()
    time.sleep(_LOOK_AGAIN_S)
    return tuple(holder for holder in _others(path) if holder.pid in {each.pid for each in first})


def _others(path: str) -> list[Holder]:
    return [holder for holder in holders(path) if holder.pid != os.getpid()]


def _held(path: str) -> Iterator[tuple[int, str]]:
    """Process and act for each lock, such as ``1: POSIX  ADVISORY  READ 4711 fe:00:2213080 124 124``."""
    beside = companions(Path(path))
    shm, gate = _inode(beside.shm), _inode(beside.gate)
    for line in _lines():
        fields = line.split()
        if len(fields) != 8 or fields[1] == "->":  # waits for a lock that another one holds
            continue
        _, kind, _, mode, pid, where, first, last = fields
        inode = where.rpartition(":")[2]
        if kind == "FLOCK" and inode == gate:
            yield int(pid), _AT_THE_GATE[mode]
        elif kind == "POSIX" and inode == shm and last != "EOF":
            yield from ((int(pid), _ACTS[byte]) for byte in range(int(first), int(last) + 1) if byte in _ACTS)


def _lines() -> list[str]:
    try:
        return Path("/proc/locks").read_text().splitlines()
    except OSError:
        return []


def _inode(path: Path) -> str:
    """By number alone: on stacked file systems the device that is listed is another one than stat tells."""
    try:
        return str(os.lstat(path).st_ino)
    except OSError:
        return "none"


def _command(pid: int) -> str:
    """The program and the words behind it, up to the first option: an option could name a secret."""
    try:
        words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return "hidden"
    if words[1:2] == ["-m"]:
        del words[1]
    plain = next((n for n, word in enumerate(words) if word.startswith("-") or "=" in word), len(words))
    return " ".join(os.path.basename(word) for word in words[:plain]).strip()[:_LONGEST_COMMAND] or "hidden"


def is_stopped(pid: int) -> bool:
    """Whether it is stopped by a signal or a debugger: state T or t, behind the name (proc_pid_stat(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False
