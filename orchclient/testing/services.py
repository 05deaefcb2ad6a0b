"""Loopback doubles of the services that messages go to, with their rules: limits, rate buckets, headers, error bodies.

``with DiscordDouble() as discord:`` opens one; ``discord.webhook_url`` goes into the settings. What people would see is
in ``messages``. The rules are those of docs.discord.com ("Webhook Resource", "Rate Limits") and docs.slack.dev
("Incoming webhooks", "Rate limits"), read in August 2026; the numbers of Discord's bucket are observed.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Self

from attrs import define, field, frozen

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.testing.door import HOST, Door, bound
from orchclient.testing.faultplan import Fault, Line, Refused, encoded

JSON = {"Content-Type": "application/json"}


@frozen
class Seen:
    """One request that arrived, and what was answered (None: nothing)."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    at_s: float = 0.0
    status: int | None = None

    @property
    def json(self) -> Any:
        """The body as a value."""
        return json.loads(self.body)


@define
class Shown:
    """A message as people see it: its newest payload, and when it was posted and changed (monotonic seconds)."""

    id: str
    payload: dict[str, Any]
    posted_s: float
    edited_s: list[float] = field(factory=list)
    is_deleted: bool = False
    thread_id: str = ""  # below which message it stands
    is_in_channel: bool = True  # where everybody looks

    @property
    def text(self) -> str:
        """Everything that is shown, one text."""
        return "\n".join(_texts(self.payload))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _texts(each)


