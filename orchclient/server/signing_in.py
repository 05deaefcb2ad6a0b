"""Browsers in which a person has signed in: a cookie instead of the token, known by its hash, for two weeks at most.

It is worth no more than the token it came by: when that is revoked, the browser is signed out at its next request.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from orchclient.server import access
from orchclient.server.access import Caller, Forbidden
from orchclient.server.models import SignIn, Token

LASTS_US: Final = 14 * 86_400 * 1_000_000


def sign_in(session: Session, token: str, cookie: str, now_us: int) -> Caller | None:
    """Make a cookie worth a token; None when the token is not good. Raises ``Forbidden`` for that of an agent."""
    found = access.row(session, token)
    if found is None:
        return None
    if found.kind != "person":
        raise Forbidden(f"this token is for {found.kind}s: this needs one for persons")
    session.execute(delete(SignIn).where(SignIn.expires_us <= now_us))
    session.add(SignIn(digest=_digest(cookie), token_id=found.id, created_us=now_us, expires_us=now_us + LASTS_US))
    session.flush()
    return Caller(found.name, found.kind)


def signed_in(session: Session, cookie: str, now_us: int) -> Caller | None:
    """Who has signed in with this cookie; None for nobody, or not any more."""
    wanted = select(Token).join(SignIn, SignIn.token_id == Token.id)
    wanted = wanted.where(SignIn.digest == _digest(cookie), SignIn.expires_us > now_us, Token.revoked_us.is_(None))
    found = session.scalars(wanted).one_or_none()
    return None if found is None else Caller(found.name, found.kind)


def sign_out(session: Session, cookie: str) -> None:
    """The cookie is worth nothing any more."""
    session.execute(delete(SignIn).where(SignIn.digest == _digest(cookie)))


def _digest(cookie: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return sha256(cookie.encode()).hexdigest()
