"""The destinations that settings describe: the orchestrator of ``url``, and one for each ``[sinks.NAME]`` table.

Finds the dialect of a table's ``kind`` among ours and among the entry points ``orchclient.sinks`` of installed
packages, and resolves its secrets; what the options mean is the dialect's affair.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.secret import KnownSecrets, Secret

if TYPE_CHECKING:
    from orchclient.sinks.sink import AnySink

Options = Mapping[str, Any]
Factory = Callable[[str, Options, KnownSecrets], "AnySink"]
"""Makes a destination from its name, its options and what is known of secrets; raises ``ConfigError``."""

GROUP = "orchclient.sinks"
SECRET_OPTIONS = ("token", "secret", "password", "api_key", "webhook_url")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def configured(settings: config.Settings, secrets: KnownSecrets) -> list[AnySink]:
    """Every destination that the settings name. Raises ``ConfigError`` when one is not usable."""
    found: list[AnySink] = []
    if settings.url is not None:
        found.append(_orchestrator_of(settings, secrets))
    for name, table in settings.sinks.items():
        found.append(_of_table(name, table, secrets))
    return checked(found)


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


def _orchestrator_of(settings: config.Settings, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.orchestrator import OrchestratorSink

    assert settings.url is not None
    sink = OrchestratorSink(settings.url, settings.token_now, secrets=secrets)
    sink.greeting()  # asks for the token: an unusable one is told at construction, and no event may quote it
    return sink


def _of_table(name: str, table: Options, secrets: KnownSecrets) -> AnySink:
    where = f"[sinks.{name}]"
    options = dict(table)
    kind = options.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{where} has no kind; known: {', '.join(_kinds())}")
    resolved = _resolved(where, options, secrets)
    return _factory(where, kind)(name, resolved, secrets)


def _resolved(where: str, options: dict[str, Any], secrets: KnownSecrets) -> dict[str, Any]:
    """The options with secrets read from where they are kept: ``token_file`` and ``token_env`` become ``token``."""
    for option in SECRET_OPTIONS:
        if option in options:
            raise ConfigError(f"{where}: {option} is a secret and must not stand in a file; use {option}_file or _env")
        text = _secret(where, option, options.pop(f"{option}_file", None), options.pop(f"{option}_env", None))
        if text is not None:
            secrets.learn(text)
            options[option] = Secret(text)
    return options


def _secret(where: str, option: str, file: Any, variable: Any) -> str | None:
    if file is not None and variable is not None:
        raise ConfigError(f"{where}: both {option}_file and {option}_env are given: keep one")
    if file is not None:
        return config.secret_file(Path(str(file)).expanduser())
    if variable is None:
        return None
    text = os.environ.get(str(variable), "")
    if not text:
        raise ConfigError(f"{where}: {option}_env names {variable}, which is not set in the environment")
    return text


def _factory(where: str, kind: str) -> Factory:
    if kind in _BUILT_IN:
        return _BUILT_IN[kind]
    found = next((point for point in _entry_points() if point.name == kind), None)
    if found is None:
        from difflib import get_close_matches

        known = _kinds()
        near = get_close_matches(kind, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"{where}: unknown kind {kind!r:.80}; {hint}")
    try:
        factory: Factory = found.load()
    except Exception as error:
        raise ConfigError(f"{where}: kind {kind} of {found.value} cannot be loaded: {error}") from error
    return factory


def _kinds() -> list[str]:
    return sorted({*_BUILT_IN, *(point.name for point in _entry_points())})


def _entry_points() -> Sequence[Any]:
    from importlib.metadata import entry_points  # 10 ms and more: only for a kind that is not ours

    return tuple(entry_points(group=GROUP))


def _another_orchestrator(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.orchestrator import OrchestratorSink, checked_url

    where = f"[sinks.{name}]"
    refuse_unknown(where, options, ("url", "token"))
    url, token = options.get("url"), options.get("token")
    if not isinstance(url, str):
        raise ConfigError(f"{where}: url is missing, such as https://orchestrator.example")
    return OrchestratorSink(
        checked_url(f"{where} url", url), lambda: token.reveal() if token else None, name=name, secrets=secrets
    )


def refuse_unknown(where: str, options: Options, known: Sequence[str]) -> None:
    """Raises ``ConfigError`` for an option that a dialect does not have."""
    for option in options:
        if option not in known:
            raise ConfigError(f"{where}: unknown option {option!r:.80}; known: {', '.join(known)}")


_BUILT_IN: dict[str, Factory] = {"orchestrator": _another_orchestrator}
