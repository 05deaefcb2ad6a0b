"""The destination ``nats``: each event is published to a JetStream stream, and counts when the stream has stored it.

A subject per task, ``<prefix>.<outbox>.<task>``, and one event of a task on its way at a time: so a stream, which keeps
the order of a subject, keeps the order of a task, whatever fails in between. ``Nats-Msg-Id`` is the event's id: a
stream forgets repeats within its duplicate window (two minutes by default), a consumer knows them by the id for ever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from attrs import evolve

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.errors import ConfigError
from orchclient.core.policy import Action, Fate, Item, Verdict, all_delivered, printable
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.sinks.nats_line import Access, Ended, Kind, Message, NatsLine, Outcome, Unreachable
from orchclient.sinks.secretive import Secretive
from orchclient.sinks.sink import Closed

PREFIX = "orchclient"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TOKEN_CHARS = 200
_PREFIX_FORM = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PLAIN = re.compile(rb"[^A-Za-z0-9_-]")
_FATES = {Kind.STORED: Fate.DELIVERED, Kind.TOO_LARGE: Fate.DEAD}
_BEHIND = Outcome(Kind.UNHEARD, "waits for an earlier event of its task")


class NatsSink(Secretive):
    """Publishes to JetStream.

    :param access: where the servers are, and as whom to come.
    :param prefix: the first tokens of every subject.
    :param stream: the stream that must take them; empty: whichever does.

    Raises ``ConfigError`` when nats-py is not installed.
    """

    kind = "nats"
    holds = "the address of a server"
    from_beginning = True
    checks_sequence = False

    def __init__(
        self,
        access: Access,
        *,
        name: str = "nats",
        prefix: str = PREFIX,
        stream: str = "",
        secrets: KnownSecrets | None = None,
    ) -> None:
        if find_spec("nats") is None:
            raise ConfigError(f"destination {name}: it needs nats-py: pip install 'orchclient[nats]'")
        self.name = name
        self.target = sha256(" ".join((*access.servers, prefix, stream)).encode()).hexdigest()[:12]
        self._prefix = prefix
        self._secrets = secrets or KnownSecrets()
        self._line = NatsLine(access, stream)
        self._left: list[object] = []  # connections of a parent process: closing them here would harm it

    def load(self) -> None:
        """Import what is needed, where a fork waits for it."""
        import nats.aio.client
        import nats.js.client  # noqa: F401

    def limit(self) -> BatchLimit:
        """What a flusher gives at most."""
        return BatchLimit()

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        """Publish a batch: what the stream has acknowledged when this returns is stored there."""
        try:
            found = self._line.publish(_lanes(batch, self._prefix), deadline_s)
        except Unreachable as error:
            return self._nothing_stored(error.outcome)
        except Ended:
            raise Closed from None
        if all(id_ in found and found[id_].kind is Kind.STORED for id_ in batch.ids):
            return all_delivered(batch.ids)
        if not any(outcome.kind in _FATES for outcome in found.values()):
            return self._nothing_stored(next(iter(found.values()), _BEHIND))
        items = {id_: self._item(found.get(id_, _BEHIND)) for id_ in batch.ids}
        return Verdict(Action.SETTLE, "acknowledged per event", items=items)

    def _nothing_stored(self, outcome: Outcome) -> Verdict:
        action = Action.PAUSE if outcome.kind is Kind.REFUSED else Action.BACK_OFF
        return Verdict(action, self._said(outcome))

    def _item(self, outcome: Outcome) -> Item:
        fate = _FATES.get(outcome.kind, Fate.RETRY)
        return Item(fate, "" if fate is Fate.DELIVERED else self._said(outcome))

    def trouble(self, deadline_s: float) -> str:
        """What keeps it from delivering, in words; empty when it could. Changes nothing."""
        subject = f"{self._prefix}.outbox.task"
        try:
            if self._line.stream_of(subject, deadline_s):
                return ""
            return self._said(Outcome(Kind.NO_STREAM, f"no JetStream stream takes the subject {subject}"))
        except Unreachable as error:
            return self._said(error.outcome)
        finally:
            self._line.close()

    def close(self) -> None:
        """Cut what is under way, and let the connection go."""
        self._line.close()

    def forget_inherited(self) -> None:
        """In a forked child: the parent's connection is kept, not used, not closed."""
        self._left.append(self._line.inherited())

    def _said(self, outcome: Outcome) -> str:
        """Words as they may be shown, and what to do."""
        words = outcome.words
        if outcome.kind is Kind.NO_STREAM:
            words += f"; make one: nats stream add ORCHCLIENT --subjects '{self._prefix}.>' --dupe-window 24h"
        return printable(self._secrets.redact_text(words))


