"""Who makes a request, and whether it may be made: the bearer token, the host, and where a browser comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from flask import Flask, current_app, g, request

from orchclient.core.errors import ConfigError
from orchclient.server.access import Caller, Forbidden, Kind
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.reading import Refused

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]", "::1")
PAGE: Final = "page"
_OPEN: Final = frozenset({"/healthz"})
_BEARER: Final = re.compile(r"[Bb]earer +([!-~]+)\Z")


def orchestrator() -> Orchestrator:
    """The orchestrator behind this request."""
    found: Orchestrator = current_app.extensions["orchclient"]
    return found


def register(app: Flask, trusted_hosts: Sequence[str]) -> None:
    """Check each request before anything else: a foreign page must not reach an orchestrator on loopback."""
    hosts = frozenset(host.lower() for host in (*LOOPBACK, *trusted_hosts))

    @app.before_request
    def check() -> None:
        if _host(request.host) not in hosts:
            raise Refused(400, "this host name is not one of the orchestrator's: see --trusted-host")
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            _refuse_foreign_page()
        # The page has a door of its own, by cookie; and what is not there needs no token.
        if request.path not in _OPEN and request.blueprint not in (PAGE, None):
            g.caller = _caller()


def checked_proxies(addresses: Sequence[str]) -> frozenset[str]:
    """The addresses of proxies whose word is taken. Raises ``ConfigError``."""
    try:
        return frozenset(str(ip_address(each)) for each in addresses)
    except ValueError as error:
        raise ConfigError(
            f"a trusted proxy is named by its IP address, as it comes to the orchestrator: {error}"
        ) from None


def address() -> str:
    """Where a request comes from: the peer; behind a proxy that is trusted, who came to that one.

    Of several addresses the last is the proxy's own word: those before it are what it was told.
    """
    peer = request.remote_addr or ""
    if peer not in current_app.config["ORCH_PROXIES"]:
        return peer
    return request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()[:64] or peer


def agent() -> Caller:
    """The caller, who must be an agent. Raises ``Forbidden``."""
    return _as("agent")


def person() -> Caller:
    """The caller, who must be a person. Raises ``Forbidden``."""
    return _as("person")


def _as(kind: Kind) -> Caller:
    found: Caller = g.caller
    if not found.may_be(kind):
        raise Forbidden(f"this token is for {found.kind}s: this needs one for {kind}s")
    return found


def _caller() -> Caller:
    header = request.headers.get("Authorization")
    match = _BEARER.match(header) if header else None
    found = orchestrator().caller(match[1] if match else None)
    if found is None:
        raise Refused(401, "the bearer token is missing or not good", {"WWW-Authenticate": "Bearer"})
    return found


def _host(text: str) -> str:
    return text.lower() if text.endswith("]") else text.lower().rsplit(":", 1)[0] if ":" in text else text.lower()


def _refuse_foreign_page() -> None:
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site in (None, "same-origin", "none") and (origin is None or urlsplit(origin).netloc == request.host):
        return
    raise Refused(403, "this request comes from a page of another site")