class Double:
    """A server on loopback that remembers what it was asked. ``faults`` are taken one by one, each by one request."""

    path = "/"

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.seen: list[Seen] = []
        self.messages: list[Shown] = []
        self._faults: deque[Fault] = deque()
        self._is_broken: HttpReply | None = None
        self._door: Door | None = None
        self._port = 0
        self._numbers = count(1_100_000_000_000_000_000)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Open the port: the same one ever after."""
        listener = bound(self._port)
        self._port = listener.getsockname()[1]
        self._door = Door(listener, self._converse)
        return self

    def stop(self) -> None:
        """Close the port and every connection; what people saw stays."""
        door, self._door = self._door, None
        if door is not None:
            door.close()

    @property
    def webhook_url(self) -> str:
        """Where to post."""
        return f"http://{HOST}:{self._port}{self.path}"

    def plan(self, *faults: Fault | HttpReply) -> None:
        """Each of the next requests takes one: a fault of the connection, or an answer instead of the true one."""
        with self.changed:
            self._faults.extend(each if isinstance(each, Fault) else Fault("answer", instead=each) for each in faults)

    def always(self, reply: HttpReply | None) -> None:
        """Answer everything so, until ``None``."""
        with self.changed:
            self._is_broken = reply

    def wait_for(self, enough: Callable[[], bool], timeout_s: float = 20.0) -> bool:
        """Wait until a condition on what was seen holds."""
        with self.changed:
            return self.changed.wait_for(enough, timeout_s)

    @property
    def shown(self) -> list[Shown]:
        """The messages that people see now."""
        with self.changed:
            return [message for message in self.messages if not message.is_deleted]

    def count(self, status: int) -> int:
        """How many requests were answered so."""
        with self.changed:
            return sum(each.status == status for each in self.seen)

    def answer(self, request: HttpRequest) -> HttpReply:
        """What the service answers; called with the lock held."""
        raise NotImplementedError

    def _converse(self, line: Line) -> None:
        try:
            while (request := line.read()) is not None and self._serve(line, request):
                pass
        except Refused as refused:
            line.write(encoded(refused.reply))

    def _serve(self, line: Line, request: HttpRequest) -> bool:
        with self.changed:
            fault = self._faults.popleft() if self._faults else Fault.ok()
            reply = fault.instead or self._is_broken or self.answer(request)
            status = reply.status if fault.answers else None
            path = request.url
            self.seen.append(Seen(request.method, path, request.headers, request.body, time.monotonic(), status))
            self.changed.notify_all()
        return fault.manner.send(line, encoded(reply))

    def _show(self, payload: dict[str, Any]) -> Shown:
        shown = Shown(str(next(self._numbers)), payload, time.monotonic())
        self.messages.append(shown)
        return shown


@define
class Bucket:
    """So many requests in so many seconds, counted as they come."""

    limit: int
    window_s: float
    taken: deque[float] = field(factory=deque)

    def take(self, now_s: float) -> float:
        """0 when there was room, else the seconds until there is."""
        while self.taken and now_s - self.taken[0] >= self.window_s:
            self.taken.popleft()
        if len(self.taken) >= self.limit:
            return self.window_s - (now_s - self.taken[0])
        self.taken.append(now_s)
        return 0.0

    def headers(self, now_s: float) -> dict[str, str]:
        """As Discord tells them: what is left, and when the window ends."""
        reset_s = self.window_s - (now_s - self.taken[0]) if self.taken else 0.0
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(self.limit - len(self.taken), 0)),
            "X-RateLimit-Reset-After": f"{max(reset_s, 0.001):.3f}",
            "X-RateLimit-Bucket": "a-webhook-s-bucket",
        }


class DiscordDouble(Double):
    """Webhooks of Discord: each ``limit`` requests in ``window_s`` seconds (observed: 5 in 2), 50 a second together.

    ``other_webhook_url`` is another one, of another channel.
    """

    path = "/api/webhooks/123456789012345678/" + "t" * 68
    other_path = "/api/webhooks/876543210987654321/" + "o" * 68

    def __init__(self, limit: int = 5, window_s: float = 2.0) -> None:
        super().__init__()
        self.bucket = Bucket(limit, window_s)
        self.buckets = {self.path: self.bucket, self.other_path: Bucket(limit, window_s)}
        self.all_together = Bucket(50, 1.0)

    @property
    def other_webhook_url(self) -> str:
        """Where to post to the other channel."""
        return f"http://{HOST}:{self._port}{self.other_path}"

    def delete(self, shown: Shown) -> None:
        """A person deletes a message."""
        with self.changed:
            shown.is_deleted = True

    def answer(self, request: HttpRequest) -> HttpReply:
        """``POST`` shows, ``PATCH`` of a message changes it; whatever Discord refuses is refused."""
        path, _, query = request.url.partition("?")
        webhook = next((each for each in self.buckets if path.startswith(each)), None)
        if webhook is None:
            return discord_error(404, 10015, "Unknown Webhook")
        now_s, bucket = time.monotonic(), self.buckets[webhook]
        wait_s = self.all_together.take(now_s)
        if wait_s:
            return discord_too_fast(wait_s, is_global=True)
        wait_s = bucket.take(now_s)
        if wait_s:
            return discord_too_fast(wait_s, bucket.headers(now_s))
        reply = self._served(request, path[len(webhook) :], query)
        return HttpReply(reply.status, {**reply.headers, **bucket.headers(now_s)}, reply.body)

    def _served(self, request: HttpRequest, below: str, query: str) -> HttpReply:
        if request.method == "GET" and not below:
            return HttpReply(200, JSON, json.dumps({"id": "123456789012345678", "type": 1, "name": "agents"}).encode())
        payload = _object(request.body)
        problem = discord_problem(payload)
        if problem:
            return HttpReply(
                400, JSON, json.dumps({"message": "Invalid Form Body", "code": 50035, "errors": problem}).encode()
            )
        assert payload is not None
        if request.method == "POST" and not below:
            shown = self._show(payload)
            return _told(shown) if "wait=true" in query else HttpReply(204)
        edited = re.fullmatch(r"/messages/(\d+)", below)
        if request.method != "PATCH" or edited is None:
            return discord_error(405, 0, "405: Method Not Allowed")
        for shown in self.messages:
            if shown.id == edited[1] and not shown.is_deleted:
                shown.payload = {**shown.payload, **payload}
                shown.edited_s.append(time.monotonic())
                return _told(shown)
        return discord_error(404, 10008, "Unknown Message")


def discord_error(status: int, code: int, message: str, **more: Any) -> HttpReply:
    """An error as Discord words it."""
    return HttpReply(status, JSON, json.dumps({"message": message, "code": code, **more}).encode())


def discord_too_fast(wait_s: float, headers: Mapping[str, str] | None = None, *, is_global: bool = False) -> HttpReply:
    """A 429: seconds as a float in the body, as a whole number in the header."""
    told = {"Retry-After": str(int(wait_s) + 1), "X-RateLimit-Scope": "global" if is_global else "user"}
    told |= {"X-RateLimit-Global": "true"} if is_global else {}
    body = {"message": "You are being rate limited.", "retry_after": round(wait_s, 3), "global": is_global}
    return HttpReply(429, {**JSON, **(headers or {}), **told}, json.dumps(body).encode())


def discord_problem(payload: dict[str, Any] | None) -> dict[str, str]:
    """What Discord refuses in a payload, by the name of the field."""
    if payload is None:
        return {"body": "not a JSON object"}
    embeds = payload.get("embeds", [])
    found = {"content": "too long"} if len(payload.get("content", "")) > 2_000 else {}
    if not payload.get("content") and not embeds:
        found["content"] = "Cannot send an empty message"
    if len(embeds) > 10:
        found["embeds"] = "too many"
    total = 0
    for embed in embeds:
        fields = embed.get("fields", [])
        texts = [(embed.get("title", ""), 256), (embed.get("description", ""), 4_096)]
        texts += [(embed.get("footer", {}).get("text", ""), 2_048)]
        texts += [(each.get("name", ""), 256) for each in fields] + [(each.get("value", ""), 1_024) for each in fields]
        if len(fields) > 25 or any(not each.get("name") or not each.get("value") for each in fields):
            found["fields"] = "too many, or empty"
        if any(len(text) > most for text, most in texts):
            found["embed"] = "a text is too long"
        total += sum(len(text) for text, _ in texts)
    if total > 6_000:
        found["embeds"] = "Embed size exceeds maximum size of 6000"
    return found


def _told(shown: Shown) -> HttpReply:
    return HttpReply(
        200, JSON, json.dumps({"id": shown.id, "type": 0, "content": shown.payload.get("content", "")}).encode()
    )


class SlackDouble(Double):
    """An incoming webhook of Slack: one message a second in its channel, short bursts tolerated."""

    path = "/services/T00000000/B00000000/" + "x" * 24

    def __init__(self, burst: int = 4, second_s: float = 1.0) -> None:
        super().__init__()
        self._second_s = second_s
        self._burst = burst
        self._full_s = 0.0

    def answer(self, request: HttpRequest) -> HttpReply:
        """``ok``, or Slack's one word."""
        if request.url != self.path:
            return HttpReply(404, {}, b"no_service")
        if request.method != "POST":
            return HttpReply(405, {}, b"")
        now_s = time.monotonic()
        if max(self._full_s - now_s, 0.0) > self._burst * self._second_s:
            return HttpReply(429, {"Retry-After": "1"}, b"rate_limited")
        self._full_s = max(self._full_s, now_s) + self._second_s
        payload = _object(request.body)
        word = slack_problem(payload)
        if word or payload is None:
            return HttpReply(400, {}, word.encode())
        self._show(payload)
        return HttpReply(200, {"Content-Type": "text/html"}, b"ok")


