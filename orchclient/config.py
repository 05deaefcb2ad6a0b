"""Settings, value by value, highest first: keyword or flag, environment, a named TOML file, the user's file, defaults.

Never a file found in the current directory: agents run inside checkouts they did not write. Secrets come from the
environment, a file with mode 0600 or a callable, and do not show in a repr.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from attrs import field, frozen

from orchclient.core.errors import ConfigError

MIB = 1_048_576
MODES = ("online", "offline", "disabled")
DURABILITIES = ("auto", "full")

TokenSource = str | Callable[[], str | None] | None


@frozen
class Settings:
    """Everything that can be set. Durations are seconds, sizes bytes."""

    agent: str = ""
    db: Path | None = None
    url: str | None = None
    token: TokenSource = field(default=None, repr=False)
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
    proxy: str | None = None
    allow_network_filesystem: bool = False
    redact_keys: tuple[str, ...] = ()
    origins: Mapping[str, str] = field(factory=dict)

    def token_now(self) -> str | None:
        """The token at this moment. Raises ``ConfigError`` when it cannot be sent in a header."""
        value = self.token() if callable(self.token) else self.token
        if not value:
            return None
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
            raise ConfigError("token (ORCHCLIENT_TOKEN) contains characters that no HTTP header can carry")
        return value


@frozen
class _Setting:
    """One setting: how text becomes its value, and the form to name when it does not."""

    parse: Callable[[str], Any]
    form: str
    in_files: bool = True


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(text)


_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> float:
    """A duration such as ``90``, ``90s``, ``15m``, ``2h`` or ``30d`` in seconds; raises ``ValueError``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)\s*", text)
    if not match:
        raise ValueError(text)
    return float(match[1]) * _UNITS[match[2]]


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


_DURATION = "a duration such as 90, 90s, 15m, 2h or 30d"

_SETTINGS: dict[str, _Setting] = {
    "agent": _Setting(str, "text"),
    "db": _Setting(lambda text: Path(text).expanduser(), "a path"),
    "url": _Setting(str, "a URL such as https://orchestrator.example"),
    "token": _Setting(str, "text", in_files=False),
    "token_file": _Setting(str, "the path of a file with mode 0600"),
    "mode": _Setting(_one_of(MODES), f"one of {', '.join(MODES)}"),
    "durability": _Setting(_one_of(DURABILITIES), f"one of {', '.join(DURABILITIES)}"),
    "request_timeout": _Setting(seconds, _DURATION),
    "shutdown_timeout": _Setting(seconds, _DURATION),
    "retention": _Setting(seconds, _DURATION),
    "max_event_bytes": _Setting(_event_bytes, "a whole number of bytes from 1024 to 1048576"),
    "max_pending": _Setting(_positive, "a whole number of events"),
    "max_outbox_bytes": _Setting(_positive, "a whole number of bytes"),
    "min_free_bytes": _Setting(_positive, "a whole number of bytes"),
    "ca_file": _Setting(str, "the path of a PEM file"),
    "proxy": _Setting(str, "a URL such as http://proxy:3128"),
    "allow_network_filesystem": _Setting(_boolean, "true or false"),
    "redact_keys": _Setting(_names, "names separated by commas"),
}


def load(environ: Mapping[str, str] | None = None, config_file: str | None = None, **given: Any) -> Settings:
    """Settings from every source. ``given`` are keywords or flags; None means not given.

    Raises ``ConfigError`` naming the setting, where it came from and the allowed form.
    """
    environ = os.environ if environ is None else environ
    _refuse_unknown(given, "keyword")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, source in _sources(environ, config_file, given):
        for name, value in source.items():
            if name not in values:
                values[name], origins[name] = _parsed(name, value, origin), origin
    _resolve_token(values, origins)
    return Settings(**values, origins=origins)


def _sources(
    environ: Mapping[str, str], config_file: str | None, given: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any]]]:
    named = config_file or environ.get("ORCHCLIENT_CONFIG") or None
    user_file = _user_file()
    return [
        ("keyword", {name: value for name, value in given.items() if value is not None}),
        ("environment", _from_environment(environ)),
        *([(named, _from_file(Path(named).expanduser(), must_exist=True))] if named else []),
        (str(user_file), _from_file(user_file, must_exist=False)),
    ]


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    # An empty variable counts as unset, as OpenTelemetry's specification has it.
    found = {name: environ.get(f"ORCHCLIENT_{name.upper()}", "") for name in _SETTINGS}
    return {name: value for name, value in found.items() if value}


def _from_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not must_exist and not path.is_file():
        return {}
    import tomllib

    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from error
    _refuse_unknown(values, str(path))
    for name in values:
        if not _SETTINGS[name].in_files:
            raise ConfigError(f"{path}: {name} is a secret and must not stand in this file; use {name}_file")
    return values


def _user_file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("orchclient") / "config.toml"


def default_db() -> Path:
    """Where the outbox is when nothing says otherwise: one per user, in the platform's state directory."""
    from platformdirs import user_state_path

    return user_state_path("orchclient") / "outbox.db"


def _refuse_unknown(values: Mapping[str, Any], origin: str) -> None:
    for name in values:
        if name not in _SETTINGS:
            near = get_close_matches(name, _SETTINGS, 1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_SETTINGS)}"
            raise ConfigError(f"unknown setting {name!r} ({origin}); {hint}")


def _parsed(name: str, value: Any, origin: str) -> Any:
    """A value of any source; text is parsed, values of keywords and TOML are brought to the same form."""
    setting = _SETTINGS[name]
    shown = f"ORCHCLIENT_{name.upper()}" if origin == "environment" else f"{name} ({origin})"
    if name == "token" and callable(value):
        return value
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if isinstance(value, bool):
        text = text.lower()
    try:
        return setting.parse(text)
    except (ValueError, RuntimeError):
        # The value itself is not repeated: it may be a secret in the wrong place.
        raise ConfigError(f"{shown} is not usable: expected {setting.form}") from None


def _resolve_token(values: dict[str, Any], origins: dict[str, str]) -> None:
    token_file = values.pop("token_file", None)
    if token_file is None:
        return
    if "token" in values:
        raise ConfigError("both token and token_file are set: keep one of ORCHCLIENT_TOKEN and ORCHCLIENT_TOKEN_FILE")
    values["token"], origins["token"] = _secret_file(Path(token_file).expanduser()), f"file {token_file}"


def _secret_file(path: Path) -> str:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"token file {path} has mode {mode:04o}: others can read it; run chmod 600 {path}")
    return text
