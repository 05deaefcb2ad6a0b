"""Identifiers: UUIDv7 for events, and what may serve as the id of a task or an agent.

Ids are random and never derived from a sequence: a file that lost its tail hands the same sequence out again, and
a receiver would drop the new event as a repeat.
"""

from __future__ import annotations

import re
from functools import lru_cache

from orchclient.core.errors import InvalidEvent
from orchclient.core.limits import ID_CHARS

# CloudEvents 1.0, section "Type System": strings exclude U+0000-001F, U+007F-009F, surrogates and noncharacters.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid7(ms: int, randomness: bytes) -> str:
    """UUIDv7 of RFC 9562, section 5.7: 48 bits of UTC milliseconds and 74 of the 80 random bits given."""
    bits = randomness.hex("-", 6)  # 8 digits, and behind a hyphen the last 12
    return f"{_time_part(ms)}{bits[:3]}-{_VARIANT[bits[4]]}{bits[5:]}"


@lru_cache(maxsize=4)
def _time_part(ms: int) -> str:
    digits = f"{ms & 0xFFFF_FFFF_FFFF:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def checked_id(argument: str, value: object) -> str:
    """``value`` as an identifier: 1 to 256 characters, printable as a CloudEvents string.

    Raises ``InvalidEvent`` naming ``argument`` otherwise.
    """
    if not isinstance(value, str):
        raise InvalidEvent(argument, f"must be text, not {type(value).__name__}")
    if not value.strip():
        raise InvalidEvent(argument, "must not be empty")
    if len(value) > ID_CHARS:
        raise InvalidEvent(argument, f"has {len(value)} characters, {ID_CHARS} at most: use a shorter id")
    found = _FORBIDDEN.search(value)
    if found:
        raise InvalidEvent(
            argument,
            f"contains U+{ord(found[0]):04X} at position {found.start()}: control characters cannot be sent",
        )
    return value
