"""The answer: how much of a server's reply is read at all, and when it is complete.

The server is not trusted. Knows nothing of connections, of what was asked, or of what a status means.
"""

from __future__ import annotations

import http.client
import io
from typing import TYPE_CHECKING, Any

from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

from orchclient.delivery.http.failure import Refused
from orchclient.delivery.http.line import Line

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

MAX_BODY = 64 * 1024
MAX_HEADERS = 100
# Everything of one answer: interim answers, status line, headers, chunk sizes and extensions, trailers, body.
MAX_WIRE = 4 * MAX_BODY


def read_body(response: BaseHTTPResponse) -> bytes:
    """The whole body as it came; raises :class:`Refused` when it is encoded, too large or incomplete."""
    if response.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise Refused("protocol", "the answer is encoded, which was not asked for")
    if (response.length_remaining or 0) > MAX_BODY:
        raise _too_large()
    body = response.read(MAX_BODY + 1, decode_content=False)
    if len(body) > MAX_BODY:
        raise _too_large()
    if response.length_remaining:
        raise Refused("broken", "the answer ended before its stated length")
    return body


def _too_large() -> Refused:
    return Refused("too_large", f"the answer has more than {MAX_BODY} bytes")


def _too_many_headers() -> Refused:
    return Refused("too_large", f"the answer has more than {MAX_HEADERS} headers")


class BoundedResponse(http.client.HTTPResponse):
    """http.client's parser over a bounded stream, and strict where http.client guesses."""

    def __init__(self, sock: Any, *args: Any, line: Line, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp: Any = _WholeLines(_Metered(self.fp.detach(), line))

    def begin(self, **options: Any) -> None:
        """Read the head of the answer, past any interim ones."""
        try:
            super().begin(**options)
        except http.client.HTTPException as error:
            if type(error) is http.client.HTTPException:  # what it raises for too many headers, and only then
                raise _too_many_headers() from None
            raise
        self._check_headers()
        self._check_framing()

    def _read_status(self) -> tuple[str, int, str]:
        # http.client takes only 100 for interim. It would return 103 Early Hints as the answer, and the real
        # one would be found by the next request on this connection, and believed.
        version, status, reason = super()._read_status()  # type: ignore[misc]
        if status == http.client.SWITCHING_PROTOCOLS:
            raise Refused("protocol", "the answer switches protocols, which was not asked for")
        return version, http.client.CONTINUE if 100 <= status < 200 else status, reason

    def _check_headers(self) -> None:
        if len(self.headers) > MAX_HEADERS:  # the limit of http.client is a global that programs do raise
            raise _too_many_headers()
        # urllib3 looks for this as well, but logs it and goes on with the headers that it understood.
        try:
            assert_header_parsing(self.msg)
        except HeaderParsingError:
            raise Refused("protocol", "the answer has a line among its headers that is none") from None

    def _check_framing(self) -> None:
        length, encoding = self.headers.get("content-length"), self.headers.get("transfer-encoding")
        if encoding is not None and not self.chunked:
            raise Refused("protocol", "the answer has a transfer encoding other than chunked")
        if self.chunked:
            del self.headers["content-length"]  # RFC 9112, section 6.3: chunked wins; urllib3 would log it
        elif length is not None and self.length is None:
            raise Refused("protocol", "the answer's Content-Length is not a length")


class _WholeLines(io.BufferedReader):
    """A stream whose lines have ends.

    http.client takes the end of the stream for the end of the headers, so that a cut "HTTP/1.1 200 OK" would
    be a complete answer saying that everything was accepted.
    """

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise ConnectionResetError
        return line


class _Metered(io.RawIOBase):
    """A stream of at most ``MAX_WIRE`` bytes that looks at the clock before each read."""

    def __init__(self, raw: io.RawIOBase, line: Line) -> None:
        self._raw = raw
        self._line = line
        self._left = MAX_WIRE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._line.left_s()
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise Refused("too_large", f"the answer takes more than {MAX_WIRE} bytes on the wire")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
