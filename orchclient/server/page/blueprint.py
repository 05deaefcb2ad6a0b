"""The blueprint of the page: how its answers are made, and what goes with each of them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from flask import Blueprint, Flask, Response, g, make_response, render_template, request
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from orchclient import __version__
from orchclient.server import people, problems
from orchclient.server.access import Forbidden
from orchclient.server.calling import PAGE, orchestrator
from orchclient.server.orchestrator import StoreUnavailable
from orchclient.server.page import wording
from orchclient.server.questions import Unanswerable
from orchclient.server.reading import Refused

page = Blueprint(PAGE, __name__, template_folder="templates", static_folder="static", static_url_path="/static")


def look(see: Callable[[Session], Any]) -> Any:
    """What is in the database now."""
    with orchestrator().reading() as session:
        return see(session)


def shown(template: str, status: int = 200, **values: Any) -> Response:
    """A page. One that has not changed since the browser asked last is answered with a 304."""
    response = make_response(render_template(template, **values), status)
    if request.method in ("GET", "HEAD") and status == 200:
        response.set_etag(sha256(response.get_data()).hexdigest()[:32])
        response.make_conditional(request)
    return response


def not_found(what: str) -> Refused:
    """There is no such thing, or not any more."""
    return Refused(404, f"There is no such {what} here, or not any more.")


@page.context_processor
def _values() -> dict[str, Any]:
    now_us, me = orchestrator().now_us(), g.get("caller")
    return {
        "me": me,
        "waiting": _waiting() if me is not None else 0,
        "csrf": g.get("csrf", ""),
        "version": __version__,
        "now_us": now_us,
        "ago": lambda us: wording.ago(us, now_us),
        "until": lambda us: wording.until(us, now_us),
        "clock": lambda us: wording.clock(us, now_us),
        "deadline": lambda us: wording.deadline(us, now_us),
    }


def _waiting() -> int:
    try:
        return int(look(people.waiting))
    except StoreUnavailable:  # the page that says so has a heading, too
        return 0


@page.record
def _set_up(state: Any) -> None:
    app: Flask = state.app
    app.jinja_env.filters.update(wording.FILTERS)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


# --- What goes wrong, for people ----------------------------------------------------------------------------------


def trouble(status: int, title: str, detail: str) -> Response:
    """A page that says what went wrong."""
    return shown("trouble.html", status, title=title, detail=detail)


@page.errorhandler(Refused)
def _refused(error: Refused) -> Response:
    titles = {404: "Not found", 429: "Too many attempts", 413: "Too long"}
    response = trouble(error.status, titles.get(error.status, "This was refused"), error.detail)
    response.headers.update(error.headers)
    return response


@page.errorhandler(Forbidden)
def _forbidden(error: Forbidden) -> Response:
    return trouble(403, "Not for this token", str(error))


@page.errorhandler(Unanswerable)
def _unanswerable(error: Unanswerable) -> Response:
    return trouble(409, "Nothing was sent", str(error))


@page.errorhandler(StoreUnavailable)
def _unavailable(error: StoreUnavailable) -> Response:
    problems.log_unavailable(error)
    response = trouble(503, "The database does not answer", "Nothing was stored. Try again in a moment.")
    response.headers["Retry-After"] = "1"
    return response


@page.errorhandler(HTTPException)
def _http(error: HTTPException) -> Response:
    return trouble(error.code or 500, "This was refused", error.description or error.name)


@page.errorhandler(Exception)
def _unexpected(error: Exception) -> Response:
    problems.log_unexpected(error)
    return trouble(
        500, "An error of the orchestrator", "Its log says more. Nothing was done that this page does not show."
    )


def _is_for_people() -> bool:
    """Whether a browser asks, and not by an address for programs."""
    asks = request.accept_mimetypes.best == "text/html" and request.blueprint in (None, PAGE)
    return asks and not request.path.startswith(("/v1/", "/api/"))


@page.app_errorhandler(404)
def _no_such_address(error: Any) -> Response:
    return trouble(404, "Not found", "There is no such page here.") if _is_for_people() else problems.of_http(error)


@page.app_errorhandler(405)
def _no_such_method(error: Any) -> Response:
    """Who signs in after a form was sent, or opens its address again, comes to one that only takes forms."""
    answer = problems.of_http(error)
    if not _is_for_people():
        return answer
    response = trouble(405, "Nothing to see here", "This address takes a form from another page. Nothing was done.")
    response.headers["Allow"] = answer.headers["Allow"]
    return response
