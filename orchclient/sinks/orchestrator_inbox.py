"""The dialect of an orchestrator's inbox: polls and acknowledgements out, pages in, as docs/wire.md says. No I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlencode

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest
from orchclient.core.inbox_page import PageRefused, page_of
from orchclient.core.limits import LONG_POLL_S
from orchclient.core.policy import decide
from orchclient.core.polling import Heard, InboxState, state_for
from orchclient.core.secret import Redact


class OrchestratorInbox:
    """The way back from ``{url}/v1/inbox``. ``headers`` is asked at every request, so a token may be renewed.

    Called by one thread, which is not the one that delivers: so it asks for the capabilities itself.
    """

    def __init__(
        self,
        url: str,
        headers: Callable[[], dict[str, str]],
        redact: Redact,
        signed: Callable[[bytes], dict[str, str]] = lambda body: {},
    ) -> None:
        self._url = url
        self._signed = signed
        self._headers = headers
        self._redact = redact
        self.longest_wait_s = LONG_POLL_S

    def greeting(self) -> HttpRequest:
        """``GET /v1/capabilities``: how long a poll may be held."""
        return HttpRequest("GET", f"{self._url}/v1/capabilities", self._headers())

    def greeted(self, outcome: HttpOutcome) -> None:
        """Learn the longest wait; whatever else is the answer leaves the default, and the poll will tell of trouble."""
        self.longest_wait_s = _longest_wait_s(outcome)

    def poll(self, source: str, cursor: str, wait_s: float) -> HttpRequest:
        """``GET /v1/inbox`` for an outbox (a UUID) from a cursor on, "" for the oldest item not acknowledged."""
        query = {"source": f"urn:uuid:{source}", "cursor": cursor, "wait": f"{max(wait_s, 0.0):.3f}"}
        query["wait"] = query["wait"].rstrip("0").rstrip(".")
        if not cursor:
            del query["cursor"]
        return HttpRequest("GET", f"{self._url}/v1/inbox?{urlencode(query)}", self._headers())

    def polled(self, outcome: HttpOutcome, now_us: int) -> Heard:
        """What the answer to a poll means; a page that is none is trouble, and nothing of it counts."""
        heard = self.acknowledged(outcome, now_us)
        if heard.state is not InboxState.POLLING or not isinstance(outcome, HttpReply):
            return heard
        try:
            return Heard(InboxState.POLLING, page=page_of(outcome.body))
        except PageRefused as refusal:
            return Heard(InboxState.WAITING, f"HTTP {outcome.status}: {refusal}")

    def acknowledgement(self, source: str, cursor: str) -> HttpRequest:
        """``POST /v1/inbox/ack``: everything up to the cursor is stored."""
        body = json.dumps({"source": f"urn:uuid:{source}", "cursor": cursor}, separators=(",", ":")).encode()
        headers = self._headers() | {"Content-Type": "application/json"}
        return HttpRequest("POST", f"{self._url}/v1/inbox/ack", headers | self._signed(body), body)

    def acknowledged(self, outcome: HttpOutcome, now_us: int) -> Heard:
        """What the answer to an acknowledgement means. Its body is not read."""
        state = state_for(outcome)
        if state is InboxState.POLLING:
            return Heard(state)
        told = decide(outcome, (), now_us, self._redact)
        return Heard(state, told.reason, told.retry_after_s)


def _longest_wait_s(outcome: HttpOutcome) -> float:
    if not isinstance(outcome, HttpReply) or outcome.status // 100 != 2:
        return LONG_POLL_S
    try:
        wait_s = json.loads(outcome.body)["inbox"]["max_wait_s"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return LONG_POLL_S
    is_number = isinstance(wait_s, int | float) and not isinstance(wait_s, bool)
    return float(min(wait_s, LONG_POLL_S)) if is_number and wait_s >= 0 else LONG_POLL_S
