"""Texts that must not be seen, and what is known of them: each is shown as a mark, and taken out of other texts.

Knows neither settings nor where a secret comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from orchclient.core.errors import InvalidEvent
from orchclient.core.limits import MARK, SHORTEST_SECRET

if TYPE_CHECKING:
    from orchclient.core.redaction import Redactor

Redact = Callable[[str], str]

REMEMBERED = 4
"""Tokens that were handed out one after the other and may still be accepted, or turn up in a text."""


def as_it_is(text: str) -> str:
    """For texts in which nothing is secret."""
    return text


class Secret:
    """A text that shows in no repr, string, format or pickle; ``reveal`` is the only way to it."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself, for the place that sends it."""
        return self.__text

    def __repr__(self) -> str:
        return MARK

    def __format__(self, spec: str) -> str:
        return MARK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__text == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand over where it comes from, such as the path of its file")


class KnownSecrets:
    """The redactor of one client. It learns each token that a callable gives, as long as it may be in use.

    Threads may share it: what it holds is exchanged as a whole.
    """

    def __init__(self, known: Iterable[str] = (), extra_keys: Iterable[str] = ()) -> None:
        self._known = tuple(known)
        self._extra_keys = tuple(extra_keys)
        self._learned: deque[str] = deque(maxlen=REMEMBERED)
        self.redactor = self._redactor()

    def _redactor(self) -> Redactor:
        from orchclient.core.redaction import (
            Redactor,
        )  # its patterns take 2 ms: not for a setting that is only looked at

        return Redactor((*self._known, *self._learned), self._extra_keys)

    def learn(self, text: str) -> None:
        """Take a text for a secret from now on; of those that were learned, the last few count."""
        if text in self._known or text in self._learned:
            return
        self._learned.append(text)
        self.redactor = self._redactor()

    def keep(self, *texts: str) -> None:
        """Take texts for secrets for good, however many there are: those of the settings."""
        self._known = tuple(dict.fromkeys((*self._known, *texts)))
        self.redactor = self._redactor()

    def refuse_in(self, argument: str, id_: str) -> None:
        """Raise ``InvalidEvent`` for an id with one of the secrets in it: taking it out could make two ids one."""
        if any(secret in id_ for secret in (*self._known, *self._learned) if len(secret) >= SHORTEST_SECRET):
            raise InvalidEvent(argument, "contains the token or another secret of the settings: use another id")

    def redact_text(self, text: str) -> str:
        """The same text without its secrets."""
        return self.redactor.redact_text(text)


def credentials_in(url: str) -> tuple[str, ...]:
    """What of the address of a database or a broker must be neither stored nor shown; nothing of one without any."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no URL, and not to be shown all the same
        return (url,)
    userinfo = parts.netloc.rpartition("@")[0]
    password = userinfo.partition(":")[2]
    more = [value for name, value in parse_qsl(parts.query) if "password" in name]
    if not password and not more and (not userinfo or parts.scheme.startswith("postgres")):
        return ()
    texts = (url, userinfo, password, unquote(password), *more)
    return tuple(dict.fromkeys(text for text in texts if text))


def credentials_in_all(urls: str) -> tuple[str, ...]:
    """The same of several addresses with commas between."""
    return tuple(text for url in urls.split(",") for text in credentials_in(url.strip()))


def secrets_in(url: str) -> tuple[str, ...]:
    """What of a webhook's URL must be neither stored nor shown, in the ways in which a server may repeat it."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no URL, and not to be shown all the same
        return (url,)
    last = parts.path.rstrip("/").rpartition("/")[2]
    texts = (url, last if len(last) >= 20 else "", parts.query if len(parts.query) >= 8 else "")
    return tuple(dict.fromkeys(text for text in texts if text))
