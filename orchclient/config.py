"""Settings, value by value, highest first: keyword or flag, environment, a named TOML file, the user's file, defaults.

Never a file found in the current directory: agents run inside checkouts they did not write. Secrets come from the
environment, a file with mode 0600 or a callable, and do not show in a repr.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from orchclient import origins
from orchclient.core.errors import ConfigError
from orchclient.core.schedule import NEVER, Schedule
from orchclient.core.secret import KnownSecrets, Secret, credentials_in_all, secrets_in
from orchclient.origins import Values, nearest, shape, variable_of

MIB = 1_048_576
MODES = ("online", "offline", "disabled")
DURABILITIES = ("auto", "full")

TokenSource = str | Callable[[], str | None] | None


def _url_shown(url: str | None) -> str:
    from orchclient.core.redaction import Redactor

    return repr(url and Redactor().redact_text(url))


@frozen
class Settings:
    """Everything that can be set. Durations are seconds, sizes bytes."""

    agent: str = ""
    db: Path | None = None
    url: str | None = field(default=None, repr=_url_shown)
    token: Secret | Callable[[], str | None] | None = field(default=None, repr=False)
    mode: str = "online"
    durability: str = "auto"
    request_timeout: float = 10.0
    shutdown_timeout: float = 2.0
    retention: float = 7 * 86_400.0
    max_event_bytes: int = 256 * 1024
    max_pending: int = 1_000_000
    max_outbox_bytes: int = 1024 * MIB
    min_free_bytes: int = 64 * MIB
    ca_file: str | None = None
    proxy: Secret | None = None
    allow_network_filesystem: bool = False
    redact_keys: tuple[str, ...] = ()
    discord_webhook_url: Secret | None = field(default=None, repr=False)
    slack_webhook_url: Secret | None = field(default=None, repr=False)
    signing_secret: Secret | None = field(default=None, repr=False)  # one whsec_ secret, or several
    webhook_url: Secret | None = field(default=None, repr=False)
    webhook_secret: Secret | None = field(default=None, repr=False)  # one whsec_ secret, or several
    database_url: Secret | None = field(default=None, repr=False)
    nats_url: Secret | None = field(default=None, repr=False)  # one server, or several of a cluster
    public_url: str | None = None
    reminders: Schedule = field(factory=Schedule)
    escalation: tuple[str, ...] = ()
    heartbeat: float = 60.0  # 0: never
    sinks: Mapping[str, Mapping[str, Any]] = field(factory=dict)  # by name: the kind and its options
    origins: Mapping[str, str] = field(factory=dict)

    def __reduce__(self) -> NoReturn:
        raise TypeError("Settings hold secrets and are not pickled: load them again where they are needed")

    def token_now(self) -> str | None:
        """The token at this moment. Raises ``ConfigError`` when there is none to be had that a header can carry."""
        token = _asked(self.token) if callable(self.token) else self.token
        if token is None:
            return None
        _refuse_unsendable(token)
        return token.reveal()

    def known_secrets(self) -> KnownSecrets:
        """What must be neither stored nor shown; a callable's tokens are learned when they are used."""
        token = (self.token.reveal(),) if isinstance(self.token, Secret) else ()
        proxy = _credentials(self.proxy.reveal()) if self.proxy else ()
        hooks = (self.discord_webhook_url, self.slack_webhook_url, self.webhook_url)
        urls = (text for hook in hooks if hook for text in secrets_in(hook.reveal()))
        addresses = (self.database_url, self.nats_url)
        address = [text for each in addresses if each for text in credentials_in_all(each.reveal())]
        pairs = (self.webhook_secret, self.signing_secret)
        signing = [word for each in pairs if each for word in each.reveal().replace(",", " ").split()]
        return KnownSecrets((*token, *proxy, *urls, *address, *signing), self.redact_keys)


def _asked(source: Callable[[], str | None]) -> Secret | None:
    # What a callable raises may quote the token, and a traceback of it may show its locals: only the kind is told.
    try:
        text = source()
        return Secret(text) if text else None
    except Exception as error:  # noqa: BLE001  other people's code
        failure = ConfigError(
            f"token: the callable raised {type(error).__name__}; nothing is sent until it returns a token"
        )
    raise failure


def _refuse_unsendable(token: Secret) -> None:
    if not _is_sendable(token):
        raise ConfigError("token (ORCHCLIENT_TOKEN) contains characters that no HTTP header can carry")


def _is_sendable(token: Secret) -> bool:
    text: object = token.reveal()
    return isinstance(text, str) and text.isascii() and text.isprintable() and " " not in text


def _credentials(url: str) -> tuple[str, ...]:
    """What of a URL is secret, in the ways in which a server may repeat it."""
    userinfo = urlsplit(url).netloc.rpartition("@")[0]
    user, _, password = userinfo.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}"
    texts = (plain, b64encode(plain.encode()).decode(), userinfo, password, unquote(password))
    return tuple(dict.fromkeys(text for text in texts if text)) if userinfo else ()


