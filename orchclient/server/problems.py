"""Errors as ``application/problem+json`` (RFC 9457), for whatever goes wrong in a request."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from orchclient.core.jsontext import encode
from orchclient.server.access import Forbidden
from orchclient.server.orchestrator import StoreUnavailable, Unstorable
from orchclient.server.questions import Unanswerable
from orchclient.server.reading import Refused

PROBLEM_TYPE: Final = "application/problem+json"
_TITLES: Final = {int(status): status.phrase for status in HTTPStatus}
_log = logging.getLogger("orchclient.server")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The answer that says what went wrong."""
    title = _TITLES.get(status, "Error")
    members = {"type": "about:blank", "title": title, "status": status, "detail": detail[:1000]}
    return Response(encode(members), status, headers, content_type=PROBLEM_TYPE)


def register(app: Flask) -> None:
    """Make every error of an application a problem."""
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(Forbidden, _forbidden)
    app.register_error_handler(StoreUnavailable, _unavailable)
    app.register_error_handler(Unstorable, _unstorable)
    app.register_error_handler(Unanswerable, _unanswerable)
    app.register_error_handler(HTTPException, of_http)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: Refused) -> Response:
    return problem(error.status, error.detail, error.headers)


def _forbidden(error: Forbidden) -> Response:
    return problem(403, str(error))


def log_unavailable(error: StoreUnavailable) -> None:
    """For the operator: the answer says less."""
    _log.warning("%s", error)


def _unavailable(error: StoreUnavailable) -> Response:
    log_unavailable(error)
    return problem(503, "the database does not answer, nothing was stored", {"Retry-After": "1"})


def _unstorable(error: Unstorable) -> Response:
    _log.error("%s", error)
    return problem(422, "the database cannot hold this, nothing was stored")


def _unanswerable(error: Unanswerable) -> Response:
    return problem(409, str(error))


def of_http(error: HTTPException) -> Response:
    """An error of the web framework as a problem."""
    answer = error.get_response()
    kept = {name: answer.headers[name] for name in ("Allow", "Retry-After") if name in answer.headers}
    return problem(error.code or 500, error.description or error.name, kept)


def log_unexpected(error: Exception) -> None:
    """For the operator, with where it happened."""
    _log.exception("a request failed", exc_info=error)


def _unexpected(error: Exception) -> Response:
    log_unexpected(error)
    return problem(500, "an error of the orchestrator: its log says more")