def _lanes(batch: Batch, prefix: str) -> list[list[Message]]:
    """The events of a batch by their subjects, in order."""
    found: dict[str, list[Message]] = {}
    for id_, text, event in zip(batch.ids, batch.encoded, batch.events, strict=True):
        subject = subject_of(prefix, event["source"], event["subject"])
        found.setdefault(subject, []).append(Message(id_, subject, text))
    return list(found.values())


def subject_of(prefix: str, source: str, task: str) -> str:
    """The subject of a task's events: ``prefix.outbox.task``."""
    return f"{prefix}.{token_of(source.removeprefix('urn:uuid:'))}.{token_of(task)}"


def token_of(text: str) -> str:
    """Any text as one token of a subject: letters, digits, ``-`` and ``_`` stay, other bytes become ``=XX``.

    Two texts never have the same token. Long ones are cut and end with a digest: a server takes 4 KiB in a line.
    """
    token = _PLAIN.sub(lambda found: b"=%02X" % found[0][0], text.encode("utf-8", "surrogatepass")).decode()
    if len(token) <= _TOKEN_CHARS:
        return token
    return f"{token[:_TOKEN_CHARS]}==" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# --- Settings -----------------------------------------------------------------------------------------------------


def checked_prefix(where: str, prefix: str) -> str:
    """The first tokens of a subject. Raises ``ConfigError``."""
    if len(prefix) > 200 or not _PREFIX_FORM.fullmatch(prefix):
        raise ConfigError(f"{where}: prefix is not usable: expected letters, digits, - and _, with dots between")
    return prefix


def access_of(where: str, urls: str, *, allow_plaintext: bool = False) -> Access:
    """Servers, and the credentials in their URLs: ``tls://user:password@host:4222``, several with commas between.

    Raises ``ConfigError``, which repeats no more of a URL than its host.
    """
    found = [_server(where, url.strip(), allow_plaintext) for url in urls.split(",") if url.strip()]
    if not found:
        raise ConfigError(f"{where}: no server is named; expected tls://host:4222")
    credentials = next((access for access in found if access.user or access.token), found[0])
    return evolve(credentials, servers=tuple(server for access in found for server in access.servers))


def _server(where: str, url: str, allow_plaintext: bool) -> Access:
    form = "expected tls://host:4222, or nats://127.0.0.1:4222"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 4222
    except ValueError:
        raise ConfigError(f"{where}: this is no URL of a server; {form}") from None
    if parts.scheme not in ("nats", "tls") or not host or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise ConfigError(f"{where}: this is no URL of a server; {form}")
    if parts.scheme == "nats" and host not in LOOPBACK and not allow_plaintext:
        raise ConfigError(
            f"{where}: nats:// to {host} is not encrypted: use tls://, "
            "or allow_plaintext = true in its [sinks.NAME] table"
        )
    server = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    user, password = unquote(parts.username or ""), parts.password
    if user and password is None:
        return Access((server,), token=Secret(user))
    return Access((server,), user=user, password=Secret(unquote(password)) if password is not None else None)


def with_credentials(where: str, access: Access, options: Mapping[str, Any]) -> Access:
    """The access with what a table says of credentials and certificates. Raises ``ConfigError``."""
    given = {name: options[name] for name in ("user", "password", "token") if name in options}
    paths = ("credentials_file", "ca_file", "cert_file", "key_file")
    given |= {name: str(Path(str(options[name])).expanduser()) for name in paths if name in options}
    if "credentials_file" in given and find_spec("nkeys") is None:
        raise ConfigError(f"{where}: credentials_file needs nkeys: pip install 'orchclient[nats]'")
    return evolve(access, **given)


def servers_of(where: str, options: Mapping[str, Any]) -> str:
    """The servers of a table: ``servers`` stands in the file, ``nats_url`` is a secret."""
    servers: Sequence[str] = options.get("servers", ())
    url = options.get("nats_url")
    if bool(servers) == isinstance(url, Secret):
        raise ConfigError(f"{where}: name the servers by one of servers, nats_url_env and nats_url_file")
    if isinstance(url, Secret):
        return url.reveal()
    if any("@" in server for server in servers):
        raise ConfigError(f"{where}: servers has credentials: use nats_url_file, token_file, or user and password_file")
    return ",".join(servers)
