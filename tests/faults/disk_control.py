"""What a program under the disk shim can do with it: note something in the journal, break the disk and mend it.

The numbers are those of ``shims/disk.h`` and ``shims/faults.c``.
"""

from __future__ import annotations

import ctypes
import json
from enum import IntEnum, IntFlag
from functools import cache


class Kind(IntFlag):
    """Kinds of operation."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 4
    SYNC = 8
    UNLINK = 16
    RENAME = 32
    MAKE = 64
    LOOK = 128
    LOCK = 256
    READ = 512


CHANGES = Kind.OPEN | Kind.WRITE | Kind.TRUNCATE | Kind.SYNC | Kind.UNLINK | Kind.RENAME | Kind.MAKE


class Manner(IntEnum):
    """How an operation fails. A short write does a part and succeeds; only the next write fails."""

    ONCE = 0
    FOR_EVER = 1
    SHORT_ONCE = 2
    SHORT_FOR_EVER = 3
    HALF = 4


@cache
def _shim() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def note(**what: object) -> None:
    """Write into the journal, at this moment."""
    _shim().disk_note(json.dumps(what).encode())


def fail(kinds: Kind, nth: int, error: int, manner: Manner = Manner.ONCE, part: str = "") -> None:
    """From now on, let the ``nth`` operation of these kinds fail with this errno, on paths that contain ``part``."""
    _shim().disk_fail(int(kinds), part.encode(), ctypes.c_long(nth), error, int(manner))


def mend() -> None:
    """Let nothing fail any more."""
    _shim().disk_mend()


def seen() -> int:
    """How many operations of the kinds there were since ``fail``."""
    return int(_shim().disk_seen())


def hits() -> int:
    """How many of them were disturbed."""
    return int(_shim().disk_hits())