class SlackApiDouble(Double):
    """Slack's Web API with the methods by which an app tells people: one channel, one token, threads.

    A ``thread_ts`` must be that of a message which is there and stands in no thread itself (``thread_not_found``).
    """

    path = "/api"
    token = "xoxb-double-token-1234567890"  # noqa: S105
    channel = "C0123456789"

    @property
    def api_url(self) -> str:
        """Where the methods are."""
        return self.webhook_url

    def delete(self, shown: Shown) -> None:
        """A person deletes a message."""
        with self.changed:
            shown.is_deleted = True

    def answer(self, request: HttpRequest) -> HttpReply:
        """Always 200; ``ok`` and ``error`` tell."""
        payload = _object(request.body)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return slack_error("invalid_auth")
        if request.url == f"{self.path}/auth.test":
            return HttpReply(200, JSON, b'{"ok":true,"team_id":"T0123456789","bot_id":"B0123456789"}')
        if payload is None or payload.get("channel") != self.channel:
            return slack_error("channel_not_found")
        problem = slack_problem(payload)
        if problem:
            return slack_error(problem)
        if request.url == f"{self.path}/chat.postMessage":
            return self._posted(payload)
        if request.url != f"{self.path}/chat.update":
            return slack_error("unknown_method")
        for shown in self.messages:
            if _stamp(shown) == payload.get("ts") and not shown.is_deleted:
                shown.payload = payload
                shown.edited_s.append(time.monotonic())
                return self._ok(shown)
        return slack_error("message_not_found")

    def _posted(self, payload: dict[str, Any]) -> HttpReply:
        root = payload.get("thread_ts")
        roots = (_stamp(shown) for shown in self.messages if not shown.is_deleted and not shown.thread_id)
        if root is not None and root not in roots:
            return slack_error("thread_not_found")
        shown = self._show(payload)
        if root is not None:
            shown.thread_id = f"{self.channel}:{root}"
            shown.is_in_channel = payload.get("reply_broadcast") is True
        return self._ok(shown)

    def id_of(self, shown: Shown) -> str:
        """The channel and the time stamp by which a message is known."""
        return f"{self.channel}:{_stamp(shown)}"

    def _ok(self, shown: Shown) -> HttpReply:
        body = {"ok": True, "channel": self.channel, "ts": _stamp(shown)}
        return HttpReply(200, JSON, json.dumps(body).encode())


def _stamp(shown: Shown) -> str:
    return f"{shown.id[:10]}.{shown.id[-6:]}"


def slack_error(word: str) -> HttpReply:
    """An error of the Web API."""
    return HttpReply(200, JSON, json.dumps({"ok": False, "error": word}).encode())


def slack_problem(payload: dict[str, Any] | None) -> str:
    """Slack's word for what it refuses in a payload; empty for none."""
    if payload is None:
        return "invalid_payload"
    blocks = payload.get("blocks", [])
    if not payload.get("text") and not blocks:
        return "no_text"
    if len(blocks) > 50 or any(not _is_block(block) for block in blocks):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(len, _texts(blocks))) > 13_172 + 30 * len(blocks) else ""


def _is_block(block: Mapping[str, Any]) -> bool:
    most = {"header": 150, "section": 3_000}.get(block.get("type", ""), 3_000)
    text = block.get("text", {}).get("text", "-")
    fields = block.get("fields", [])
    return 0 < len(text) <= most and len(fields) <= 10 and all(0 < len(each["text"]) <= 2_000 for each in fields)


class WebhookDouble(Double):
    """Takes whatever is posted, as a generic webhook does."""

    path = "/hook"

    def answer(self, request: HttpRequest) -> HttpReply:
        """Accepted."""
        payload = _object(request.body)
        if payload is None:
            return HttpReply(400)
        self._show(payload)
        return HttpReply(202)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
