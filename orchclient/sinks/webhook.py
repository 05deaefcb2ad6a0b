"""The dialect of a generic webhook: one CloudEvent a request, signed as Standard Webhooks has it.

The specification (github.com/standard-webhooks, 1.0.0): ``webhook-id`` names the message and stays the same over all
attempts, ``webhook-timestamp`` and ``webhook-signature`` are new with each; the signature is HMAC-SHA256 over
``id.timestamp.body``, one for each secret while secrets are changed. Bodies should stay below 20 kB.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.event_message import message_of
from orchclient.core.events import NotificationPriority
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest
from orchclient.core.message import PREFIX, PRIORITIES
from orchclient.core.policy import Verdict, all_delivered, decide
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.signing import keys_of, signed
from orchclient.sinks.address import must_be_public, target_of
from orchclient.sinks.secretive import Secretive

THIN_ABOVE: Final = 20_000
THIN_SCHEMA: Final = "https://orchclient.dev/schemas/thin.v1.json"


def checked_secrets(setting: str, text: str) -> tuple[Secret, ...]:
    """One or several ``whsec_`` secrets, separated by commas or white space. Raises ``ConfigError``."""
    keys_of(setting, text)
    return tuple(Secret(word) for word in text.replace(",", " ").split())


class WebhookSink(Secretive):
    """Posts to one URL each event whose type and priority are wanted.

    ``types`` are without their prefix (``task.completed.v1``); none: all. ``least`` is the lowest priority.
    """

    kind = "webhook"
    holds = "its URL and its secrets"
    from_beginning = False
    checks_sequence = False

    def __init__(
        self,
        url: Secret,
        signing: Sequence[Secret] = (),
        *,
        name: str = "webhook",
        types: Collection[str] = (),
        least: NotificationPriority = NotificationPriority.LOW,
        public_url: str = "",
        secrets: KnownSecrets | None = None,
        allow_private: bool = False,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.target = target_of(url.reveal())
        self._url = url
        self._keys = [key for secret in signing for key in keys_of("secret", secret.reveal())]
        self._types = frozenset(type_.removeprefix(PREFIX) for type_ in types)
        self._least = PRIORITIES.index(least)
        self._public_url = public_url
        self._secrets = secrets or KnownSecrets((url.reveal(), *(secret.reveal() for secret in signing)))
        self._is_public = must_be_public(url.reveal(), allow_private)
        self._now_s = now_s

    def limit(self) -> BatchLimit:
        """One event a request."""
        return BatchLimit().within(1, BatchLimit().max_bytes)

    def greeting(self) -> HttpRequest | None:
        """A webhook is not asked anything."""
        return None

    def greeted(self, outcome: HttpOutcome, now_us: int) -> Verdict | None:
        """Nothing was asked."""
        return None

    def takes(self, attributes: Mapping[str, Any]) -> bool:
        """Only types and priorities that were asked for."""
        priority = attributes.get("priority")
        urgency = PRIORITIES.index(NotificationPriority(priority)) if priority in PRIORITIES else 0
        is_type = not self._types or str(attributes.get("type")).removeprefix(PREFIX) in self._types
        return is_type and urgency >= self._least

    def render(self, batch: Batch) -> HttpRequest:
        """``POST`` of one event, whole or, above 20 kB, without its data; signed when there is a secret."""
        body = batch.encoded[0]
        if len(body) > THIN_ABOVE:
            body = json.dumps(thin(batch.events[0], len(body), self._public_url), ensure_ascii=False).encode()
        headers = {"Content-Type": "application/cloudevents+json; charset=utf-8", "Accept": "*/*"}
        headers |= signed(self._keys, batch.ids[0], int(self._now_s()), body)
        return HttpRequest("POST", self._url.reveal(), headers, body, self._is_public)

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        """Any 2xx means that it has arrived, whatever stands in the answer; else as for every destination."""
        if isinstance(outcome, HttpReply) and outcome.status // 100 == 2:
            return all_delivered(batch.ids)
        return decide(outcome, batch.ids, now_us, self._secrets.redact_text)


def thin(event: Mapping[str, Any], size: int, public_url: str = "") -> dict[str, Any]:
    """An event without its data: a summary, and the size of what was left out. The id leads to the whole."""
    message = message_of(event, public_url)
    data = event.get("data")
    task_id = data.get("task_id") if isinstance(data, Mapping) else None
    left: dict[str, Any] = {"task_id": task_id} if isinstance(task_id, str) else {}
    left |= {"truncated": True, "event_bytes": size}
    if message is not None:
        left["summary"] = message.title
        left["links"] = [{"label": link.label, "url": link.url} for link in message.links]
    return {**event, "dataschema": THIN_SCHEMA, "data": left}
