"""New identifiers: UUIDv7 for items and answers, and tokens."""

from __future__ import annotations

import secrets

from orchclient.core.ids import uuid7


def new_id(now_us: int) -> str:
    """A UUIDv7 of that instant."""
    return uuid7(now_us // 1000, secrets.token_bytes(10))


def new_token() -> str:
    """A bearer token: 256 random bits, with a word in front by which a scanner of secrets knows it."""
    return f"orch_{secrets.token_urlsafe(32)}"
