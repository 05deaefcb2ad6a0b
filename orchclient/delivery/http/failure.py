"""Failures: which reason an exchange that brought no answer gets, and in which words.

The words are ours and the exception's type only: an exception's own text can hold what the server sent (a
garbage status line) or what must stay secret (a webhook's URL). Knows nothing of connections or of what is
done next.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import urllib3.exceptions

from orchclient.core.policy import printable
from orchclient.delivery.http.line import CLOSED, TIMED_OUT


class Refused(Exception):
    """We ended the exchange ourselves, or never began it; the words hold nothing from outside."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words


class NotPublic(Refused):
    """The host is none that the request may go to: trying again is no help."""

    def __init__(self) -> None:
        super().__init__("request", "the host has an address that is not public")


class Unreached(Exception):
    """The connection did not come about; nothing of the request was sent. The cause is the only argument."""


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (urllib3.exceptions.TimeoutError, "timeout"),
    (OSError, "broken"),
    (http.client.IncompleteRead, "broken"),
    (http.client.LineTooLong, "too_large"),
)
_WORDS = {
    "connect": "no connection",
    "tls": "no trusted TLS connection",
    "timeout": "no complete answer in time",
    "broken": "the connection ended before the answer was complete",
    "protocol": "the answer is not HTTP as it was asked for",
    "too_large": "the answer is too large",
}
_CUT_WORDS = {
    TIMED_OUT: "no complete answer within {deadline_s:g} s",
    CLOSED: "the transport was closed",
}
# The causes an operator can do something about: OpenSSL, x509_vfy.h.
_CERTIFICATE = {
    9: "not yet valid",
    10: "expired",
    18: "self-signed",
    19: "signed by an unknown authority",
    20: "signed by an unknown authority",
    62: "for another host",
    64: "for another address",
}


def failure(error: Exception | None, cut_by: str, deadline_s: float) -> tuple[str, str]:
    """The reason and the detail of a :class:`NoReply` for an exchange that ended with this exception.

    What cut the exchange goes first: the exception, if there is one, is only what the cut looked like from
    inside.
    """
    if cut_by:
        return cut_by, printable(_CUT_WORDS[cut_by].format(deadline_s=deadline_s))
    assert error is not None
    cause = _root(error)
    if isinstance(cause, NotPublic) or (isinstance(cause, Refused) and cause is error):
        return cause.reason, printable(cause.words)
    reason = _reason_unreached(cause) if isinstance(error, Unreached) else _reason(cause)
    return reason, printable(f"{_WORDS[reason]} ({_kind(cause)})")


def _root(error: BaseException) -> BaseException:
    """The exception inside those that urllib3 and we put around it."""
    for _ in range(8):
        inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _reason(cause: BaseException) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(cause, kind)), "protocol")


def _reason_unreached(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLError):
        return "tls"
    return "timeout" if isinstance(cause, TimeoutError) else "connect"


def _kind(cause: BaseException) -> str:
    name = type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{name}: the certificate is {_CERTIFICATE.get(cause.verify_code, 'not valid')}"
    if isinstance(cause, OSError) and not isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return f"{name} {errno.errorcode.get(cause.errno or 0, '')}".rstrip()
    return name
