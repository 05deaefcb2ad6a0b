"""The log of ``orchclient serve``: one line for each thing that happens, as text or as JSON."""

from __future__ import annotations

import json
import logging
from typing import Final, Literal

from orchclient.core.timestamps import rfc3339

Form = Literal["text", "json"]
_LOGGERS: Final = ("orchclient.server", "waitress")


class JsonLines(logging.Formatter):
    """Each record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        said = {
            "time": rfc3339(int(record.created * 1_000_000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "orch", {}),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class TextLines(logging.Formatter):
    """Each record as words, with what else is known of it behind them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        more = " ".join(f"{name}={value}" for name, value in getattr(record, "orch", {}).items())
        text = f"{rfc3339(int(record.created * 1_000_000))} {record.levelname.lower()} {record.getMessage()} {more}"
        return text.rstrip() + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def configure(form: Form, level: int = logging.INFO) -> None:
    """Send the server's log to stderr. Only the program ``orchclient serve`` does this."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a batch that waits for its turn is no news
