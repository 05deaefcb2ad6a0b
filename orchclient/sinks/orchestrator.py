"""The dialect of an orchestrator: CloudEvents 1.0 batches over HTTP, as docs/wire.md says."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlsplit

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.envelope import batch_body
from orchclient.core.errors import ConfigError
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest
from orchclient.core.limits import BATCH_BYTES, BATCH_EVENTS
from orchclient.core.policy import Action, Verdict, decide, printable
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.core.signing import batch_id, keys_of, signed
from orchclient.sinks.orchestrator_inbox import OrchestratorInbox
from orchclient.sinks.secretive import Secretive

PROTOCOL = "1.0"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COMPRESS_ABOVE = 16 * 1024
BYTES_CEILING = 16 * 1_048_576


def checked_url(setting: str, url: str) -> str:
    """A base URL without its trailing slash.

    Raises ``ConfigError`` when it is not an http(s) URL with a host, carries credentials, a query or a fragment, or
    is plain http to another machine: the token would cross the network in the clear.
    """
    form = "expected https://host[:port][/path]"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{setting} is not a URL; {form}") from None
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise ConfigError(f"{setting} contains white space or control characters; {form}")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{setting} is not an http(s) URL; {form}")
    if parts.username or parts.password:
        raise ConfigError(f"{setting} must not carry credentials: use ORCHCLIENT_TOKEN; {form}")
    if parts.query or parts.fragment:
        raise ConfigError(f"{setting} must not carry a query or fragment; {form}")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ConfigError(f"{setting} uses plain http to {host}: use https, plain http is for this machine only")
    return url.rstrip("/")


class OrchestratorSink(Secretive):
    """Delivers to ``{url}/v1/events``. ``token`` is asked for at every request, so it may be renewed.

    With ``signing`` secrets each request that has a body is signed, on top of the token.
    """

    kind = "orchestrator"
    holds = "where its token comes from"
    from_beginning = True
    checks_sequence = True

    def __init__(
        self,
        url: str,
        token: Callable[[], str | None],
        *,
        name: str = "orchestrator",
        secrets: KnownSecrets | None = None,
        signing: Sequence[Secret] = (),
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.target = sha256(url.encode()).hexdigest()[:12]
        self._url = url
        self._token = token
        self._secrets = secrets or KnownSecrets()  # an answer may repeat the token
        self._limit = BatchLimit()
        self._takes_gzip = False
        self._keys = [key for secret in signing for key in keys_of("signing_secret", secret.reveal())]
        self._now_s = now_s
        self.inbox = OrchestratorInbox(url, self._headers, self._secrets.redact_text, self._signed)

    def greeting(self) -> HttpRequest:
        """``GET /v1/capabilities``."""
        return HttpRequest("GET", f"{self._url}/v1/capabilities", self._headers())

    def greeted(self, outcome: HttpOutcome, now_us: int) -> Verdict | None:
        """Capabilities, or the defaults when the orchestrator has none; trouble is trouble before the first batch."""
        if isinstance(outcome, HttpReply) and (outcome.status // 100 == 2 or outcome.status in (404, 405, 501)):
            return self._learned(outcome)
        verdict = decide(outcome, (), now_us, self._secrets.redact_text)
        if verdict.action in (Action.BISECT, Action.HALVE):
            return None  # a refusal of the question itself: the defaults serve
        return verdict

    def _learned(self, reply: HttpReply) -> Verdict | None:
        document = _object(reply.body) if reply.status // 100 == 2 else {}
        spoken = document.get("protocol")
        if isinstance(spoken, list) and not any(isinstance(version, str) and version[:2] == "1." for version in spoken):
            said = printable(self._secrets.redact_text(", ".join(map(str, spoken))), 60)
            return Verdict(Action.PAUSE, f"speaks protocol {said or 'none'}, this client speaks {PROTOCOL}")
        batch = document.get("batch")
        batch = batch if isinstance(batch, dict) else {}
        self._limit = BatchLimit().within(
            _bounded(batch.get("max_events"), BATCH_EVENTS, BATCH_EVENTS),
            _bounded(batch.get("max_bytes"), BATCH_BYTES, BYTES_CEILING),
        )
        encodings = document.get("encodings")
        self._takes_gzip = isinstance(encodings, list) and "gzip" in encodings
        return None

    def report_request(self, source: str) -> HttpRequest:
        """``GET /v1/sources/{source}``: what the orchestrator holds of an outbox (a UUID)."""
        return HttpRequest("GET", f"{self._url}/v1/sources/{quote(f'urn:uuid:{source}', safe='')}", self._headers())

    def limit(self) -> BatchLimit:
        """As the capabilities say."""
        return self._limit

    def render(self, batch: Batch) -> HttpRequest:
        """``POST /v1/events`` with the whole batch."""
        body = batch_body(batch.encoded)
        headers = self._headers() | {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
        if self._takes_gzip and len(body) > COMPRESS_ABOVE:
            headers["Content-Encoding"] = "gzip"
            body = _gzip(body)
        return HttpRequest("POST", f"{self._url}/v1/events", headers | self._signed(body), body)

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        """As the decision table says."""
        return decide(outcome, batch.ids, now_us, self._secrets.redact_text)

    def _signed(self, body: bytes) -> dict[str, str]:
        """What goes with a request that has a body, as it is sent; nothing without a signing secret."""
        return signed(self._keys, batch_id(body), int(self._now_s()), body) if self._keys else {}

    def _headers(self) -> dict[str, str]:
        token = self._token()
        if token:
            self._secrets.learn(token)
        headers = {"Accept": "application/json, application/problem+json", "Orchclient-Version": PROTOCOL}
        return headers | {"Authorization": f"Bearer {token}"} if token else headers


def _gzip(body: bytes) -> bytes:
    # Level 1: on events it is within a fifth of level 6 at a fraction of the time.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def _bounded(value: Any, default: int, ceiling: int) -> int:
    """A positive integer of the receiver's, clamped; the default for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        return default
    return min(value, ceiling)


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
