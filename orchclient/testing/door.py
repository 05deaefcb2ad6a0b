"""The open port of a double: connections come in, each talks in a thread of its own, and all end together.

Knows nothing of what is said over them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress

from orchclient.testing.faultplan import Line

HOST = "127.0.0.1"
STOP_S = 1.0


class Door:
    """The open port: gives each connection a thread, and ends them all together."""

    def __init__(self, listener: socket.socket, converse: Callable[[Line], None]) -> None:
        self.down = threading.Event()
        self._listener = listener
        self._converse = converse
        self._talks: dict[threading.Thread, Line] = {}
        listener.listen()
        self._doorman = threading.Thread(target=self._admit, name="receiver-door", daemon=True)
        self._doorman.start()

    def close(self) -> None:
        """End every connection at once."""
        self.down.set()
        with suppress(OSError):  # closing a listener does not wake its accept(), a visitor does
            socket.create_connection(self._listener.getsockname(), STOP_S).close()
        self._doorman.join()
        self._listener.close()
        for line in self._talks.values():
            line.abort()
        deadline_s = time.monotonic() + STOP_S
        for thread in self._talks:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _admit(self) -> None:
        while not self.down.is_set():
            with suppress(OSError):  # a visitor that left before it was let in
                self._welcome(self._listener.accept()[0])

    def _welcome(self, sock: socket.socket) -> None:
        if self.down.is_set():
            sock.close()
            return
        line = Line(sock, self.down)
        thread = threading.Thread(target=self._talk, args=(line,), name="receiver-line", daemon=True)
        self._talks = {talk: line for talk, line in self._talks.items() if talk.is_alive()}
        self._talks[thread] = line
        thread.start()

    def _talk(self, line: Line) -> None:
        with suppress(OSError), closing(line):
            self._converse(line)


def bound(port: int) -> socket.socket:
    """A socket on loopback; port 0 takes a free one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        sock.bind((HOST, port))
    except OSError:
        sock.close()
        raise
    return sock
