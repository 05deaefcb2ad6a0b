"""Connections that can be cut: urllib3's, dialled so that every step of them ends when the line says so.

Knows nothing of sessions, of what is sent, or of what an answer means.

``_new_conn`` is private to urllib3, but it is where urllib3's own SOCKS connections dial as well; the tests of
the faults fail when it is no longer called.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import wait_for_write

from orchclient.core.addresses import is_public
from orchclient.delivery.http.answer import BoundedResponse
from orchclient.delivery.http.failure import NotPublic, Unreached
from orchclient.delivery.http.line import Line

# A router on the way may forget an idle connection without telling us, and the next request on it would wait
# for its whole deadline. One minute is below the limits in use (Azure's balancers 4 min, AWS's 350 s).
MAX_IDLE_S = 60.0


class PlainConnection(HTTPConnection):
    """One TCP connection, reused while it stays open, and a duplicate of its socket to cut it by.

    The duplicate is needed because wrapping in TLS takes the socket's descriptor away for the length of the
    handshake, and because a descriptor that is closed under the line's lock cannot become another file while
    the line cuts by it.
    """

    def __init__(self, *args: Any, line: Line, **options: Any) -> None:
        self._line = line
        self._handle: socket.socket | None = None
        self._idle_since = 0.0
        super().__init__(*args, **options)
        self.response_class = partial(BoundedResponse, line=line)  # type: ignore[assignment]

    @property
    def is_connected(self) -> bool:
        """Whether a kept connection can be used again.

        urllib3 asks this before each reuse and dials anew on False. Its own part, relied on here, is a look
        whether the idle socket has become readable: the server closed it, or talks out of turn. What is
        closed between that look and our first byte comes out as ``broken`` and is not sent again here:
        nothing tells whether the server processed it.
        """
        return time.monotonic() - self._idle_since < MAX_IDLE_S and super().is_connected

    def connect(self) -> None:
        """Dial, and set up a tunnel and TLS where they belong."""
        try:
            super().connect()
        except Exception as error:  # noqa: BLE001  (a proxy's answer can raise what a server's can)
            # Not as it is: urllib3 takes a reset for a server that answered early, and would go on to read.
            raise Unreached(error) from None

    def request(self, method: str, url: str, *args: Any, **options: Any) -> None:
        """Send the request for the line's target; ``url`` is what urllib3 was told, because it logs that."""
        self._line.hold(self)
        super().request(method, self._line.target, *args, **options)
        if self._line.meanwhile is not None:
            self._line.meanwhile()

    def close(self) -> None:
        """Close; while an exchange is under way the duplicate stays until its end.

        http.client closes before the body is read when the answer says ``Connection: close``.
        """
        super().close()
        if not self._line.holds(self):
            self.settle()

    def settle(self) -> None:
        """Let go of the duplicate when the connection is closed."""
        self._idle_since = time.monotonic()
        if self.sock is None:
            self.watch(None)

    def shut_down(self) -> None:
        """End reading and writing at once, in whatever state they are."""
        if self._handle is not None:
            with suppress(OSError):
                self._handle.shutdown(socket.SHUT_RDWR)

    def forget_inherited(self) -> None:
        """In a forked child: put a dead socket in the place of the parent's, whoever still uses it here.

        Closing it would do for the parent too, but its number could become another file meanwhile.
        """
        if self.sock is None:
            return
        dead, other_end = socket.socketpair()
        other_end.close()
        with dead, suppress(OSError):
            os.dup2(dead.fileno(), self.sock.fileno())

    def watch(self, handle: socket.socket | None) -> None:
        """Be cut by this duplicate of the socket from now on, and close the one before."""
        old, self._handle = self._handle, handle
        if old is not None:
            old.close()

    def _new_conn(self) -> socket.socket:
        # getaddrinfo can be neither cut nor given a timeout: it outlives the deadline by what the resolver
        # takes.
        found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        if self._line.must_be_public and not all(is_public(str(address[0])) for *_, address in found):
            raise NotPublic
        failure = OSError("the name has no address")
        for tried, (family, kind, protocol, _, address) in enumerate(found):
            # Shared among the addresses, so that a dead first one (often IPv6) leaves time for the next.
            patience_s = self._line.left_s() / (len(found) - tried)
            try:
                return self._dial(socket.socket(family, kind, protocol), address, patience_s)
            except OSError as error:
                failure = error
        raise failure

    def _dial(self, sock: socket.socket, address: Any, patience_s: float) -> socket.socket:
        try:
            self._line.hold(self, sock.dup())
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            self._connect(sock, address, patience_s)
            sock.settimeout(self._line.left_s())
        except BaseException:
            sock.close()
            raise
        return sock

    def _connect(self, sock: socket.socket, address: Any, patience_s: float) -> None:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        # A cut before this instant could not stop a connect that had not begun; a later one wakes the wait
        # below.
        self._line.check()
        if code == errno.EINPROGRESS:
            if not wait_for_write(sock, patience_s):
                raise TimeoutError
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "connect")


class SecureConnection(PlainConnection, HTTPSConnection):
    """The same with TLS on top."""
