"""A connection to NATS that is used by one thread at a time, with an asyncio loop that runs only while it is used.

The only file that touches nats-py: what it raises becomes words and a ``Kind``. Knows no event and no verdict. Between
two uses nothing runs, so a server may give the connection up meanwhile: then the next use makes another one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import field, frozen

from orchclient.core.secret import Secret

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.client import JetStreamContext

T = TypeVar("T")

HEADERS_ROOM = 512
"""What the headers of a message take at most; a server counts them among its payload."""

_CLOSE_S = 0.3
_TOO_LARGE = 10054


class Kind(StrEnum):
    """What became of a message."""

    STORED = "stored"
    UNHEARD = "unheard"  # no acknowledgement: it may be stored
    NO_STREAM = "no_stream"
    BUSY = "busy"  # the stream says no, for now
    TOO_LARGE = "too_large"
    REFUSED = "refused"  # the credentials, or the subject


@frozen
class Outcome:
    """What became of a message, and why, in words."""

    kind: Kind
    words: str = ""


@frozen
class Message:
    """What is published. ``id`` is what the stream knows a repeat by."""

    id: str
    subject: str
    payload: bytes = field(repr=False)


class Unreachable(Exception):
    """There is no connection: the kind of trouble, and words."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.words)
        self.outcome = outcome


class Ended(Exception):
    """``close`` ended it."""


