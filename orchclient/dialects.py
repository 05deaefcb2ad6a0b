"""The kinds of destination that come with the package, made from options; a dialect is loaded when one is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.secret import KnownSecrets, Secret
from orchclient.origins import nearest
from orchclient.sink_options import RULES, Options, flag, hook_url, noise_rules, priority_of, refuse_unknown, texts

if TYPE_CHECKING:
    from orchclient.sinks.sink import AnySink

Factory = Callable[[str, Options, KnownSecrets], "AnySink"]
"""Makes a destination from its name, its options and what is known of secrets; raises ``ConfigError``."""


# --- of the settings themselves -------------------------------------------------------------------------------------


def of_settings(settings: config.Settings, secrets: KnownSecrets) -> list[AnySink]:
    """The destinations that have a setting of their own, such as ``ORCHCLIENT_URL``."""
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
    return found


def names_of(settings: config.Settings) -> list[str]:
    """The names of those destinations, which are not made, nor checked, for it."""
    given = {
        "orchestrator": settings.url,
        "discord": settings.discord_webhook_url,
        "slack": settings.slack_webhook_url,
        "webhook": settings.webhook_url,
        "database": settings.database_url,
        "nats": settings.nats_url,
    }
    return [name for name, value in given.items() if value is not None]


def _orchestrator_of(settings: config.Settings, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.orchestrator import OrchestratorSink

    assert settings.url is not None
    text = settings.signing_secret.reveal() if settings.signing_secret else ""
    signing = _secrets_in("signing_secret (ORCHCLIENT_SIGNING_SECRET)", text)
    sink = OrchestratorSink(settings.url, settings.token_now, secrets=secrets, signing=signing)
    sink.greeting()  # asks for the token: an unusable one is told at construction, and no event may quote it
    return sink


def _secrets_in(setting: str, text: str) -> Sequence[Secret]:
    if not text:
        return ()  # and nothing more is imported
    from orchclient.sinks.webhook import checked_secrets

    return checked_secrets(setting, text)


def _webhook_of(settings: config.Settings, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.address import checked_hook
    from orchclient.sinks.webhook import WebhookSink, checked_secrets

    assert settings.webhook_url is not None
    checked_hook("webhook_url (ORCHCLIENT_WEBHOOK_URL)", settings.webhook_url.reveal())
    text = settings.webhook_secret.reveal() if settings.webhook_secret else ""
    signing = checked_secrets("webhook_secret (ORCHCLIENT_WEBHOOK_SECRET)", text)
    return WebhookSink(settings.webhook_url, signing, public_url=settings.public_url or "", secrets=secrets)


# --- of a table -----------------------------------------------------------------------------------------------------


def _orchestrator(name: str, options: Options, secrets: KnownSecrets) -> AnySink:
    from orchclient.sinks.orchestrator import OrchestratorSink, checked_url

    where = f"[sinks.{name}]"
    refuse_unknown(where, options, ("url", "token", "secret"))
    url, token = options.get("url"), options.get("token")
    if not isinstance(url, str):
        raise ConfigError(f"{where}: url is missing, such as https://orchestrator.example")
    return OrchestratorSink(
        checked_url(f"{where} url", url),
        lambda: token.reveal() if token else None,
        name=name,
        secrets=secrets,
        signing=_secrets_in(f"{where} secret", options["secret"].reveal()) if "secret" in options else (),
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
    allow_private = flag(where, options, "allow_private")
    url = hook_url(where, options)
    checked_hook(f"{where} webhook_url", url.reveal(), allow_private=allow_private)
    least = priority_of(where, options, "priority") if "priority" in options else NotificationPriority.LOW
    return WebhookSink(
        url,
        checked_secrets(f"{where} secret", options["secret"].reveal()) if "secret" in options else (),
        name=name,
        types=texts(where, options, "types"),
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

    refuse_unknown(where, options, (*_TEMPLATE_OPTIONS, *RULES))
    named, allow_private, token = (
        options.get("template", OWN),
        flag(where, options, "allow_private"),
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
        url = hook_url(where, {"webhook_url": url})
        checked_hook("webhook_url", url.reveal(), allow_private=allow_private)
        return TemplatedSink(
            url,
            template,
            token=None if token is None else lambda: token,
            types=texts(where, options, "types"),
            name=name,
            public_url=str(options.get("public_url", "")),
            rules=noise_rules(where, options),
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
    servers = servers_of(where, {**options, "servers": texts(where, options, "servers")})
    access = access_of(where, servers, allow_plaintext=flag(where, options, "allow_plaintext"))
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


_CHAT_OPTIONS = ("webhook_url", "public_url", "hosts", "allow_private", *RULES)


def _chat(kind: str, name: str, where: str, options: Options, secrets: KnownSecrets) -> AnySink:
    """A chat destination; ``where`` names its settings in an error."""
    from orchclient.sinks import discord, slack
    from orchclient.sinks.address import checked_hook

    refuse_unknown(where, options, _CHAT_OPTIONS if kind == "slack" else (*_CHAT_OPTIONS, "thread_id"))
    dialect = slack if kind == "slack" else discord
    allow_private, url = flag(where, options, "allow_private"), hook_url(where, options)
    hosts = {*dialect.HOSTS, *texts(where, options, "hosts")}
    is_own = url.reveal().partition("://")[2].partition("/")[0] in dialect.HOSTS
    checked_hook(where, url.reveal(), hosts, dialect.PATH if is_own else "", allow_private=allow_private)
    more: dict[str, Any] = {"name": name, "public_url": str(options.get("public_url", "")), "secrets": secrets}
    more |= {"rules": noise_rules(where, options), "allow_private": allow_private}
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
    refuse_unknown(where, options, ("token", "channel", "api_url", "public_url", "hosts", "allow_private", *RULES))
    token, channel = options.get("token"), str(options.get("channel", ""))
    if not isinstance(token, Secret):
        raise ConfigError(f"{where}: the app's token is missing: name a token_file or a token_env")
    if not re.fullmatch(CHANNEL, channel):
        raise ConfigError(f"{where}: channel is not usable: expected the id of a channel, such as C0123456789")
    api_url, allow_private = str(options.get("api_url", API)), flag(where, options, "allow_private")
    hosts = {*HOSTS, *texts(where, options, "hosts")}
    return SlackBotSink(
        lambda: token,
        channel,
        name=name,
        api_url=checked_hook(f"{where} api_url", api_url, hosts, allow_private=allow_private),
        public_url=str(options.get("public_url", "")),
        rules=noise_rules(where, options),
        secrets=secrets,
        allow_private=allow_private,
    )


BUILT_IN: dict[str, Factory] = {
    "orchestrator": _orchestrator,
    "webhook": _webhook,
    "discord": _discord,
    "slack": _slack,
    "database": _database,
    "nats": _nats,
}
LINKING = frozenset({"discord", "slack", "webhook"})
"""The kinds whose messages have links to where people answer."""
