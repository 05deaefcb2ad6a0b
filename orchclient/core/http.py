"""What goes over the wire and what comes back, as plain values that sinks and the transport share."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class HttpRequest:
    """One HTTP request, complete: nothing is added to it from the environment."""

    method: str
    url: str = field(repr=False)  # a webhook URL is itself a secret
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    must_be_public: bool = False  # the host may have no private address: for URLs that name other people's servers


@frozen
class HttpReply:
    """A complete answer: status, headers by lower-case name, at most 64 KiB of body, and how long it took."""

    status: int
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    took_ms: float = 0.0


@frozen
class NoReply:
    """No complete answer came: whether the receiver processed the request is unknown.

    ``reason`` is one of ``connect``, ``tls``, ``timeout``, ``broken`` (the connection ended or the answer was
    cut), ``protocol`` (the answer was not HTTP, or encoded in a way that was not asked for), ``too_large``,
    ``closed`` (the transport was closed before or meanwhile) and ``request`` (it cannot be put on the wire
    safely). After ``request``, ``connect`` and ``tls`` it is known that nothing of the request was sent.
    ``detail`` is printable ASCII of at most 200 characters: our words, nothing of the URL, headers or answer.
    """

    reason: str
    detail: str = ""
    took_ms: float = 0.0
    is_unsent: bool = False  # known for other reasons too: a timeout while connecting


HttpOutcome = HttpReply | NoReply
