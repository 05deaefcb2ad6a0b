"""The reading side of a client in a test: what it recorded, whether it was delivered or not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orchclient.client import OrchestratorClient
from orchclient.core.envelope import event_text, opening
from orchclient.core.redaction import Redactor
from orchclient.outbox import identity, journal
from orchclient.testing.expectations import Expectation, is_heartbeat, summary

if TYPE_CHECKING:
    from orchclient import aio

    AnyClient = OrchestratorClient | aio.OrchestratorClient

Event = dict[str, Any]


class Recorded:
    """What an outbox holds, as events on the wire; made of any client that uses it, an asynchronous one too.

    recorded.assert_recorded("task.completed", task="task-1", quality_score=80.0)
    """

    def __init__(self, client: AnyClient) -> None:
        self._client: OrchestratorClient = client if isinstance(client, OrchestratorClient) else client._target()

    @property
    def _redactor(self) -> Redactor:
        """What takes the secrets that the client knows out of a recording."""
        return self._client._settings.known_secrets().redactor

    @property
    def last_seq(self) -> int:
        """The place of the newest event."""
        found = self._client._station.query(journal.last_seq)
        return found or 0

    def events(
        self,
        type: str | None = None,  # noqa: A002  the word of the wire
        task: str | None = None,
        *,
        after_seq: int = 0,
        **data: Any,
    ) -> list[Event]:
        """What was recorded, oldest first: all, or of a type, of a task, with members of its data.

        Heartbeats, which depend on how long a run takes, only when their type is named.
        """
        wanted = Expectation(type, task, data)
        found = [event for event in self._since(after_seq) if wanted.matches(event)]
        return found if type is not None else [event for event in found if not is_heartbeat(event)]

    def _since(self, after_seq: int) -> list[Event]:
        def read(con: Any) -> list[Event]:
            known = identity.identities(con)
            entries = list(journal.read_range(con, after_seq, journal.MAX_SEQ))
            return [json.loads(event_text(opening(known.of(each.seq)), each.seq, each.body)) for each in entries]

        return self._client._station.query(read) or []

    def assert_recorded(self, type: str, task: str | None = None, **data: Any) -> Event:  # noqa: A002
        """The newest event of these. Raises ``AssertionError`` that shows what was recorded instead."""
        found = self.events(type, task, **data)
        if not found:
            wanted = Expectation(type, task, data)
            told = [f"  {summary(event)}" for event in self.events()] or ["  nothing"]
            raise AssertionError("\n".join([f"nothing was recorded with {wanted}. Recorded was:", *told]))
        return found[-1]
