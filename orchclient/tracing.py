"""The trace that an event belongs to: the span that is current when it is recorded, or the one of the whole process.

OpenTelemetry is looked for among the modules that the agent has loaded, and never imported. So a process without it
pays for one look into a dictionary.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from orchclient.core.errors import ConfigError
from orchclient.core.trace import is_traceparent, traceparent_text

log = logging.getLogger("orchclient")

loaded = sys.modules.get
OPENTELEMETRY = "opentelemetry.trace"


def of_process(given: str | None) -> str | None:
    """The parent of everything that a process records: as given, else ``TRACEPARENT``, which CI systems set.

    Raises ``ConfigError`` when the given text is none; in the environment it is passed over.
    """
    if given is not None:
        if not is_traceparent(given):
            raise ConfigError("traceparent is not usable: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
        return given
    text = os.environ.get("TRACEPARENT")
    return text if is_traceparent(text) else None


def of_span(api: Any) -> str | None:
    """The span that is current in this thread or task, None without one. ``api`` is ``opentelemetry.trace``."""
    try:
        context = api.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return traceparent_text(context.trace_id, context.span_id, context.trace_flags)
    except Exception:
        log.debug("no trace context: OpenTelemetry cannot be asked", exc_info=True)
        return None
