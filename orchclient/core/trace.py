"""Trace context as text: the ``traceparent`` of W3C Trace Context, level 1, which CloudEvents carry as an extension.

https://www.w3.org/TR/trace-context/#traceparent-header
"""

from __future__ import annotations

import re

_SAMPLED = 1
# ff is no version, and an id of zeros is none. A later version may have more behind the flags: the wire has no room.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def traceparent_text(trace_id: int, span_id: int, flags: int) -> str:
    """The header's text for valid ids; of the flags only "sampled" is known to version 00."""
    return f"00-{trace_id:032x}-{span_id:016x}-{flags & _SAMPLED:02x}"


def is_traceparent(text: object) -> bool:
    """Whether a text is a complete and valid ``traceparent``."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None
