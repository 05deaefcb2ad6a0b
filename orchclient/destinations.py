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
from orchclient.core.secret import KnownSecrets, Secret, credentials_in, credentials_in_all, secrets_in
from orchclient.origins import nearest

if TYPE_CHECKING:
    from orchclient.core.events import NotificationPriority
    from orchclient.core.noise import NoiseRules, Quiet
    from orchclient.sinks.sink import AnySink

Options = Mapping[str, Any]
Factory = Callable[[str, Options, KnownSecrets], "AnySink"]
"""Makes a destination from its name, its options and what is known of secrets; raises ``ConfigError``."""

GROUP = "orchclient.sinks"
SECRET_OPTIONS = ("token", "secret", "password", "api_key", "webhook_url", "database_url", "nats_url")
_SECRETS_IN = {"webhook_url": secrets_in, "database_url": credentials_in, "nats_url": credentials_in_all}
_RULES = ("priority", "speaks_every", "quiet", "timezone", "wakes", "repeats")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def configured(settings: config.Settings, secrets: KnownSecrets) -> list[AnySink]:
    """Every destination that the settings name. Raises ``ConfigError`` when one is not usable."""
    found: list[AnySink] = []
    if settings.url is not None:
        found.append(_orchestrator_of(settings, secrets))
    for kind, url in (("discord", settings.discord_webhook_url), ("slack", settings.slack_webhook_url)):
        if url is not None:
            variable = f"ORCHCLIENT_{kind.upper()}_WEBHOOK_URL"
            options = {"webhook_url": url, "public_url": settings.public_url or ""}
            found.append(_chat(kind, kind, variable, options, secrets))
    if settings.webhook_url is not None:
        found.append(_webhook_of(settings, secrets))
    if settings.database_url is not None:
        found.append(_database("database", {"database_url": settings.database_url}, secrets))
    if settings.nats_url is not None:
        found.append(_nats("nats", {"nats_url": settings.nats_url}, secrets))
    for name, table in settings.sinks.items():
        found.append(_of_table(name, _with_public_url(table, settings), secrets))
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