@frozen
class Access:
    """Where to connect, as whom, and whom to trust."""

    servers: Sequence[str]  # without credentials: nats://host:4222, tls://host:4222
    user: str = ""
    password: Secret | None = None
    token: Secret | None = None
    credentials_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class NatsLine:
    """Publishes to JetStream. One thread uses it; ``close`` may be called from any."""

    def __init__(self, access: Access, stream: str = "") -> None:
        self._access = access
        self._stream = stream
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._made: list[Client] = []  # in this loop, those that came to nothing too
        self._task: asyncio.Task[Any] | None = None
        self._in_use = threading.Lock()
        self._is_ending = False
        self._trouble: asyncio.Event | None = None
        self._said = ""

    def publish(self, lanes: Sequence[Sequence[Message]], deadline_s: float) -> dict[str, Outcome]:
        """Publish messages, each when the one before it in its lane is stored; lanes go beside each other.

        Gives what is known of each by its id; one that is missing was not sent. Raises ``Unreachable`` and ``Ended``.
        """
        until = time.monotonic() + deadline_s
        was_open = self._client is not None
        found: dict[str, Outcome] = {}
        self._run(lambda: self._published(lanes, found, until), deadline_s)
        is_lost = self._client is None and not any(each.kind is Kind.STORED for each in found.values())
        if was_open and is_lost and time.monotonic() < until:  # the connection was given up while nobody looked
            found.clear()
            self._run(lambda: self._published(lanes, found, until), until - time.monotonic())
        return found

    def stream_of(self, subject: str, deadline_s: float) -> str:
        """The stream that takes a subject, empty for none. Raises ``Unreachable``."""
        return self._run(lambda: self._looked_up(subject), deadline_s) or ""

    def close(self) -> None:
        """Cut what is under way, and let the connection go."""
        self._is_ending = True
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with suppress(RuntimeError):  # it ended by itself meanwhile
                loop.call_soon_threadsafe(task.cancel)
        if self._in_use.acquire(timeout=2 * _CLOSE_S):
            try:
                self._let_go()
            finally:
                self._in_use.release()

    def inherited(self) -> object:
        """In a forked child: what must be kept and never touched. This line is as new afterwards."""
        kept = self._loop, self._client, self._made, self._task, self._trouble
        self._loop = self._client = self._task = self._trouble = None
        self._made = []
        self._in_use = threading.Lock()
        return kept

    # --- The loop -------------------------------------------------------------------------------------------------

    def _run(self, work: Callable[[], Coroutine[Any, Any, T]], deadline_s: float) -> T | None:
        """Do it within the deadline; None when that passed, or the connection broke."""
        with self._in_use:
            self._is_ending = False
            self._loop = self._loop or asyncio.new_event_loop()
            task = self._loop.create_task(self._bounded(work, deadline_s))
            self._task = task
            try:
                return self._loop.run_until_complete(task)
            except asyncio.CancelledError:
                if self._is_ending:
                    raise Ended from None
                raise Unreachable(Outcome(Kind.UNHEARD, "the connection broke")) from None
            finally:
                self._task = None
                if self._is_ending or self._client is None or self._client.is_closed:
                    self._let_go()

    async def _bounded(self, work: Callable[[], Awaitable[T]], deadline_s: float) -> T | None:
        try:
            async with asyncio.timeout(max(deadline_s, 0.01)):
                return await self._unless_broken(work)
        except TimeoutError:
            if self._client is None:
                raise Unreachable(Outcome(Kind.UNHEARD, "the server does not answer in time")) from None
            self._client = None  # what it answers later would answer nothing that is asked then
            return None

    async def _unless_broken(self, work: Callable[[], Awaitable[T]]) -> T | None:
        await self._connected()
        assert self._trouble is not None
        doing, breaking = asyncio.ensure_future(work()), asyncio.ensure_future(self._trouble.wait())
        try:
            await asyncio.wait((doing, breaking), return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            self._client = None
            outcome = _of_connecting(None, self._said)
            if outcome.kind is Kind.REFUSED:
                raise Unreachable(outcome)
            return None
        finally:
            for each in (doing, breaking):
                each.cancel()

    def _let_go(self) -> None:
        loop, made = self._loop, self._made
        self._loop = self._client = None
        self._made = []
        if loop is None:
            return
        with suppress(Exception):  # whatever a connection says that is given up
            loop.run_until_complete(_ended(made))
        loop.close()

    # --- The connection -------------------------------------------------------------------------------------------

    async def _connected(self) -> None:
        if self._client is not None and self._client.is_connected:
            return
        self._client, self._said = None, ""
        trouble: Outcome | None = None
        for server in self._access.servers:
            try:
                self._client = await self._connection(server)
                return
            except Exception as error:  # noqa: BLE001  nats-py, asyncio, ssl and the system raise what they like
                trouble = error.outcome if isinstance(error, Unreachable) else _of_connecting(error, self._said)
        raise Unreachable(trouble or Outcome(Kind.UNHEARD, "no server is configured"))

    async def _connection(self, server: str) -> Client:
        from nats.aio.client import Client

        client, self._trouble, is_connecting = Client(), asyncio.Event(), True
        self._made.append(client)
        trouble, access = self._trouble, self._access

        async def closed() -> None:
            trouble.set()

        async def said(error: Exception) -> None:
            self._said = _words(error)
            if is_connecting:  # the library would try again for minutes
                raise Unreachable(_of_connecting(error, self._said))
            if "permissions violation" in self._said.lower():
                trouble.set()

        options: dict[str, Any] = {
            "user": access.user or None,
            "password": access.password.reveal() if access.password else None,
            "token": access.token.reveal() if access.token else None,
            "user_credentials": access.credentials_file or None,
            "tls": _tls(access) if server.startswith("tls:") else None,
        }
        await client.connect(
            server, error_cb=said, closed_cb=closed, allow_reconnect=False, name="orchclient", **options
        )
        is_connecting = False
        return client

    # --- What is said ---------------------------------------------------------------------------------------------

    async def _published(self, lanes: Sequence[Sequence[Message]], found: dict[str, Outcome], until: float) -> None:
        assert self._client is not None
        stream = self._client.jetstream()
        await asyncio.gather(*(self._lane(stream, lane, found, until) for lane in lanes))

    async def _lane(
        self, stream: JetStreamContext, lane: Sequence[Message], found: dict[str, Outcome], until: float
    ) -> None:
        for message in lane:
            found[message.id] = Outcome(Kind.UNHEARD, "no acknowledgement from the stream")
            found[message.id] = outcome = await self._one(stream, message, until)
            if outcome.kind not in (Kind.STORED, Kind.TOO_LARGE):
                return  # what follows must not overtake it

    async def _one(self, stream: JetStreamContext, message: Message, until: float) -> Outcome:
        most = self._client.max_payload if self._client is not None else 0
        if len(message.payload) + HEADERS_ROOM > most > 0:
            return Outcome(Kind.TOO_LARGE, f"the server takes messages of {most} bytes at most")
        headers = {"Nats-Msg-Id": message.id, "Content-Type": "application/cloudevents+json; charset=utf-8"}
        try:
            await stream.publish(
                message.subject,
                message.payload,
                timeout=max(until - time.monotonic(), 0.01),
                stream=self._stream or None,
                headers=headers,
            )
        except Exception as error:  # noqa: BLE001  likewise
            return _of_publishing(error, message.subject)
        return Outcome(Kind.STORED)

    async def _looked_up(self, subject: str) -> str:
        from nats.js.errors import NotFoundError

        assert self._client is not None
        try:
            return str(await self._client.jetstream().find_stream_name_by_subject(subject))
        except NotFoundError:
            return ""
        except Exception as error:
            raise Unreachable(_of_publishing(error, subject)) from error


async def _ended(made: Sequence[Client]) -> None:
    for client in made:
        with suppress(Exception):
            await asyncio.wait_for(client.close(), _CLOSE_S)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _of_connecting(error: Exception | None, said: str) -> Outcome:
    words = said or (_words(error) if error else "")
    is_refused = any(sign in words.lower() for sign in ("authorization", "authentication", "permissions violation"))
    return Outcome(Kind.REFUSED if is_refused else Kind.UNHEARD, words)


def _of_publishing(error: Exception, subject: str) -> Outcome:
    from nats.errors import MaxPayloadError
    from nats.js.errors import APIError, NoStreamResponseError

    if isinstance(error, NoStreamResponseError):
        return Outcome(Kind.NO_STREAM, f"no JetStream stream takes the subject {subject}")
    if isinstance(error, MaxPayloadError):
        return Outcome(Kind.TOO_LARGE, _words(error))
    if isinstance(error, APIError):
        words = f"the stream says {error.code} {error.description or ''}".rstrip()
        return Outcome(Kind.TOO_LARGE if error.err_code == _TOO_LARGE else Kind.BUSY, words)
    return Outcome(Kind.UNHEARD, _words(error))


def _words(error: Exception) -> str:
    return " ".join(str(error).removeprefix("nats: ").split()) or type(error).__name__


def _tls(access: Access) -> Any:
    import ssl

    import certifi

    context = ssl.create_default_context(cafile=access.ca_file or certifi.where())
    if access.cert_file:
        context.load_cert_chain(access.cert_file, access.key_file or None)
    return context
