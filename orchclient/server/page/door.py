"""Who comes in by the page: a token is exchanged for a cookie, and no other site's page can act through a browser.

Each browser has a cookie of 256 random bits, before it signs in too. From it a word is derived that every form carries
back, so that a form of somebody else's making does nothing; signing in makes a new cookie.
"""

from __future__ import annotations

import hmac
import re
import secrets
import time
from typing import Any, Final

from flask import Response, current_app, g, redirect, request, url_for

from orchclient.server import access, signing_in
from orchclient.server.access import Caller, Forbidden
from orchclient.server.calling import address, orchestrator
from orchclient.server.page.blueprint import page, shown
from orchclient.server.page.guesses import Guesses
from orchclient.server.reading import Refused

_OPEN: Final = frozenset({"page.static", "page.login", "page.log_in"})
_COOKIE: Final = re.compile(r"[\w-]{43}\Z", re.ASCII)
_PORT: Final = re.compile(r":([0-9]{1,5})\Z")
_OWN_PATH: Final = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]{0,1500}\Z")
_SAFE: Final = "__Host-orchclient"


@page.before_request
def enter() -> Any:
    """Find out who it is; who is nobody yet is shown the login, and led back afterwards."""
    if request.endpoint == "page.static":
        return None
    if any("\x00" in text for text in _names()):
        raise Refused(404, "There is nothing whose name holds a NUL.")  # which PostgreSQL cannot even be asked for
    served = orchestrator()
    g.cookie = _cookie()
    with served.reading() as session:
        if not access.has_tokens(session):
            g.caller = Caller()
        else:
            g.caller = signing_in.signed_in(session, g.cookie, served.now_us()) if g.cookie else None
    if not g.cookie and request.method in ("GET", "HEAD"):
        g.cookie = g.new_cookie = secrets.token_urlsafe(32)
    g.csrf = _csrf(g.cookie) if g.cookie else ""
    if request.method == "POST":
        _check_form()
    if g.caller is None and request.endpoint not in _OPEN:
        return redirect(url_for("page.login", next=_here()), 303)
    return None


def _names() -> list[str]:
    """What names something here."""
    return [request.path, *request.args.values(), *(request.form.get(name, "") for name in ("task", "id"))]


@page.after_request
def leave(response: Response) -> Response:
    """A browser that had no cookie gets one."""
    if "new_cookie" in g:
        _set_cookie(response, g.new_cookie, g.get("lasts_s"))
    return response


@page.get("/login")
def login() -> Any:
    """Where a token is exchanged for a cookie."""
    if g.caller is not None:
        return redirect(_next(request.args), 303)
    return shown("login.html", next=_next(request.args))


@page.post("/login", endpoint="log_in")
def log_in() -> Any:
    """Exchange a person's token for a cookie."""
    if g.caller is not None:
        return redirect(_next(request.form), 303)
    guesses: Guesses = current_app.extensions["orchclient-guesses"]
    came_from, now_s = address(), time.monotonic()
    wait_s = guesses.wait_s(came_from, now_s)
    if wait_s > 0:
        words = f"Too many tokens were not good. Try again in {wait_s:.0f} s."
        raise Refused(429, words, {"Retry-After": f"{wait_s + 1:.0f}"})
    trouble = _signed_in(request.form.get("token", "").strip())
    if trouble:
        guesses.failed(came_from, now_s)
        return shown("login.html", 403, next=_next(request.form), trouble=trouble)
    return redirect(_next(request.form), 303)


def _signed_in(token: str) -> str:
    """Sign in; why not, otherwise."""
    served, cookie = orchestrator(), secrets.token_urlsafe(32)
    if not token:
        return "Enter a token."
    try:
        found = served.writing(lambda session: signing_in.sign_in(session, token, cookie, served.now_us()))
    except Forbidden as error:
        return f"{str(error).capitalize()}."
    if found is None:
        return "This token is not good, or not any more."
    g.new_cookie, g.lasts_s = cookie, signing_in.LASTS_US // 1_000_000
    return ""


@page.post("/logout")
def logout() -> Any:
    """The cookie is worth nothing any more."""
    orchestrator().writing(lambda session: signing_in.sign_out(session, g.cookie))
    g.new_cookie = secrets.token_urlsafe(32)
    return redirect(url_for("page.login"), 303)


# --- Cookies and forms --------------------------------------------------------------------------------------------


def _name() -> str:
    """Browsers share cookies between the ports of a host: two orchestrators of one machine need two names."""
    port = _PORT.search(request.host)
    return f"orchclient-{port[1]}" if port else "orchclient"


def _cookie() -> str:
    given = request.cookies.get(_SAFE) or request.cookies.get(_name()) or ""
    return given if _COOKIE.match(given) else ""


def _set_cookie(response: Response, cookie: str, lasts_s: int | None) -> None:
    # A proxy speaks TLS for us: the browser itself tells by the Origin of what it posts.
    is_https = request.is_secure or request.headers.get("Origin", "").startswith("https://")
    name = _SAFE if is_https else _name()
    # Lax, not strict: a link in a chat must find its reader signed in.
    response.set_cookie(name, cookie, max_age=lasts_s, path="/", secure=is_https, httponly=True, samesite="Lax")
    if name != _SAFE and _SAFE in request.cookies:
        response.set_cookie(_SAFE, "", max_age=0, path="/", secure=True, httponly=True, samesite="Lax")
    if name == _SAFE and _name() in request.cookies:
        response.set_cookie(_name(), "", max_age=0, path="/", httponly=True, samesite="Lax")


def _csrf(cookie: str) -> str:
    return hmac.new(cookie.encode(), b"form", "sha256").hexdigest()


def _check_form() -> None:
    given = request.form.get("csrf", "")
    if not g.csrf or not hmac.compare_digest(given.encode("utf-8", "replace"), g.csrf.encode()):
        raise Refused(403, "This form is too old, or not ours: nothing was done. Open the page again and repeat it.")


def _here() -> str:
    """Where to come back to after the login: what was asked for, or after a form the page that it stood on."""
    if request.method not in ("GET", "HEAD"):
        return request.path if request.endpoint in ("page.answer", "page.decide") else url_for("page.home")
    return request.full_path if request.query_string else request.path


def _next(given: Any) -> str:
    path = given.get("next", "")
    return path if _OWN_PATH.match(path) else url_for("page.home")
