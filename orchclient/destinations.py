"""The destinations that settings describe: the orchestrator of ``url``, and one for each ``[sinks.NAME]`` table.

Finds the dialect of a table's ``kind`` among ours and among the entry points ``orchclient.sinks`` of installed
packages, and resolves its secrets; what the options mean is the dialect's affair.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.secret import KnownSecrets, Secret, credentials_in, credentials_in_all, secrets_in
from orchclient.dialects import BUILT_IN, LINKING, Factory, of_settings
from orchclient.origins import nearest
from orchclient.sink_options import Options

if TYPE_CHECKING:
    from orchclient.sinks.sink import AnySink

GROUP = "orchclient.sinks"
SECRET_OPTIONS = ("token", "secret", "password", "api_key", "webhook_url", "database_url", "nats_url")
_SECRETS_IN = {"webhook_url": secrets_in, "database_url": credentials_in, "nats_url": credentials_in_all}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def configured(settings: config.Settings, secrets: KnownSecrets) -> list[AnySink]:
    """Every destination that the settings name. Raises ``ConfigError`` when one is not usable."""
    tables = settings.sinks.items()
    found = (_of_table(name, _with_public_url(table, settings), secrets) for name, table in tables)
    return checked([*of_settings(settings, secrets), *found])


def checked(sinks: Iterable[AnySink]) -> list[AnySink]:
    """Destinations with names that can be kept and told apart. Raises ``ConfigError``."""
    by_name: dict[str, AnySink] = {}
    for sink in sinks:
        if not isinstance(sink.name, str) or not _NAME.fullmatch(sink.name):
            raise ConfigError(
                f"destination {sink.name!r:.80}: a name has 1 to 64 lower-case letters, digits, - and _, like audit-log"
            )
        if sink.name in by_name:
            raise ConfigError(f"two destinations are named {sink.name!r}: its cursor is kept by name, rename one")
        if sink.checks_sequence and hasattr(sink, "takes"):
            raise ConfigError(
                f"destination {sink.name!r} looks for missing sequences and does not take every event: "
                "take them all, or set checks_sequence to False"
            )
        by_name[sink.name] = sink
    return list(by_name.values())


def _with_public_url(table: Options, settings: config.Settings) -> Options:
    """Links in messages lead to one place, unless a table names another."""
    if table.get("kind") not in LINKING or settings.public_url is None:
        return table
    return {"public_url": settings.public_url, **table}


def _of_table(name: str, table: Options, secrets: KnownSecrets) -> AnySink:
    where = f"[sinks.{name}]"
    options = dict(table)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{where} has no kind; known: {', '.join(_kinds())}")
    is_escalation = options.pop("escalation", False)
    if not isinstance(is_escalation, bool):
        raise ConfigError(f"{where}: escalation must be true or false")
    resolved = _resolved(where, options, secrets)
    sink = _factory(where, kind)(name, resolved, secrets)
    return _escalated(sink) if is_escalation else sink


def named_for_escalation(sinks: Iterable[AnySink], names: Sequence[str]) -> list[AnySink]:
    """Destinations, of which those of some names get escalated reminders only. Raises ``ConfigError`` for others."""
    found = list(sinks)
    if unknown := set(names) - {sink.name for sink in found}:
        raise ConfigError(f"escalation names no destination {', '.join(sorted(unknown))}: there are {_names_of(found)}")
    return [_escalated(sink) if sink.name in names else sink for sink in found]


def _names_of(sinks: Iterable[AnySink]) -> str:
    return ", ".join(sink.name for sink in sinks) or "none"


def _escalated(sink: AnySink) -> AnySink:
    from orchclient.sinks.escalation import only_escalated

    if sink.checks_sequence:
        raise ConfigError(
            f"destination {sink.name!r} cannot be for escalation only: it looks for missing sequences, so it gets all"
        )
    return only_escalated(sink)


def _resolved(where: str, options: dict[str, Any], secrets: KnownSecrets) -> dict[str, Any]:
    """The options with secrets read from where they are kept: ``token_file`` and ``token_env`` become ``token``."""
    for option in SECRET_OPTIONS:
        if option in options:
            raise ConfigError(f"{where}: {option} is a secret and must not stand in a file; use {option}_file or _env")
        secret = _secret(where, option, options.pop(f"{option}_file", None), options.pop(f"{option}_env", None))
        if secret is not None:
            secrets.keep(*_SECRETS_IN.get(option, _words)(secret.reveal()))
            options[option] = secret
    return options


def _words(text: str) -> Sequence[str]:
    """A secret, or several with spaces or commas between them."""
    return (text, *text.replace(",", " ").split())


def _secret(where: str, option: str, file: Any, variable: Any) -> Secret | None:
    if file is not None and variable is not None:
        raise ConfigError(f"{where}: both {option}_file and {option}_env are given: keep one")
    if file is not None:
        path = Path(str(file)).expanduser()
        return config.FileSecret(path) if option == "token" else Secret(config.secret_file(path))
    if variable is None:
        return None
    text = os.environ.get(str(variable), "")
    if not text:
        raise ConfigError(f"{where}: {option}_env names {variable}, which is not set in the environment")
    return Secret(text)


def _factory(where: str, kind: str) -> Factory:
    if kind in BUILT_IN:
        return BUILT_IN[kind]
    found = next((point for point in _entry_points() if point.name == kind), None)
    if found is None:
        raise ConfigError(f"{where}: unknown kind {kind!r:.80}; {nearest(kind, _kinds())}")
    try:
        factory: Factory = found.load()
    except Exception as error:
        raise ConfigError(f"{where}: kind {kind} of {found.value} cannot be loaded: {error}") from error
    return factory


def _kinds() -> list[str]:
    return sorted({*BUILT_IN, *(point.name for point in _entry_points())})


def _entry_points() -> Sequence[Any]:
    from importlib.metadata import entry_points  # 10 ms and more: only for a kind that is not ours

    return tuple(entry_points(group=GROUP))
