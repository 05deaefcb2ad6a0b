"""The application: a WSGI callable over an ``Orchestrator``, which any WSGI server can host.

Blueprints are its parts: the wire for agents, the page and the JSON interface for people, and what operators look at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from flask import Blueprint, Flask, Response, current_app, g, request

from orchclient.core.jsontext import encode
from orchclient.server import calling, metrics, people, problems
from orchclient.server.calling import orchestrator
from orchclient.server.openapi import document
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.page import page
from orchclient.server.page.guesses import Guesses
from orchclient.server.people_api import api
from orchclient.server.reading import Limits
from orchclient.server.wire_api import wire

operators = Blueprint("operators", __name__)
_GUARDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send no Origin with a form
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""On every answer: no script or style but ours, no frame, no word to other sites about where a link was followed."""

_log = logging.getLogger("orchclient.server")


def create_app(
    served: Orchestrator,
    *,
    limits: Limits | None = None,
    trusted_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    signing: Sequence[bytes] = (),
    blueprints: Sequence[Blueprint] = (),
    has_page: bool = True,
) -> Flask:
    """The application of an orchestrator.

    Without any token in its database it lets everybody in, and should listen on loopback only (``serve`` sees to that).
    ``trusted_hosts`` are the names by which it is reached beside loopback, ``trusted_proxies`` the addresses of those
    whose X-Forwarded-For tells where somebody comes from. With ``signing`` keys agents must sign what they send (see
    ``core.signing``). ``blueprints`` are further parts;
    ``has_page`` is False for an application with pages of its own.

    Raises ``ConfigError`` for a proxy that is no address.
    """
    app = Flask("orchclient.server", static_folder=None)
    limits = limits or Limits()
    app.config.update(ORCH_LIMITS=limits, MAX_CONTENT_LENGTH=limits.max_bytes + 1024)
    app.config.update(ORCH_PROXIES=calling.checked_proxies(trusted_proxies), ORCH_SIGNING=tuple(signing))
    app.extensions["orchclient"] = served
    app.extensions["orchclient-counters"] = metrics.Counters()
    app.extensions["orchclient-guesses"] = Guesses()
    problems.register(app)
    calling.register(app, trusted_hosts)
    app.before_request(_begin)
    app.after_request(_end)
    for part in (operators, wire, api, *([page] if has_page else []), *blueprints):
        app.register_blueprint(part)
    return app


@operators.get("/healthz")
def healthz() -> Response:
    """Whether requests can be served: 200, or 503 when the database does not answer."""
    with orchestrator().reading() as session:
        people.is_answering(session)
    return Response(encode({"status": "ok"}), content_type="application/json")


@operators.get("/metrics")
def metrics_page() -> Response:
    """For Prometheus; any token will do."""
    with orchestrator().reading() as session:
        counts = people.counts(session)
    served = orchestrator()
    counters: metrics.Counters = current_app.extensions["orchclient-counters"]
    text = metrics.text(counters, counts, served.bell.waiting, served.now_us())
    return Response(text, content_type=metrics.CONTENT_TYPE)


@operators.get("/openapi.json")
def openapi() -> Response:
    """The description of all this."""
    return Response(encode(document()), content_type="application/json")


def _begin() -> None:
    g.begun_s = time.monotonic()


def _end(response: Response) -> Response:
    counters: metrics.Counters = current_app.extensions["orchclient-counters"]
    counters.count_request(request.endpoint or "none", response.status_code)
    response.headers.update(_GUARDS)
    response.headers.setdefault("Cache-Control", "no-store")
    level = logging.DEBUG if response.status_code < 400 else logging.INFO
    if _log.isEnabledFor(level):
        _log.log(level, "request", extra={"orch": _told(response)})
    return response


def _told(response: Response) -> dict[str, object]:
    """A request as the log tells it: never its body, its query or its token."""
    caller = g.get("caller")
    return {
        "method": request.method,
        "path": request.path[:200],
        "status": response.status_code,
        "ms": round((time.monotonic() - g.get("begun_s", time.monotonic())) * 1000, 1),
        "caller": caller.name if caller is not None else None,
    }
