"""How long things may be on the wire: the table "Limits" of docs/wire.md. Text is counted in code points."""

from __future__ import annotations

from typing import Final

ID_CHARS: Final = 256
QUESTION_ID_CHARS: Final = 64
QUESTIONS: Final = 100
OPTIONS: Final = 100
QUESTION_CHARS: Final = 16_384
OPTION_CHARS: Final = 1_024
DEFAULT_CHARS: Final = 16_384
STEP_CHARS: Final = 4_096
REASON_CHARS: Final = 4_096
PR_URL_CHARS: Final = 2_048
ERROR_MESSAGE_CHARS: Final = 65_536
TRACEBACK_CHARS: Final = 262_144
TRACEBACK_KEPT: Final = 65_536  # of what an agent gives: with it an event of the default size has room for the rest
RECOVERY_HISTORY: Final = 1_000
SMALL_COUNT: Final = 2**31 - 1
BATCH_EVENTS: Final = 500  # the results of more would not fit into the largest reply
BATCH_BYTES: Final = 1_048_576
PAGE_BYTES: Final = 65_536
PAGE_ITEMS: Final = 100
CURSOR_CHARS: Final = 512
LONG_POLL_S: Final = 25.0

MARK: Final = "[redacted]"
"""Stands for a secret that was taken out, or is not shown."""
SHORTEST_SECRET: Final = 6
"""A known secret that is shorter is not looked for: it would be found in ordinary words."""


def shortened(text: str, most: int) -> str:
    """``text`` with its middle left out when it is longer than ``most``: what matters stands at one of the ends."""
    if len(text) <= most:
        return text
    note = f"\n... {len(text) - most:,} characters left out ...\n"
    half = (most - len(note)) // 2
    return text[:half] + note + text[-half:]
