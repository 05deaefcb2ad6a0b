"""The transport: a request goes out and an outcome comes back within one total deadline.

Servers are not trusted. Must not know what a status means, what is sent, or that there is an outbox. requests
is imported when the first request is sent, so that a process that only records never pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.delivery.http.deadline import Watchdog
from orchclient.delivery.http.line import CLOSED, Line

if TYPE_CHECKING:
    from orchclient.delivery.http.adapter import LineAdapter


class Transport(Protocol):
    """What a worker sends with. A test or a user may hand in one of their own."""

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        """The answer, or why there is none, within ``deadline_s`` seconds; nothing a network does raises."""

    def close(self) -> None:
        """End the exchange under way and refuse later ones; called from any thread, more than once."""


@runtime_checkable
class Overlapping(Transport, Protocol):
    """A transport that knows when a request is on its way, and that its answer may take a while."""

    meanwhile: Callable[[], None] | None
    """Done by the sending thread between a request's last byte and the wait for its answer. Must not raise."""


class HttpTransport:
    """HTTP over ``requests``, with a connection that is kept and that can be cut at any moment.

    :param proxies: as requests has them, ``{"https": "http://proxy:3128"}``; no SOCKS, none from the environment.
    :param ca_file: a PEM file of authorities to trust instead of the Mozilla ones in certifi.
    :param user_agent: sent unless the request has a ``User-Agent`` of its own.

    One instance serves one thread; only :meth:`close` may be called from others. A forked child makes its own.

    No redirect is followed, no cookie kept, nothing decompressed, nothing sent twice. An answer has at most
    64 KiB of body, 100 headers and 256 KiB on the wire in all. TLS is verified, 1.2 or later.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        user_agent: str = "orchclient",
    ) -> None:
        self._proxies = dict(proxies or {})
        self._ca_file = ca_file
        self._user_agent = user_agent
        self._line = Line()
        self._watchdog = Watchdog(self._line.cut)
        self._adapter: LineAdapter | None = None

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        """Send one request and wait for its answer.

        :param deadline_s: seconds for everything: connecting, TLS, sending, headers and body. Only name
            resolution cannot be cut: it takes what the resolver takes (``resolv.conf``: 5 s a server and try).
        :returns: the answer, whatever its status, or a :class:`NoReply`: no failure of the network raises.
        :raises RuntimeError: another thread is sending on this transport.
        """
        adapter = self._loaded()  # before the clock starts: the first import of requests can take half a second
        began = time.monotonic()
        if not self._line.begin(began + deadline_s):
            return NoReply(CLOSED, "the transport is closed")
        reply, error = None, None
        try:
            self._watchdog.arm(began + deadline_s, deadline_s)
            reply = adapter.exchange(request, began)
        except Exception as raised:  # noqa: BLE001  (an answer can make four libraries raise anything)
            error = raised
        finally:
            cut_by = self._finish()
        if reply is not None and not cut_by:  # a body without a length, cut, looks complete
            return reply
        return _no_reply(error, cut_by, deadline_s, began)

    @property
    def meanwhile(self) -> Callable[[], None] | None:
        """What to do between a request's last byte and the wait for its answer; its time counts."""
        return self._line.meanwhile

    @meanwhile.setter
    def meanwhile(self, work: Callable[[], None] | None) -> None:
        self._line.meanwhile = work

    def close(self) -> None:
        """End the exchange under way at once and refuse later ones. Waits for no server."""
        if self._line.close():
            self._release()
        self._watchdog.close()

    def forget_inherited(self) -> None:
        """In a forked child: nothing more is sent or read here, and the parent's connection is left as it is."""
        self._watchdog.forget_inherited()
        self._line.forget_inherited()

    def __enter__(self) -> HttpTransport:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _loaded(self) -> LineAdapter:
        if self._adapter is None:
            from orchclient.delivery.http.adapter import LineAdapter

            self._adapter = LineAdapter(self._line, self._proxies, self._ca_file, self._user_agent)
        return self._adapter

    def _finish(self) -> str:
        self._watchdog.disarm()
        cut_by = self._line.end()
        if cut_by == CLOSED:  # close() left to us what this thread was using
            self._release()
        return cut_by

    def _release(self) -> None:
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()


def _no_reply(error: Exception | None, cut_by: str, deadline_s: float, began: float) -> NoReply:
    from orchclient.delivery.http.failure import Unreached, failure

    reason, detail = failure(error, cut_by, deadline_s)
    return NoReply(reason, detail, (time.monotonic() - began) * 1e3, isinstance(error, Unreached))
