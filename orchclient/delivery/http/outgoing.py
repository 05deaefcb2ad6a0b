"""What goes out: the header fields of a request, checked so that no value can become a second line.

Knows nothing of connections; adds nothing from the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchclient.core.http import HttpRequest
from orchclient.delivery.http.failure import Refused

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff]*")  # RFC 9110, section 5.5, without the tab
_UNSAFE_IN_URL = re.compile(r"[\x00-\x20\x7f-\x9f]")
_FRAMING = ("content-length", "transfer-encoding")  # two opinions on the framing are request smuggling


def header_fields(request: HttpRequest, user_agent: str) -> dict[str, str]:
    """The header fields to send; raises :class:`Refused` when the request is not safe to put on the wire."""
    if not _TOKEN.fullmatch(request.method):
        raise Refused("request", "the method is not a token")
    if _UNSAFE_IN_URL.search(request.url):
        raise Refused("request", "the URL has a space or a control character")
    fields = {"user-agent": ("User-Agent", user_agent)}
    fields.update((name.lower(), (name, value)) for name, value in request.headers.items())
    fields["accept-encoding"] = ("Accept-Encoding", "identity")
    return _checked(dict(fields.values()))


def _checked(fields: Mapping[str, str]) -> dict[str, str]:
    for name, value in fields.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _FRAMING:
            raise Refused("request", "a header has a name that cannot be sent")
        if not _VALUE.fullmatch(value):
            raise Refused("request", "a header has a value with a control character or one outside Latin-1")
    return dict(fields)