@frozen
class _Setting:
    """One setting: how text becomes its value, and the form to name when it does not."""

    parse: Callable[[str], Any]
    form: str
    in_files: bool = True
    is_list: bool = False


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


LONGEST_S = 100 * 365 * 86_400.0
"""A longer duration is a mistake; and from some length on no instant before or behind it could be written."""

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> float:
    """A duration such as ``90``, ``90s``, ``15m``, ``2h`` or ``30d`` in seconds; raises ``ValueError``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", text)
    if not match or (value := float(match[1]) * _UNITS[match[2]]) > LONGEST_S:
        raise ValueError(text)
    return value


def _schedule(text: str) -> Schedule:
    if text.strip() in ("off", "false"):
        return NEVER
    *after_s, every_s = [seconds(each) for each in text.split(",")]
    if every_s <= 0 or any(later <= earlier for earlier, later in zip((0.0, *after_s), after_s, strict=False)):
        raise ValueError(text)
    return Schedule(tuple(after_s), every_s)


def _heartbeat(text: str) -> float:
    if text.strip() in ("off", "false"):
        return 0.0
    every_s = seconds(text)
    if every_s < 1:
        raise ValueError(text)
    return every_s


def _event_bytes(text: str) -> int:
    size = int(text)
    if not 1024 <= size <= MIB:
        raise ValueError(text)
    return size


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return parse


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _token(text: str) -> Secret | None:
    return Secret(text) if text else None


def _public_url(text: str) -> str:
    from orchclient.sinks.orchestrator import checked_url

    if len(text) > 512 or not text.isascii() or set(text) & set("<>()|\\\"'`"):
        raise ValueError
    return checked_url("public_url (ORCHCLIENT_PUBLIC_URL)", text)


def _proxy(text: str) -> Secret:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return Secret(text)


_DURATION = "a duration such as 90, 90s, 15m, 2h or 30d"

_SETTINGS: dict[str, _Setting] = {
    "agent": _Setting(str, "text"),
    "db": _Setting(lambda text: Path(text).expanduser(), "a path"),
    "url": _Setting(str, "a URL such as https://orchestrator.example"),
    "token": _Setting(_token, "text", in_files=False),
    "token_file": _Setting(str, "the path of a file with mode 0600"),
    "mode": _Setting(_one_of(MODES), f"one of {', '.join(MODES)}"),
    "durability": _Setting(_one_of(DURABILITIES), f"one of {', '.join(DURABILITIES)}"),
    "request_timeout": _Setting(seconds, _DURATION),
    "shutdown_timeout": _Setting(seconds, _DURATION),
    "retention": _Setting(seconds, _DURATION),
    "max_event_bytes": _Setting(_event_bytes, "a whole number of bytes from 1024 to 1048576"),
    "max_pending": _Setting(_positive, "a whole number of events, 1 or more"),
    "max_outbox_bytes": _Setting(_positive, "a whole number of bytes, 1 or more"),
    "min_free_bytes": _Setting(_positive, "a whole number of bytes, 1 or more"),
    "ca_file": _Setting(str, "the path of a PEM file"),
    "proxy": _Setting(_proxy, "a URL such as http://proxy:3128"),
    "allow_network_filesystem": _Setting(_boolean, "true or false"),
    "redact_keys": _Setting(_names, "names separated by commas", is_list=True),
    "discord_webhook_url": _Setting(_token, "the URL of a webhook", in_files=False),
    "slack_webhook_url": _Setting(_token, "the URL of a webhook", in_files=False),
    "signing_secret": _Setting(_token, "whsec_ and base64", in_files=False),
    "webhook_url": _Setting(_token, "a URL such as https://example.com/hook", in_files=False),
    "webhook_secret": _Setting(_token, "whsec_ and base64", in_files=False),
    "database_url": _Setting(_token, "a path or postgresql://user@host/name", in_files=False),
    "nats_url": _Setting(_token, "a URL such as tls://host:4222", in_files=False),
    "public_url": _Setting(_public_url, "a URL such as https://answers.example"),
    "reminders": _Setting(
        _schedule, "off, or rising durations such as 15m,1h,4h: the last one is repeated", is_list=True
    ),
    "escalation": _Setting(_names, "names of destinations, separated by commas", is_list=True),
    "heartbeat": _Setting(_heartbeat, "off, or a duration of a second or more such as 60s or 5m"),
    "sinks": _Setting(str, "tables such as [sinks.audit] in a TOML file"),
}


def names() -> tuple[str, ...]:
    """Every setting."""
    return tuple(_SETTINGS)


def load(environ: Mapping[str, str] | None = None, config_file: str | None = None, **given: Any) -> Settings:
    """Settings from every source. ``given`` are keywords or flags; None means not given.

    Raises ``ConfigError`` naming the setting, where it came from and the allowed form.
    """
    try:
        return _loaded(os.environ if environ is None else environ, config_file, given)
    except ConfigError as error:
        # A traceback that shows locals would print the environment and the secrets: the message has to do.
        environ = given = {}
        raise error.with_traceback(None) from None


def _loaded(environ: Mapping[str, str], config_file: str | None, given: Mapping[str, Any]) -> Settings:
    _refuse_unknown(given, "keyword")
    values: dict[str, Any] = {}
    found: dict[str, str] = {}
    for source in _sources(environ, config_file, given):
        for name, value in source.values.items():
            if name not in values:
                found[name] = source.origin(name)
                values[name] = _parsed(name, value, found[name])
    _resolve_token(values, found)
    if isinstance(values.get("token"), Secret):
        _refuse_unsendable(values["token"])
    if values.get("url"):
        from orchclient.sinks.orchestrator import checked_url

        values["url"] = checked_url(f"url ({found['url']})", values["url"])
    return Settings(**values, origins=found)


def _sources(environ: Mapping[str, str], config_file: str | None, given: Mapping[str, Any]) -> list[Values]:
    return [
        origins.given(given),
        origins.of_environment(environ, _SETTINGS),
        *map(_file, files(environ, config_file)),
    ]


def files(environ: Mapping[str, str], config_file: str | None = None) -> list[Path]:
    """The files that are read, highest first: the one that is named, which must exist, and the user's.

    The null device names none at all: a test, or whatever else must not depend on the user, says so.
    """
    named = config_file or environ.get("ORCHCLIENT_CONFIG") or None
    if named == os.devnull:
        return []
    return [*([Path(named).expanduser()] if named else []), user_file()]


def _file(path: Path) -> Values:
    source = origins.of_file(path, must_exist=path != user_file())
    for name in source.values:
        _refuse_unknown([name], source.origin(name))
        if not _SETTINGS[name].in_files:
            cure = f"use {name}_file" if name == "token" else f"use {variable_of(name)}, or a [sinks.NAME] table"
            raise ConfigError(f"{source.origin(name)}: {name} is a secret and must not stand in this file; {cure}")
    return source


def user_file() -> Path:
    """The user's own file, read when it is there."""
    from platformdirs import user_config_path

    return user_config_path("orchclient") / "config.toml"


