"""Where messages may be posted to: the services' hosts, others by a person's word, nothing private by a detour."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from orchclient import config
from orchclient.core.addresses import is_public
from orchclient.core.errors import ConfigError
from orchclient.core.http import HttpRequest, NoReply
from orchclient.core.secret import KnownSecrets
from orchclient.delivery.transport import HttpTransport
from orchclient.destinations import configured
from orchclient.sinks import discord, slack
from orchclient.sinks.address import checked_hook

GOOD = "https://discord.com/api/webhooks/123456789012345678/" + "t0kEn" * 14


@pytest.mark.parametrize("url", [GOOD, GOOD.replace("/api/", "/api/v10/"), "http://127.0.0.1:80/api/webhooks/1/x"])
def test_the_service_s_own_url_is_taken(url: str) -> None:
    assert checked_hook("x", url, discord.HOSTS, discord.PATH) == url


@pytest.mark.parametrize(
    "url",
    [
        GOOD.replace("https", "http"),
        GOOD.replace("discord.com", "discord.com.evil.example"),
        GOOD.replace("discord.com", "evil.example"),
        GOOD.replace("https://", "https://u:p@"),
        GOOD.replace("https://discord.com", "https://discord.com@evil.example"),
        GOOD + "#x",
        GOOD + "\n",
        GOOD + " x",
        GOOD.replace("webhooks", "channels"),
        GOOD.replace("https://", "file://"),
        "https://discord.com/api/webhooks/1",
        "https://[::1",
        "https://",
        "",
        GOOD + "\u202e",
    ],
)
def test_another_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_hook("x", url, discord.HOSTS, discord.PATH)
    assert "t0kEn" not in str(refused.value)


def test_slack_s_url_is_its_own() -> None:
    assert checked_hook("x", "https://hooks.slack.com/services/T0/B0/abc", slack.HOSTS, slack.PATH)
    with pytest.raises(ConfigError):
        checked_hook("x", "https://hooks.slack.com/workflows/T0/A0/1/abc", slack.HOSTS, slack.PATH)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:10.0.0.1",
    ],
)
def test_an_address_that_is_not_public_is_told(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["1.1.1.1", "2606:4700:4700::1111", "discord.com"])
def test_an_address_that_is_public_is_told(host: str) -> None:
    assert is_public(host)


def test_a_private_address_in_a_url_is_refused_unless_a_person_says_so() -> None:
    with pytest.raises(ConfigError, match="allow_private"):
        checked_hook("x", "https://10.0.0.5/hook")
    assert checked_hook("x", "https://10.0.0.5/hook", allow_private=True)


def test_a_name_with_a_private_address_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[Any] = []
    private = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.1.2.3", 443))]
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_kwargs: [*public, *private])
    monkeypatch.setattr(socket.socket, "connect_ex", lambda _self, address: dialled.append(address) or 111)
    with HttpTransport() as transport:
        refused = transport.send(HttpRequest("POST", "https://rebound.example/x", must_be_public=True), deadline_s=5)
        assert isinstance(refused, NoReply)
        assert (refused.reason, dialled) == ("request", [])
        assert "not public" in refused.detail
        transport.send(HttpRequest("POST", "https://rebound.example/x"), deadline_s=5)
        assert dialled


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"webhook_url": "http://example.com/x"}, "plain http"),
        ({"webhook_url": "https://example.com/x", "webhook_secret": "hunter2"}, "whsec_"),
        ({"public_url": "https://answers.example/)<x"}, "public_url"),
        ({"public_url": "http://answers.example"}, "plain http"),
        ({"sinks": {"a": {"kind": "webhook"}}}, "webhook_url_file"),
        ({"sinks": {"a": {"kind": "webhook", "webhook_url": "https://x.example"}}}, "secret"),
    ],
)
def test_an_unusable_setting_is_told_with_its_cure(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        configured(config.load({}, **settings), KnownSecrets())
    assert "hunter2" not in str(refused.value)