def _webhook_of(settings: config.Settings, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.address import checked_hook
    from orchclient.sinks.webhook import WebhookSink, checked_secrets

    assert settings.webhook_url is not None
    checked_hook("webhook_url (ORCHCLIENT_WEBHOOK_URL)", settings.webhook_url.reveal())
    text = settings.webhook_secret.reveal() if settings.webhook_secret else ""
    signing = checked_secrets("webhook_secret (ORCHCLIENT_WEBHOOK_SECRET)", text)
    return WebhookSink(settings.webhook_url, signing, public_url=settings.public_url or "", secrets=secrets)


def _with_public_url(table: Options, settings: config.Settings) -> Options:
    """Links in messages lead to one place, unless a table names another."""
    if table.get("kind") not in _LINKING or settings.public_url is None:
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
            text = secret.reveal()
            parts = _SECRETS_IN.get(option, _words)(text)
            secrets.keep(*parts if option in ("database_url", "nats_url") else (text, *parts))
            options[option] = secret
    return options


def _words(text: str) -> Sequence[str]:
    return text.replace(",", " ").split()


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
    if kind in _BUILT_IN:
        return _BUILT_IN[kind]
    found = next((point for point in _entry_points() if point.name == kind), None)
    if found is None:
        raise ConfigError(f"{where}: unknown kind {kind!r:.80}; {nearest(kind, _kinds())}")
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


def _webhook(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.core.events import NotificationPriority
    from orchclient.sinks.address import checked_hook
    from orchclient.sinks.webhook import WebhookSink, checked_secrets

    where = f"[sinks.{name}]"
    if "template" in options or "body" in options:
        return _template(name, where, options, secrets)
    refuse_unknown(
        where, options, ("webhook_url", "secret", "types", "priority", "public_url", "allow_private", "template")
    )
    allow_private = _flag(where, options, "allow_private")
    url = _hook_url(where, options)
    checked_hook(f"{where} webhook_url", url.reveal(), allow_private=allow_private)
    least = _priority(where, options, "priority") if "priority" in options else NotificationPriority.LOW
    return WebhookSink(
        url,
        checked_secrets(f"{where} secret", options["secret"].reveal()) if "secret" in options else (),
        name=name,
        types=_texts(where, options, "types"),
        least=least,
        public_url=str(options.get("public_url", "")),
        secrets=secrets,
        allow_private=allow_private,
    )


_TEMPLATE_OPTIONS = ("webhook_url", "template", "body", "token", "types", "public_url", "allow_private")


def _template(name: str, where: str, options: Options, secrets: KnownSecrets) -> AnySink:
    """A webhook of another service, told messages as people read them."""
    from orchclient.sinks.address import checked_hook
    from orchclient.sinks.templated import TemplatedSink
    from orchclient.sinks.templates.known import OWN, TEMPLATES
    from orchclient.sinks.templates.own import own

    refuse_unknown(where, options, (*_TEMPLATE_OPTIONS, *_RULES))
    named, allow_private, token = (
        options.get("template", OWN),
        _flag(where, options, "allow_private"),
        options.get("token"),
    )
    if named != OWN and "body" in options:
        raise ConfigError(f"{where}: template {named!r:.40} has a body of its own: leave out body, or the template")
    if named != OWN and named not in TEMPLATES:
        raise ConfigError(f"{where}: unknown template {named!r:.40}; {nearest(str(named), (*TEMPLATES, OWN))}")
    try:
        template = own(options.get("body")) if named == OWN else TEMPLATES[named]
        if template.needs and token is None:
            raise ConfigError(f"template {named} needs a token_file or a token_env: {template.needs}")
        url = options.get("webhook_url") or (Secret(template.default_url) if template.default_url else None)
        url = _hook_url(where, {"webhook_url": url})
        checked_hook("webhook_url", url.reveal(), allow_private=allow_private)
        return TemplatedSink(
            url,
            template,
            token=None if token is None else lambda: token,
            types=_texts(where, options, "types"),
            name=name,
            public_url=str(options.get("public_url", "")),
            rules=_noise_rules(where, options),
            secrets=secrets,
            allow_private=allow_private,
        )
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from None


def _database(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.server.destination import DatabaseSink

    where = f"[sinks.{name}]"
    refuse_unknown(where, options, ("database_url", "path"))
    if ("database_url" in options) == ("path" in options):
        raise ConfigError(
            f"{where}: name the database by one of path (a SQLite file), database_url_env and database_url_file"
        )
    return DatabaseSink(options.get("database_url") or str(options["path"]), name=name, secrets=secrets)


_NATS_ACCESS = ("user", "password", "token", "credentials_file", "ca_file", "cert_file", "key_file")


def _nats(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.nats import PREFIX, NatsSink, access_of, checked_prefix, servers_of, with_credentials

    where = f"[sinks.{name}]"
    known = ("servers", "nats_url", "prefix", "stream", "allow_plaintext", *_NATS_ACCESS)
    refuse_unknown(where, options, known)
    servers = servers_of(where, {**options, "servers": _texts(where, options, "servers")})
    access = access_of(where, servers, allow_plaintext=_flag(where, options, "allow_plaintext"))
    return NatsSink(
        with_credentials(where, access, options),
        name=name,
        prefix=checked_prefix(where, str(options.get("prefix", PREFIX))),
        stream=str(options.get("stream", "")),
        secrets=secrets,
    )


def _discord(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    return _chat("discord", name, f"[sinks.{name}]", options, secrets)


def _slack(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    if "token" in options or "channel" in options:
        return _slack_bot(name, options, secrets)
    return _chat("slack", name, f"[sinks.{name}]", options, secrets)


_CHAT_OPTIONS = ("webhook_url", "public_url", "hosts", "allow_private", *_RULES)


def _chat(kind: str, name: str, where: str, options: Options, secrets: KnownSecrets) -> AnySink:
    """A chat destination; ``where`` names its settings in an error."""
    from orchclient.sinks import discord, slack
    from orchclient.sinks.address import checked_hook

    refuse_unknown(where, options, _CHAT_OPTIONS if kind == "slack" else (*_CHAT_OPTIONS, "thread_id"))
    dialect = slack if kind == "slack" else discord
    allow_private, url = _flag(where, options, "allow_private"), _hook_url(where, options)
    hosts = {*dialect.HOSTS, *_texts(where, options, "hosts")}
    is_own = url.reveal().partition("://")[2].partition("/")[0] in dialect.HOSTS
    checked_hook(where, url.reveal(), hosts, dialect.PATH if is_own else "", allow_private=allow_private)
    more: dict[str, Any] = {"name": name, "public_url": str(options.get("public_url", "")), "secrets": secrets}
    more |= {"rules": _noise_rules(where, options), "allow_private": allow_private}
    if kind == "slack":
        return slack.SlackSink(url, **more)
    thread_id = str(options.get("thread_id", ""))
    if thread_id and not (thread_id.isascii() and thread_id.isdigit()):
        raise ConfigError(f"{where}: thread_id is not usable: expected the digits of a thread's id")
    return discord.DiscordSink(url, thread_id=thread_id, **more)


def _slack_bot(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.address import checked_hook
    from orchclient.sinks.slack_bot import API, CHANNEL, HOSTS, SlackBotSink

    where = f"[sinks.{name}]"
    refuse_unknown(where, options, ("token", "channel", "api_url", "public_url", "hosts", "allow_private", *_RULES))
    token, channel = options.get("token"), str(options.get("channel", ""))
    if not isinstance(token, Secret):
        raise ConfigError(f"{where}: the app's token is missing: name a token_file or a token_env")
    if not re.fullmatch(CHANNEL, channel):
        raise ConfigError(f"{where}: channel is not usable: expected the id of a channel, such as C0123456789")
    api_url, allow_private = str(options.get("api_url", API)), _flag(where, options, "allow_private")
    hosts = {*HOSTS, *_texts(where, options, "hosts")}
    return SlackBotSink(
        lambda: token,
        channel,
        name=name,
        api_url=checked_hook(f"{where} api_url", api_url, hosts, allow_private=allow_private),
        public_url=str(options.get("public_url", "")),
        rules=_noise_rules(where, options),
        secrets=secrets,
        allow_private=allow_private,
    )


def _noise_rules(where: str, options: Options) -> NoiseRules:
    from orchclient.core.noise import NoiseRules

    given: dict[str, Any] = {}
    for option, member in (("priority", "least"), ("wakes", "wakes"), ("repeats", "repeats")):
        if option in options:
            given[member] = _priority(where, options, option)
    if "speaks_every" in options:
        try:
            given["speaks_every_s"] = config.seconds(str(options["speaks_every"]))
        except ValueError:
            raise ConfigError(f"{where}: speaks_every is not usable: expected a duration such as 15s or 5m") from None
    if "quiet" in options:
        given["quiet"] = _quiet(where, str(options["quiet"]), str(options.get("timezone", "UTC")))
    return NoiseRules(**given)


def _quiet(where: str, hours: str, zone: str) -> Quiet:
    from zoneinfo import ZoneInfo

    from orchclient.core.noise import Quiet

    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", hours)
    if match is None or match[1] + match[2] == match[3] + match[4]:
        raise ConfigError(f"{where}: quiet is not usable: expected hours such as 22:00-07:00")
    try:
        where_it_is = ZoneInfo(zone)
    except (ValueError, OSError, LookupError):
        raise ConfigError(f"{where}: timezone is not usable: expected a name such as Europe/Berlin") from None
    return Quiet(int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4]), where_it_is)


def _priority(where: str, options: Options, option: str) -> NotificationPriority:
    from orchclient.core.events import NotificationPriority

    word = options.get(option)
    if word not in tuple(NotificationPriority):
        raise ConfigError(f"{where}: {option} is not usable: expected one of {', '.join(NotificationPriority)}")
    return NotificationPriority(word)


def _hook_url(where: str, options: Options) -> Secret:
    url = options.get("webhook_url")
    if not isinstance(url, Secret):
        raise ConfigError(f"{where}: the URL is missing; it is a secret: name a webhook_url_file or a webhook_url_env")
    return url


def _flag(where: str, options: Options, name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {name} is not usable: expected true or false")
    return value


def _texts(where: str, options: Options, name: str) -> tuple[str, ...]:
    value = options.get(name, ())
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{where}: {name} is not usable: expected a list of texts")
    return tuple(value)


def refuse_unknown(where: str, options: Options, known: Sequence[str]) -> None:
    """Raises ``ConfigError`` for an option that a dialect does not have."""
    for option in options:
        if option not in known:
            raise ConfigError(f"{where}: unknown option {option!r:.80}; {nearest(option, known)}")


_BUILT_IN: dict[str, Factory] = {
    "orchestrator": _another_orchestrator,
    "webhook": _webhook,
    "discord": _discord,
    "slack": _slack,
    "database": _database,
    "nats": _nats,
}
_LINKING = frozenset({"discord", "slack", "webhook"})
