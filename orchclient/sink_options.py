"""What the options of a ``[sinks.NAME]`` table say, in terms of the dialects. Each raises ``ConfigError``.

``where`` names the table in an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchclient import config
from orchclient.core.errors import ConfigError
from orchclient.core.secret import Secret
from orchclient.origins import nearest

if TYPE_CHECKING:
    from orchclient.core.events import NotificationPriority
    from orchclient.core.noise import NoiseRules, Quiet

Options = Mapping[str, Any]

RULES = ("priority", "speaks_every", "quiet", "timezone", "wakes", "repeats")
"""The options that ``noise_rules`` reads."""


def refuse_unknown(where: str, options: Options, known: Sequence[str]) -> None:
    """Raises ``ConfigError`` for an option that a dialect does not have."""
    for option in options:
        if option not in known:
            raise ConfigError(f"{where}: unknown option {option!r:.80}; {nearest(option, known)}")


def flag(where: str, options: Options, name: str) -> bool:
    """An option that is true or false; false when it is not given."""
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {name} is not usable: expected true or false")
    return value


def texts(where: str, options: Options, name: str) -> tuple[str, ...]:
    """An option that is a list of texts; empty when it is not given."""
    value = options.get(name, ())
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ConfigError(f"{where}: {name} is not usable: expected a list of texts")
    return tuple(value)


def hook_url(where: str, options: Options) -> Secret:
    """The URL of a webhook, which must be there."""
    url = options.get("webhook_url")
    if not isinstance(url, Secret):
        raise ConfigError(f"{where}: the URL is missing; it is a secret: name a webhook_url_file or a webhook_url_env")
    return url


def priority_of(where: str, options: Options, option: str) -> NotificationPriority:
    """A priority by its name; the option must be there."""
    from orchclient.core.events import NotificationPriority

    word = options.get(option)
    if word not in tuple(NotificationPriority):
        raise ConfigError(f"{where}: {option} is not usable: expected one of {', '.join(NotificationPriority)}")
    return NotificationPriority(word)


def noise_rules(where: str, options: Options) -> NoiseRules:
    """What people are told when, out of ``RULES``."""
    from orchclient.core.noise import NoiseRules

    given: dict[str, Any] = {}
    for option, member in (("priority", "least"), ("wakes", "wakes"), ("repeats", "repeats")):
        if option in options:
            given[member] = priority_of(where, options, option)
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
