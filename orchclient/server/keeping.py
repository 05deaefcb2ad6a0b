"""Housekeeping of an orchestrator: deadlines that pass, and the retention. Any number of processes may keep house."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from orchclient.core.errors import ConfigError
from orchclient.server.orchestrator import Orchestrator, StoreUnavailable, Unstorable

LEAST_RETENTION_S: Final = 30 * 86_400
_EXPIRE_S: Final = 1.0
_PRUNE_S: Final = 600.0
_log = logging.getLogger("orchclient.server")


class Keeper:
    """A thread that keeps house between ``start`` and ``stop``. ``retention_s`` is None to keep everything."""

    def __init__(self, orchestrator: Orchestrator, retention_s: float | None) -> None:
        """Raises ``ConfigError`` when the retention is shorter than an agent may be away."""
        if retention_s is not None and retention_s < LEAST_RETENTION_S:
            raise ConfigError("the retention must be 30d at least: an agent may come back so late with what it sent")
        self._orchestrator = orchestrator
        self._retention_s = retention_s
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="orchclient-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End, within so many seconds."""
        self._is_stopping.set()
        self._thread.join(timeout_s)

    def _keep(self) -> None:
        """Settle what nobody answered in time, and forget what is old, until the end."""
        prune_at = time.monotonic() + _EXPIRE_S
        while not self._is_stopping.wait(_EXPIRE_S):
            _tried(self._orchestrator.expire)
            if self._retention_s is not None and time.monotonic() >= prune_at:
                _tried(self._prune)
                prune_at = time.monotonic() + _PRUNE_S

    def _prune(self) -> None:
        older_than_us = self._orchestrator.now_us() - int((self._retention_s or 0) * 1_000_000)
        count = self._orchestrator.prune(older_than_us)
        if count:
            _log.info("forgot history beyond the retention", extra={"orch": {"rows": count}})


def _tried(act: Callable[[], object]) -> None:
    try:
        act()
    except (StoreUnavailable, Unstorable) as error:
        _log.warning("%s", error)
    except Exception:  # noqa: BLE001  one bad turn must not end the keeper
        _log.exception("housekeeping failed; it is tried again")
