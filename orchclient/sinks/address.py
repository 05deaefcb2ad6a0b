"""Addresses that messages may be posted to: the service's own hosts over https, or others when a person said so.

The URL of a webhook is a secret: no message here repeats more of it than its host.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from hashlib import sha256
from urllib.parse import urlsplit

from orchclient.core.addresses import is_public
from orchclient.core.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def checked_hook(
    setting: str, url: str, hosts: Collection[str] = (), path: str = "", *, allow_private: bool = False
) -> str:
    """A webhook's URL as it is. ``hosts`` empty: any host; ``path`` is a pattern for the service's own hosts.

    Raises ``ConfigError`` when it is not https (plain http is for this machine only), carries credentials or a
    fragment, or names a host that is not allowed or an address that is not public.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"{setting} is not a URL") from None
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ConfigError(f"{setting} contains white space, control or non-ASCII characters")
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"{setting} is not an http(s) URL with a host")
    if parts.username is not None or parts.fragment:
        raise ConfigError(f"{setting} must carry neither credentials nor a fragment")
    if host in LOOPBACK:
        return url
    if parts.scheme != "https":
        raise ConfigError(f"{setting} uses plain http to {host}: use https, plain http is for this machine only")
    if hosts and host not in hosts:
        raise ConfigError(
            f"{setting} names the host {host}; allowed: {', '.join(sorted(hosts))}. "
            "Another one is allowed by hosts = [...] in its [sinks.NAME] table"
        )
    if not allow_private and not is_public(host):
        raise ConfigError(f"{setting} names the address {host}, which is not public; allow_private = true allows it")
    if path and not re.fullmatch(path, parts.path):
        raise ConfigError(f"{setting} is not a webhook's URL of {host}: copy it whole from the service")
    return url


def must_be_public(url: str, allow_private: bool) -> bool:
    """Whether the name in a URL must resolve to public addresses."""
    return not allow_private and urlsplit(url).hostname not in LOOPBACK


def target_of(url: str) -> str:
    """Tells one URL from another without its secret."""
    return sha256(url.encode()).hexdigest()[:12]
