"""Signatures of Standard Webhooks, symmetric variant ``v1``: how a request is signed, and whether one is good. Pure.

The specification (github.com/standard-webhooks, 1.0.0): HMAC-SHA256 over ``id.timestamp.body``, one signature for each
secret while secrets are changed. A secret is ``whsec_`` and the base64 of 24 to 64 random bytes.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from orchclient.core.errors import ConfigError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105
SECRET_BYTES: Final = range(24, 65)
WINDOW_S: Final = 300
"""How far a timestamp may be off the receiver's clock."""

_MOST_SIGNATURES: Final = 16


def keys_of(setting: str, text: str) -> tuple[bytes, ...]:
    """The keys of one secret or of several, separated by commas or white space. Raises ``ConfigError``."""
    return tuple(_key(setting, word) for word in text.replace(",", " ").split())


def _key(setting: str, secret: str) -> bytes:
    form = f"expected {SECRET_PREFIX} and the base64 of 24 to 64 random bytes"
    encoded = secret.removeprefix(SECRET_PREFIX)
    if encoded == secret:
        raise ConfigError(f"{setting} is not usable: {form}")
    try:
        key = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError(f"{setting} is not usable: {form}") from None
    if len(key) not in SECRET_BYTES:
        raise ConfigError(f"{setting} has {len(key)} bytes: {form}")
    return key


def batch_id(body: bytes) -> str:
    """The ``webhook-id`` of a request to an orchestrator: equal for a repeat of the same bytes."""
    return f"bat_{sha256(body).hexdigest()[:32]}"


def signed(keys: Sequence[bytes], id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks; without a signature when there is no key."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(at_s)}
    if not keys:
        return headers
    return headers | {"webhook-signature": " ".join(f"v1,{_mac(key, id_, str(at_s), body)}" for key in keys)}


def _mac(key: bytes, id_: str, at: str, body: bytes) -> str:
    return b64encode(hmac.new(key, f"{id_}.{at}.".encode() + body, sha256).digest()).decode()


def trouble_with(keys: Sequence[bytes], header: Callable[[str], str], body: bytes, now_s: float) -> str:
    """Why the signature of a request is not accepted, in words; empty when it is good.

    ``header`` gives the text of a header, empty without one. Compared in constant time.
    """
    id_, at, given = (header(f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    if not (id_ and at and given):
        return "the signature is missing"
    if not (at.isascii() and at.isdecimal() and len(at) <= 15 and abs(int(at) - now_s) <= WINDOW_S):
        return f"its signature is of another time: more than {WINDOW_S} s off the clock here"
    wanted = [f"v1,{_mac(key, id_, at, body)}".encode() for key in keys]
    offered = [word.encode("utf-8", "replace") for word in given.split(" ")[:_MOST_SIGNATURES]]
    is_good = False
    for each in offered:
        for one in wanted:
            is_good |= hmac.compare_digest(each, one)
    return "" if is_good else "its signature is not good"
