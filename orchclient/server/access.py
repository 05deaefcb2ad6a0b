"""Who may do what: bearer tokens of agents and people, known by their hash only."""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

from attrs import frozen
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchclient.core.errors import ConfigError
from orchclient.core.ids import checked_id
from orchclient.server.ids import new_id, new_token
from orchclient.server.models import Source, Token

Kind = Literal["agent", "person"]
KINDS: Final[tuple[Kind, ...]] = ("agent", "person")


class Forbidden(Exception):
    """The credential is good, but not for this."""


@frozen
class Caller:
    """Who asks. ``name`` is None for whoever comes over loopback while there are no tokens."""

    name: str | None = None
    kind: str | None = None

    def may_be(self, kind: Kind) -> bool:
        """Whether this caller may act as an agent, or as a person."""
        return self.kind is None or self.kind == kind


def caller(session: Session, token: str | None) -> Caller | None:
    """The owner of a token; None when it is missing or not good. While there are no tokens, anybody may come in."""
    if token is None:
        return Caller() if not has_tokens(session) else None
    found = row(session, token)
    if found is not None:
        return Caller(found.name, found.kind)
    return Caller() if not has_tokens(session) else None


def row(session: Session, token: str) -> Token | None:
    """The row of a token that is good."""
    wanted = select(Token).where(Token.digest == _digest(token), Token.revoked_us.is_(None))
    return session.scalars(wanted).one_or_none()


def has_tokens(session: Session) -> bool:
    """Whether any token was ever made: from then on nobody comes in without one, also when all are revoked."""
    return session.execute(select(Token.id).limit(1)).first() is not None


def add_token(session: Session, name: str, kind: Kind, now_us: int) -> str:
    """A new token, in the clear this once. A second one of a name is the same credential: so a token is renewed."""
    name = checked_id("name", name)
    others = session.scalars(select(Token.kind).where(Token.name == name, Token.kind != kind))
    if others.first() is not None:
        raise ConfigError(f"{name} is no {kind}: choose another name")
    text = new_token()
    session.add(
        Token(id=new_id(now_us), name=name, kind=kind, digest=_digest(text), created_us=now_us, revoked_us=None)
    )
    session.flush()
    return text


def tokens(session: Session) -> list[Token]:
    """All tokens, oldest first, the revoked ones too."""
    return list(session.scalars(select(Token).order_by(Token.created_us, Token.id)))


def revoke(session: Session, which: str, now_us: int) -> int:
    """Revoke a token by its id, or all of a name; how many those were."""
    wanted = update(Token).where((Token.id == which) | (Token.name == which), Token.revoked_us.is_(None))
    revoked = session.execute(
        wanted.values(revoked_us=now_us).returning(Token.id).execution_options(synchronize_session=False)
    )
    return len(revoked.all())


def check_reader(session: Session, source: str, owner: str | None) -> None:
    """Raises ``Forbidden`` when a source belongs to another credential."""
    bound = session.scalars(select(Source.owner).where(Source.name == source)).one_or_none()
    if bound is not None and bound != owner:
        raise Forbidden(f"the source {source} belongs to another credential")


def _digest(token: str) -> str:
    # 256 random bits need no slow hash: there is nothing to guess.
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