def default_db() -> Path:
    """Where the outbox is when nothing says otherwise: one per user, in the platform's state directory."""
    from platformdirs import user_state_path

    return user_state_path("orchclient") / "outbox.db"


def _refuse_unknown(names: Iterable[str], origin: str) -> None:
    for name in names:
        if name not in _SETTINGS:
            raise ConfigError(f"unknown setting {name!r} ({origin}); {nearest(name, _SETTINGS)}")


def _parsed(name: str, value: Any, origin: str) -> Any:
    """A value of any source; text is parsed, values of keywords and TOML are brought to the same form."""
    setting = _SETTINGS[name]
    shown = origin if origin == variable_of(name) else f"{name} ({origin})"
    if name == "token" and callable(value):
        return value
    if name == "sinks":
        return _sink_tables(value, shown)
    try:
        return setting.parse(_text_of(setting, value))
    except ConfigError:
        raise
    except (ValueError, RuntimeError):
        # The value itself is not repeated: it may be a secret in the wrong place.
        raise ConfigError(f"{shown} is not usable: expected {setting.form}, not {shape(value)}") from None


def _text_of(setting: _Setting, value: Any) -> str:
    if isinstance(value, list | tuple) and setting.is_list:
        return ",".join(map(str, value))
    if isinstance(value, list | tuple | Mapping):
        raise ValueError
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sink_tables(value: Any, shown: str) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(table, Mapping) for table in value.values()):
        raise ConfigError(f"{shown} is not usable: expected {_SETTINGS['sinks'].form}")
    return value


def _resolve_token(values: dict[str, Any], found: dict[str, str]) -> None:
    token_file = values.pop("token_file", None)
    if token_file is None:
        return
    if "token" in values:
        raise ConfigError(f"both token and token_file are set ({found['token']}; {found['token_file']}): keep one")
    values["token"] = _token(secret_file(Path(token_file).expanduser()))
    found["token"] = f"{token_file} (token_file of {found.pop('token_file')})"


class FileSecret(Secret):
    """A secret that is read anew from its file whenever it is needed: tokens expire, and others are written there."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(secret_file(path))

    def reveal(self) -> str:
        """What the file holds now. Raises ``ConfigError``."""
        return secret_file(self._path)


def secret_file(path: Path) -> str:
    """The text of a file that only its owner can read. Raises ``ConfigError``."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"token file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:  # which holds the whole content
        raise ConfigError(f"token file {path} is not text") from None
    if mode & 0o077:
        raise ConfigError(f"token file {path} has mode {mode:04o}: others can read it; run chmod 600 {path}")
    return text
