"""Listens: waitress with the application, deadlines that pass, retention, and an end within two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import field, frozen
from flask import Blueprint
from waitress import create_server, wasyncore

from orchclient.core.errors import ConfigError
from orchclient.server import access
from orchclient.server.app import create_app
from orchclient.server.keeping import Keeper
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.reading import Limits

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_THREADS: Final = 48  # polls that wait hold one each, 32 at most; the others are for everything else
_RECEIVE: Final = 262_144  # a batch in a few reads: each of them waits for the interpreter's lock
_STOP_S: Final = 1.5
_LOOK_S: Final = 0.2


@frozen
class Listening:
    """Where to listen, and what holds for those who come. ``retention_s`` is None to keep everything."""

    host: str = "127.0.0.1"
    port: int = 8765
    trusted_hosts: Sequence[str] = ()
    limits: Limits = field(factory=Limits)
    retention_s: float | None = None
    trusted_proxies: Sequence[str] = ()
    signing: Sequence[bytes] = field(default=(), repr=False)


class Server:
    """An open port. ``run`` serves until ``stop`` is called, from any thread or a signal handler."""

    def __init__(
        self, orchestrator: Orchestrator, listening: Listening | None = None, blueprints: Sequence[Blueprint] = ()
    ) -> None:
        """Open the port.

        Raises ``ConfigError`` when it cannot be opened, when it is not on loopback although there is no token, and for
        a proxy that is no address.
        """
        self._listening = listening or Listening()
        self._orchestrator = orchestrator
        _refuse_open_doors(orchestrator, self._listening.host)
        app = create_app(
            orchestrator,
            limits=self._listening.limits,
            trusted_hosts=(self._listening.host, *self._listening.trusted_hosts),
            trusted_proxies=self._listening.trusted_proxies,
            signing=self._listening.signing,
            blueprints=blueprints,
        )
        self._map: dict[int, Any] = {}
        self._server = _bound(app, self._listening, self._map)
        self._is_stopping = threading.Event()
        self._keeper = Keeper(orchestrator, self._listening.retention_s)

    @property
    def port(self) -> int:
        """Where it listens, also when any free port was asked for."""
        if hasattr(self._server, "effective_listen"):
            return int(self._server.effective_listen[0][1])
        return int(self._server.effective_port)

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        host = self._listening.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def run(self) -> None:
        """Serve until ``stop``; then let polls go, end what is under way, and close, within two seconds."""
        self._keeper.start()
        try:
            while not self._is_stopping.is_set():
                wasyncore.loop(timeout=_LOOK_S, map=self._map, use_poll=True, count=1)
        finally:
            self._end()

    def stop(self) -> None:
        """Make ``run`` end."""
        self._is_stopping.set()

    def _end(self) -> None:
        self._is_stopping.set()
        until = time.monotonic() + _STOP_S
        ending = threading.Thread(target=self._end_requests, name="orchclient-ending", daemon=True)
        ending.start()
        while ending.is_alive() and time.monotonic() < until:
            wasyncore.loop(timeout=0.02, map=self._map, use_poll=True, count=1)
        for _ in range(3):  # the last answers leave
            wasyncore.loop(timeout=0, map=self._map, use_poll=True, count=1)
        wasyncore.close_all(self._map)
        self._keeper.stop(max(0.0, until - time.monotonic()))

    def _end_requests(self) -> None:
        self._orchestrator.bell.close()
        self._server.task_dispatcher.shutdown(cancel_pending=False, timeout=_STOP_S)


def _refuse_open_doors(orchestrator: Orchestrator, host: str) -> None:
    if host in LOOPBACK:
        return
    with orchestrator.reading() as session:
        if not access.has_tokens(session):
            raise ConfigError(
                f"refusing to listen on {host} without a token: anybody could read and answer. "
                "Make one first: orchclient serve token add NAME --kind person"
            )


def _bound(app: Any, listening: Listening, socket_map: dict[int, Any]) -> Any:
    try:
        return create_server(
            app,
            map=socket_map,
            host=listening.host,
            port=listening.port,
            threads=_THREADS,
            ident=None,
            max_request_body_size=2 * listening.limits.max_bytes,  # the application says a better 413 below it
            clear_untrusted_proxy_headers=not listening.trusted_proxies,  # the application reads one, of those only
            connection_limit=1000,
            channel_timeout=60,
            asyncore_use_poll=True,
            recv_bytes=_RECEIVE,
            inbuf_overflow=8 * listening.limits.max_bytes,  # a batch never goes by way of a temporary file
        )
    except (OSError, ValueError) as error:
        where = f"{listening.host}:{listening.port}"
        raise ConfigError(f"cannot listen on {where}: {error}; choose another --host or --port") from error


def opened_browser(url: str) -> None:
    """Show the page to the person at this machine, if there is a browser. Some do not return until they are closed."""
    import webbrowser

    def show() -> None:
        with suppress(webbrowser.Error):
            webbrowser.open(url)

    threading.Thread(target=show, name="orchclient-browser", daemon=True).start()
