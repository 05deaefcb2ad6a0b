"""The outbox that the settings describe, opened. Nothing that delivers is loaded: who only looks is quick."""

from __future__ import annotations

from orchclient import config
from orchclient.delivery.clock import Clock
from orchclient.outbox.limits import Limits
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin


def open_outbox(settings: config.Settings, clock: Clock) -> Outbox:
    """Open it, or make it. Raises ``OutboxError``."""
    path = settings.db or config.default_db()
    origin = Origin(path, _random_source, clock.now_us, settings.allow_network_filesystem)
    return Outbox(origin, Limits(settings.max_pending, settings.max_outbox_bytes, settings.min_free_bytes))


def _random_source() -> str:
    import uuid  # only for a new file

    return str(uuid.uuid4())
