"""What a network and an environment may try on a real client: redirects, proxies, .netrc, bombs, smuggled headers."""

from __future__ import annotations

import base64
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from orchclient import ConfigError, InvalidEvent
from orchclient.core.http import HttpReply, HttpRequest, NoReply
from orchclient.core.timestamps import microseconds
from orchclient.testing import Receiver
from tests.conftest import MakeClient
from tests.faults.network import FaultyServer

TOKEN = "t0ken-of-the-agent"
SMUGGLED = ["\r\nX-Smuggled: 1", "\nX-Smuggled: 1", "\r", "\x00", "\x85"]
HOUR_S = 3600


@contextmanager
def redirecting_to(target: str, status: int) -> Iterator[FaultyServer]:
    raw = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
    with FaultyServer(raw=raw.encode()) as server:
        yield server


def base_of(server: FaultyServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_gets_neither_the_events_nor_the_token_nor_a_get(make_client: MakeClient, status: int) -> None:
    with FaultyServer("plain_then_close") as elsewhere, redirecting_to(f"{base_of(elsewhere)}/x", status) as server:
        client = make_client(url=base_of(server), token=TOKEN)
        client.update_task_status("task", "testing")
        client.flush(30)
        assert (elsewhere.accepted, client.health().sinks[0].state) == (0, "paused")
        assert client.health().sinks[0].pending == 1


def test_plain_requests_follows_it_with_a_get() -> None:
    """The control: this is what the test above would see."""
    with FaultyServer("plain_then_close") as elsewhere, redirecting_to(f"{base_of(elsewhere)}/x", 302) as server:
        assert requests.post(base_of(server), data=b"[]", timeout=10).status_code == 200
        assert elsewhere.requests[0].startswith(b"GET /x ")


@pytest.fixture
def hostile_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .netrc with credentials for the receiver, proxies and authorities in the environment."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login intruder password of-netrc\ndefault login intruder password of-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSLKEYLOGFILE"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere.pem"))


@pytest.mark.usefixtures("hostile_home")
@pytest.mark.parametrize("token", [None, TOKEN])
def test_neither_netrc_nor_the_proxies_of_the_environment_reach_a_client(
    make_client: MakeClient, receiver: Receiver, token: str | None, tmp_path: Path
) -> None:
    client = make_client(url=receiver.url, token=token)
    client.update_task_status("task", "testing")
    assert client.flush(30)
    assert {request.headers.get("authorization") for request in receiver.requests} == {token and f"Bearer {token}"}
    assert not (tmp_path / "nowhere.pem").exists()


@pytest.mark.usefixtures("hostile_home")
def test_plain_requests_takes_what_netrc_and_the_environment_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: it goes to the proxy, and without one it sends the credentials of .netrc."""
    with FaultyServer("plain_then_close", "plain_then_close") as server:
        with pytest.raises(requests.exceptions.ProxyError):
            requests.post(base_of(server), timeout=10)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        requests.post(base_of(server), timeout=10)
        assert base64.b64encode(b"intruder:of-netrc") in server.requests[0]


def test_a_proxy_that_is_configured_is_used_whatever_the_environment_says(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with FaultyServer("plain_then_close") as proxy:
        client = make_client(url="https://orchestrator.invalid", proxy=f"http://127.0.0.1:{proxy.port}")
        client.update_task_status("task", "testing")
        client.flush(30)
        assert proxy.requests[0].startswith(b"CONNECT orchestrator.invalid:443 ")


def test_a_gzip_bomb_is_not_unpacked(make_client: MakeClient) -> None:
    with FaultyServer("gzip_bomb") as server:  # 20 MB in 20 KB
        client = make_client(url=base_of(server))
        client.update_task_status("task", "testing")
        client.flush(30)  # imports what it needs
        tracemalloc.start()
        try:
            client.flush(30)
            grown = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        [sink] = client.health().sinks
    assert server.accepted >= 2
    assert grown < 5_000_000
    assert (sink.pending, sink.state) == (1, "waiting")


@pytest.mark.parametrize("text", SMUGGLED)
@pytest.mark.parametrize("how", ["text", "callable", "file", "environment"])
def test_no_token_smuggles_a_header(
    make_client: MakeClient, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, text: str
) -> None:
    token = f"a{text}b"  # in the middle: what surrounds a token in a file is not of it
    settings: dict[str, Any] = {"text": {"token": token}, "callable": {"token": lambda: token}}.get(how, {})
    if how == "file":
        settings["token_file"] = tmp_path / "token"
        settings["token_file"].write_text(token, newline="")
        settings["token_file"].chmod(0o600)
    if how == "environment":
        if "\x00" in token:
            pytest.skip("an environment cannot hold it")
        monkeypatch.setenv("ORCHCLIENT_TOKEN", token)
    with pytest.raises(ConfigError, match="token"):
        make_client(url=receiver.url, **settings)
    assert receiver.requests == []


@pytest.mark.parametrize("text", SMUGGLED)
def test_no_agent_or_task_smuggles_a_header_or_a_line(make_client: MakeClient, receiver: Receiver, text: str) -> None:
    with pytest.raises(InvalidEvent, match="agent_id"):
        make_client(f"agent{text}", url=receiver.url)
    client = make_client(url=receiver.url)
    with pytest.raises(InvalidEvent, match="task_id"):
        client.update_task_status(f"task{text}", "testing")
    assert (client.health().recorded, receiver.requests) == (0, [])


def test_whatever_else_is_recorded_becomes_no_header(make_client: MakeClient, receiver: Receiver) -> None:
    client = make_client("agent: é\u202e", url=receiver.url)
    for text in SMUGGLED:
        client.update_task_status("task: é", "testing", {f"key{text}": text}, current_step=text)
        client.escalate_error("task: é", "kind: é", text, context={text: text})
    assert client.flush(30)
    known = {"host", "user-agent", "accept", "accept-encoding", "connection", "content-length", "content-type"}
    assert {name for request in receiver.requests for name in request.headers} <= known | {"orchclient-version"}
    assert len(receiver.events) == 2 * len(SMUGGLED)


class Throttling:
    """A transport whose receiver is busy, and says for how long."""

    def __init__(self, retry_after: str) -> None:
        self.retry_after = retry_after

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        return HttpReply(503, {"retry-after": self.retry_after})

    def close(self) -> None:
        pass


WAITS = {
    "31536000": "an hour",
    "9" * 400: "an hour",
    "Fri, 31 Dec 9999 23:59:59 GMT": "an hour",
    "-5": "at once",
    "-1e9": "at once",
    "soon": "at once",
    "\x1b[31m": "at once",
    "": "at once",
    "NaN": "at once",
    "inf": "at once",
    "Mon, 01 Jan 0001 00:00:00 GMT": "at once",
}


@pytest.mark.parametrize(("asked", "waits"), WAITS.items())
def test_a_retry_after_of_any_kind_means_an_hour_at_most(make_client: MakeClient, asked: str, waits: str) -> None:
    client = make_client(url="http://127.0.0.1:9", transport=lambda: Throttling(asked))
    receipt = client.update_task_status("task", "testing")
    client.flush(30)
    [sink] = client.health().sinks
    assert sink.next_try_at is not None
    wait_s = (microseconds(datetime.fromisoformat(sink.next_try_at)) - receipt.recorded_us) / 1e6
    spread_s = 60 + 30  # jitter, and a slow machine
    assert (HOUR_S <= wait_s <= HOUR_S + spread_s) if waits == "an hour" else wait_s < spread_s
    assert (sink.state, sink.pending) == ("throttled" if waits == "an hour" else "waiting", 1)
