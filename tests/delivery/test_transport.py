"""The transport against a faulty network: every fault ends in time, with the right outcome."""

from __future__ import annotations

import http.client
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.delivery.http import connection
from orchclient.delivery.http.deadline import Watchdog
from orchclient.delivery.http.line import Line, Wire
from orchclient.delivery.transport import HttpTransport, Transport
from tests.faults.network import DRIPS, FAULTS, FLOODS, FaultyServer, deaf_port
from tests.stopwatch import Stopwatch

DEADLINE_S = 0.3
GRACE_S = 1.5
BODY = b'[{"id": "1"}]'
LARGE = bytes(16_000_000)
MANY_BYTES = 2_000_000

OUTCOMES: dict[str, int | str] = {
    "keep_alive": 200,
    "reset_at_connect": "connect|broken",  # the reset arrives before or after the connection counts as made
    "reset_mid_request": "broken",
    "reset_after_reading": "broken",
    "keep_alive_once": 200,
    "keep_alive_then_hang": 200,
    "answer_to_anything": 200,
    "hang_after_accept": "timeout",
    "hang_before_reply": "timeout",
    "slow_upload": "timeout",
    "steady_upload": "timeout",
    **dict.fromkeys(DRIPS, "timeout"),
    **dict.fromkeys(FLOODS, "too_large"),
    "close_after_reading": "broken",
    "plain_then_close": 200,
    "unmeasured": 200,
    "partial_body": "broken",
    "partial_chunk": "broken",
    "missing_last_chunk": "broken",
    "partial_status": "broken",
    "partial_head": "broken",
    "partial_header": "broken",
    "garbage_status_line": "protocol",
    "garbage_in_headers": "protocol",
    "garbage_chunk_size": "protocol",
    "garbage_length": "protocol",
    "two_lengths": "protocol",
    "length_and_chunks": 200,
    "gzip_chunks": "protocol",
    "gzip_bomb": "protocol",
    "brotli": "protocol",
    "many_headers": "too_large",
    "long_header": "too_large",
    "largest_body": 200,
    "body_over_limit": "too_large",
    "chunks_over_limit": "too_large",
    "early_hints": 200,
    "switching_protocols": "protocol",
    "see_other": 302,
    "redirect": 307,
    "unavailable": 503,
    "set_cookie": 200,
}


def post(url: str, headers: dict[str, str] | None = None, body: bytes = BODY) -> HttpRequest:
    return HttpRequest("POST", url, headers or {}, body)


def reason(outcome: HttpOutcome) -> int | str:
    return outcome.status if isinstance(outcome, HttpReply) else outcome.reason


def allowed_s(expected: int | str) -> float:
    """A deadline that is short when it is to strike, and out of the way of a busy machine when it is not."""
    return DEADLINE_S if expected == "timeout" else 2.0


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() == before
    assert [t.name for t in threading.enumerate() if t is not threading.main_thread()] == []


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    with HttpTransport() as made:
        yield made


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "-"]
    done = subprocess.run(["openssl", "req", "-x509", "-days", "2", *key, *subject], check=True, capture_output=True)
    path.write_bytes(done.stdout)
    return path


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# Faults


def test_every_fault_of_the_server_has_an_expected_outcome() -> None:
    assert set(OUTCOMES) == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_ends_in_time_with_its_outcome_and_tells_no_secret(
    fault: str, transport: HttpTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = LARGE if fault.endswith("upload") else BODY
    deadline_s = allowed_s(OUTCOMES[fault])
    with FaultyServer(fault) as server, Stopwatch() as took:
        outcome = transport.send(post(server.url, {"X-Token": "S3CRET"}, body), deadline_s=deadline_s)
    assert took.s < deadline_s + GRACE_S
    assert str(reason(outcome)) in str(OUTCOMES[fault]).split("|")
    assert 0 < outcome.took_ms <= took.wall_s * 1e3
    assert "S3CRET" not in repr(outcome) + caplog.text
    assert "garbage-from" not in repr(outcome) + caplog.text


def test_the_control_requests_waits_out_a_drip_far_beyond_its_timeout() -> None:
    with FaultyServer("drip_body") as server, Stopwatch() as took:
        assert requests.post(server.url, data=BODY, timeout=DEADLINE_S).status_code == 200
    assert took.s > DEADLINE_S + GRACE_S


@pytest.mark.parametrize("fault", [*FLOODS, "gzip_bomb"])
def test_a_flood_costs_little_memory(fault: str, transport: HttpTransport) -> None:
    with FaultyServer("keep_alive", fault) as server:
        transport.send(post(server.url), deadline_s=DEADLINE_S)  # imports are no part of the cost
        tracemalloc.start()
        transport.send(post(server.url), deadline_s=DEADLINE_S)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MANY_BYTES


def test_the_control_requests_takes_in_the_whole_gzip_bomb() -> None:
    with FaultyServer("gzip_bomb") as server:
        tracemalloc.start()
        assert requests.post(server.url, data=BODY, timeout=5).status_code == 200
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak > MANY_BYTES


def test_a_limit_of_headers_raised_by_the_program_does_not_raise_ours(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.client, "_MAXHEADERS", 10_000)
    with FaultyServer("many_headers") as server:
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == "too_large"


PIECES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.0 204\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Type: multipart/mixed; boundary=x\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"hello",
    b"-1",
    b"0x3",
    b"9" * 5000,
    *(bytes([byte]) for byte in b"\r\n\t :;\x003"),
    b"\r\n",
]


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12).map(b"".join))
def test_whatever_bytes_come_back_are_an_outcome(raw: bytes) -> None:
    with FaultyServer(raw=b"HTTP/1.1 " + raw) as server, HttpTransport() as transport:
        outcome = transport.send(post(server.url), deadline_s=5.0)
    assert outcome.took_ms < 2000
    if isinstance(outcome, NoReply):
        assert len(outcome.detail) <= 200
        assert outcome.detail.isascii()
        assert outcome.detail.isprintable()


# The connection


def test_a_connection_is_kept_and_used_again(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as server:
        for _ in range(20):
            reply = transport.send(post(server.url), deadline_s=5.0)
            assert isinstance(reply, HttpReply)
            assert (reply.status, reply.body) == (200, b"ok")
        assert (server.accepted, len(server.requests)) == (1, 20)


def test_an_idle_connection_that_the_server_closed_is_replaced_unseen(transport: HttpTransport) -> None:
    with FaultyServer("plain_then_close") as server:
        for _ in range(5):
            assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200
            server.wait_until(lambda s: s.ended == s.accepted)
        assert (server.accepted, len(server.requests)) == (5, 5)


def test_a_connection_that_breaks_in_use_is_not_used_to_send_twice(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive_once") as server:
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == "broken"
        assert (server.accepted, len(server.requests)) == (1, 2)


def test_a_connection_that_was_idle_for_long_is_not_trusted(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_IDLE_S", 0.0)
    with FaultyServer("keep_alive") as server:
        for _ in range(2):
            assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200
        assert server.accepted == 2


def test_a_fault_does_not_spoil_the_next_exchange(transport: HttpTransport) -> None:
    faults = [
        "drip_body",
        "huge_body",
        "partial_chunk",
        "garbage_status_line",
        "early_hints",
        "hang_before_reply",
    ]
    with FaultyServer(*faults, "keep_alive") as server:
        for _ in faults:
            transport.send(post(server.url), deadline_s=0.1)
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200


def test_an_early_hint_is_neither_an_answer_nor_left_for_the_next_exchange(transport: HttpTransport) -> None:
    with FaultyServer("early_hints") as server:
        for _ in range(3):
            reply = transport.send(post(server.url), deadline_s=5.0)
            assert isinstance(reply, HttpReply)
            assert (reply.status, reply.body) == (200, b"ok")
        assert server.accepted == 1


def test_connecting_to_a_port_that_drops_it_ends_in_time(transport: HttpTransport) -> None:
    with deaf_port() as port, Stopwatch() as took:
        outcome = transport.send(post(f"http://127.0.0.1:{port}/"), deadline_s=DEADLINE_S)
    assert reason(outcome) == "timeout"
    assert took.s < DEADLINE_S + GRACE_S


def test_a_dead_first_address_leaves_time_for_the_second(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf_port() as port, FaultyServer("keep_alive") as server:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", p)) for p in (port, server.port)]
        with monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert reason(transport.send(post("http://two.example/"), deadline_s=1.0)) == 200


def test_a_refused_connection_and_an_unknown_name_are_connect(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    assert reason(transport.send(post(url), deadline_s=1.0)) == "connect"

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert reason(transport.send(post("http://unknown.example/"), deadline_s=1.0)) == "connect"


# TLS


def test_tls_is_verified_and_its_connection_kept(certificate: Path, server_tls: ssl.SSLContext) -> None:
    with FaultyServer("keep_alive", tls=server_tls) as server, HttpTransport(ca_file=str(certificate)) as own:
        for _ in range(3):
            assert reason(own.send(post(server.url), deadline_s=5.0)) == 200
        assert server.accepted == 1


def test_an_unknown_authority_is_refused_whatever_the_environment_says(
    certificate: Path, server_tls: ssl.SSLContext, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(certificate))
    with FaultyServer("keep_alive", tls=server_tls) as server:
        outcome = transport.send(post(server.url), deadline_s=5.0)
    assert isinstance(outcome, NoReply)
    assert (outcome.reason, server.requests) == ("tls", [])
    assert "self-signed" in outcome.detail


def test_a_ca_file_that_cannot_be_read_is_an_outcome() -> None:
    with HttpTransport(ca_file="/nonexistent/ca.pem") as own:
        assert reason(own.send(post("https://127.0.0.1:1/"), deadline_s=1.0)) == "tls"


def test_a_server_that_speaks_no_tls_is_tls(transport: HttpTransport) -> None:
    with FaultyServer("answer_to_anything") as server:
        url = server.url.replace("http:", "https:")
        assert reason(transport.send(post(url), deadline_s=5.0)) == "tls"


@pytest.mark.parametrize("fault", ["drip_body", "drip_unmeasured_body", "hang_before_reply", "steady_upload"])
def test_a_fault_behind_tls_ends_in_time(fault: str, certificate: Path, server_tls: ssl.SSLContext) -> None:
    body = LARGE if fault.endswith("upload") else BODY
    with FaultyServer(fault, tls=server_tls) as server, HttpTransport(ca_file=str(certificate)) as own:
        with Stopwatch() as took:
            assert reason(own.send(post(server.url, body=body), deadline_s=DEADLINE_S)) == "timeout"
        assert took.s < DEADLINE_S + GRACE_S


def test_a_handshake_that_hangs_ends_in_time(transport: HttpTransport) -> None:
    with FaultyServer("hang_after_accept") as server, Stopwatch() as took:
        url = server.url.replace("http:", "https:")
        assert reason(transport.send(post(url), deadline_s=DEADLINE_S)) == "timeout"
    assert took.s < DEADLINE_S + GRACE_S


# Closing and the deadline's thread


class Sender(threading.Thread):
    """A worker that sends once."""

    def __init__(self, transport: Transport, request: HttpRequest) -> None:
        super().__init__()
        self.transport, self.request = transport, request
        self.outcome: HttpOutcome | None = None

    def run(self) -> None:
        self.outcome = self.transport.send(self.request, deadline_s=30.0)


IN_FLIGHT: dict[str, tuple[str, str, Callable[[FaultyServer], bool]]] = {
    "handshake": ("hang_after_accept", "https", lambda s: len(s.requests) == 1),
    "sending": ("slow_upload", "http", lambda s: s.accepted == 1),
    "waiting": ("hang_before_reply", "http", lambda s: len(s.requests) == 1),
    "reading": ("drip_unmeasured_body", "http", lambda s: s.dripped > 2),
}


@pytest.mark.parametrize(("fault", "scheme", "is_there"), IN_FLIGHT.values(), ids=IN_FLIGHT)
def test_close_from_another_thread_cuts_an_exchange_at_once(
    fault: str, scheme: str, is_there: Callable[[FaultyServer], bool], transport: HttpTransport
) -> None:
    with FaultyServer(fault) as server:
        url = f"{scheme}://127.0.0.1:{server.port}/"
        sender = Sender(transport, post(url, body=LARGE if fault == "slow_upload" else BODY))
        sender.start()
        server.wait_until(is_there)
        with Stopwatch() as took:
            transport.close()
            sender.join(5)
        assert took.s < GRACE_S
    assert sender.outcome is not None
    assert reason(sender.outcome) == "closed"


def test_close_cuts_an_exchange_on_a_connection_that_was_kept(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive_then_hang") as server:
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200
        sender = Sender(transport, post(server.url))
        sender.start()
        server.wait_until(lambda s: len(s.requests) == 2)
        with Stopwatch() as took:
            transport.close()
            sender.join(5)
        assert took.s < GRACE_S
        assert server.accepted == 1
    assert sender.outcome is not None
    assert reason(sender.outcome) == "closed"


def test_close_cuts_a_connect_that_hangs(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, real = threading.Event(), connection.wait_for_write
    monkeypatch.setattr(connection, "wait_for_write", lambda *args: (waits.set(), real(*args))[1])
    with deaf_port() as port:
        sender = Sender(transport, post(f"http://127.0.0.1:{port}/"))
        sender.start()
        assert waits.wait(5)
        with Stopwatch() as took:
            transport.close()
            sender.join(5)
        assert took.s < GRACE_S
    assert sender.outcome is not None
    assert reason(sender.outcome) == "closed"


def test_a_cut_that_comes_just_before_a_connect_is_not_lost(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Line.hold

    def hold_then_close(line: Line, wire: Wire, handle: socket.socket | None = None) -> None:
        real(line, wire, handle)
        if handle is not None:
            transport.close()

    monkeypatch.setattr(Line, "hold", hold_then_close)
    with deaf_port() as port:
        outcome = transport.send(post(f"http://127.0.0.1:{port}/"), deadline_s=2.0)
    assert reason(outcome) == "closed"
    assert outcome.took_ms < GRACE_S * 1e3


def test_close_ends_kept_connections_too_while_another_is_in_use(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as kept, FaultyServer("hang_before_reply") as used:
        assert reason(transport.send(post(kept.url), deadline_s=5.0)) == 200
        sender = Sender(transport, post(used.url))
        sender.start()
        used.wait_until(lambda s: len(s.requests) == 1)
        transport.close()
        sender.join(5)
        kept.wait_until(lambda s: s.ended == 1)


def test_a_closed_transport_stays_closed(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as server:
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == 200
        transport.close()
        transport.close()
        assert reason(transport.send(post(server.url), deadline_s=5.0)) == "closed"
        assert len(server.requests) == 1


def test_a_second_thread_on_one_transport_is_a_mistake_that_is_told(transport: HttpTransport) -> None:
    with FaultyServer("hang_before_reply") as server:
        sender = Sender(transport, post(server.url))
        sender.start()
        server.wait_until(lambda s: len(s.requests) == 1)
        with pytest.raises(RuntimeError, match="one thread"):
            transport.send(post(server.url), deadline_s=1.0)
        transport.close()
        sender.join(5)


def test_without_a_thread_for_the_deadline_a_drip_still_ends_in_time(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with FaultyServer("drip_headers", "drip_body", "hang_before_reply") as server:
        monkeypatch.setattr(Watchdog, "_run", refuse)
        real = threading.Thread.start
        monkeypatch.setattr(
            threading.Thread, "start", lambda t: refuse(t) if t.name == "orchclient-deadline" else real(t)
        )
        for _ in range(3):
            with Stopwatch() as took:
                assert reason(transport.send(post(server.url), deadline_s=DEADLINE_S)) == "timeout"
            assert took.s < DEADLINE_S + GRACE_S


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan")])
def test_a_deadline_in_the_past_sends_nothing(deadline_s: float, transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as server:
        assert reason(transport.send(post(server.url), deadline_s=deadline_s)) == "timeout"
        assert server.requests == []


def test_the_watchdog_strikes_when_an_armed_instant_passes() -> None:
    struck = threading.Event()
    with closing(Watchdog(struck.set)) as watchdog, Stopwatch() as took:
        watchdog.arm(time.monotonic() + 0.05, 0.05)
        assert struck.wait(2)
    assert took.wall_s >= 0.05
    assert took.s < GRACE_S


def test_the_watchdog_does_not_strike_what_was_disarmed() -> None:
    struck = threading.Event()
    with closing(Watchdog(struck.set)) as watchdog:
        watchdog.arm(time.monotonic() + 0.2, 0.2)
        watchdog.disarm()
        assert not struck.wait(0.3)


def test_the_watchdog_strikes_in_time_for_a_deadline_shorter_than_usual() -> None:
    struck = threading.Event()
    with closing(Watchdog(struck.set)) as watchdog:
        watchdog.arm(time.monotonic() + 60, 60)
        watchdog.disarm()
        assert not struck.wait(0.05)  # the thread naps by now, and not for as short as this
        watchdog.arm(time.monotonic() + 0.05, 0.05)
        assert struck.wait(2)


def test_arming_wakes_no_thread_in_the_normal_case(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    real = threading.Condition.notify
    monkeypatch.setattr(threading.Condition, "notify", lambda self, n=1: (woken.append(n), real(self, n))[1])
    struck = threading.Event()
    with closing(Watchdog(struck.set)) as watchdog:
        watchdog.arm(time.monotonic() + 10, 10)
        woken.clear()
        for pause_s in [0.0] * 1000 + [0.005] * 20:  # with and without time for the thread to look
            watchdog.disarm()
            assert not struck.wait(pause_s)
            watchdog.arm(time.monotonic() + 10, 10)
        assert woken == []


def test_the_watchdog_ends_its_thread_when_it_is_not_needed_and_starts_another() -> None:
    struck = threading.Event()
    with closing(Watchdog(struck.set)) as watchdog:
        watchdog.arm(time.monotonic() + 0.2, 0.2)
        watchdog.disarm()
        (thread,) = [t for t in threading.enumerate() if t.name == "orchclient-deadline"]
        thread.join(2)
        assert not thread.is_alive()
        watchdog.arm(time.monotonic() + 0.2, 0.2)
        assert struck.wait(2)


# What goes out, and what the environment may not change


def sent(transport: HttpTransport, headers: dict[str, str] | None = None) -> str:
    """The head of the request as the server reads it."""
    with FaultyServer("plain_then_close") as server:
        assert reason(transport.send(post(server.url, headers), deadline_s=5.0)) == 200
        return server.requests[0].partition(b"\r\n\r\n")[0].decode("latin-1")


def test_the_request_goes_out_as_it_was_given(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as server:
        transport.send(post(server.url, {"X-A": "b"}), deadline_s=5.0)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hooks/S3CRET?token=S3CRET HTTP/1.1"
    assert sorted(lines[1:]) == [
        "Accept-Encoding: identity",
        f"Content-Length: {len(BODY)}",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: orchclient",
        "X-A: b",
    ]
    assert body == BODY


def test_a_get_has_no_body_and_no_length(transport: HttpTransport) -> None:
    with FaultyServer("keep_alive") as server:
        assert reason(transport.send(HttpRequest("GET", server.url), deadline_s=5.0)) == 200
        assert b"ontent-" not in server.requests[0]


def test_the_callers_user_agent_wins_and_its_accept_encoding_does_not(transport: HttpTransport) -> None:
    head = sent(transport, {"user-agent": "mine", "accept-encoding": "gzip"})
    assert "user-agent: mine" in head
    assert "orchclient" not in head
    assert "Accept-Encoding: identity" in head
    assert "gzip" not in head


@pytest.mark.parametrize("fault", ["redirect", "see_other"])
def test_a_redirect_is_an_answer_and_not_followed(fault: str, transport: HttpTransport) -> None:
    with FaultyServer(fault, "keep_alive") as server:
        reply = transport.send(post(server.url), deadline_s=5.0)
        assert isinstance(reply, HttpReply)
        assert reply.headers["location"] == "/elsewhere"
        assert (server.accepted, len(server.requests)) == (1, 1)


def test_header_names_are_lower_case_and_repeated_ones_joined(transport: HttpTransport) -> None:
    with FaultyServer("unavailable") as server:
        reply = transport.send(post(server.url), deadline_s=5.0)
    assert isinstance(reply, HttpReply)
    assert reply.headers == {"retry-after": "7", "x-a": "a, b", "content-length": "0"}


def test_a_cookie_is_not_sent_back(transport: HttpTransport) -> None:
    with FaultyServer("set_cookie", "keep_alive") as server:
        transport.send(post(server.url), deadline_s=5.0)
        server.wait_until(lambda s: s.ended == 1)
        transport.send(post(server.url), deadline_s=5.0)
        assert b"ookie" not in server.requests[1]


def test_a_netrc_entry_replaces_no_header_and_adds_none(
    transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    assert "Authorization: Bearer t" in sent(transport, {"Authorization": "Bearer t"})
    assert "uthorization" not in sent(transport)


def test_a_proxy_of_the_environment_is_not_used(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert sent(transport).startswith("POST /hooks/")


def test_a_configured_proxy_is_asked_for_the_whole_url_and_its_fault_ends_in_time() -> None:
    with FaultyServer("plain_then_close", "drip_body") as proxy:
        with HttpTransport(proxies={"http": f"http://u:p@127.0.0.1:{proxy.port}"}) as own:
            assert reason(own.send(post("http://far.example/a?b"), deadline_s=5.0)) == 200
            proxy.wait_until(lambda s: s.ended == 1)
            assert reason(own.send(post("http://far.example/a?b"), deadline_s=DEADLINE_S)) == "timeout"
        assert proxy.requests[0].startswith(b"POST http://far.example/a?b HTTP/1.1\r\nHost: far.example\r\n")
        assert b"Proxy-Authorization: Basic dTpw" in proxy.requests[0]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("unavailable", "connect"),
        ("drip_headers", "timeout"),
        ("header_bomb", "connect"),
        ("keep_alive", "timeout"),
    ],
)
def test_https_through_a_proxy_is_tunnelled_and_bounded(fault: str, expected: str) -> None:
    with FaultyServer(fault) as proxy:
        with HttpTransport(proxies={"https": f"http://127.0.0.1:{proxy.port}"}) as own:
            with Stopwatch() as took:
                outcome = own.send(post("https://far.example/S3CRET"), deadline_s=allowed_s(expected))
            assert took.s < allowed_s(expected) + GRACE_S
        assert proxy.requests[0].startswith(b"CONNECT far.example:443 ")
        assert b"S3CRET" not in proxy.requests[0]
    assert reason(outcome) == expected


def test_a_socks_proxy_is_refused() -> None:
    with HttpTransport(proxies={"http": "socks5://127.0.0.1:1"}) as own:
        assert reason(own.send(post("http://far.example/"), deadline_s=1.0)) == "request"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-C: d"},
        {"X-A": "b\nX-C: d"},
        {"X-A": "b\x00"},
        {"X-A": "\u0100"},
        {"X-A\r\n": "b"},
        {"X A": "b"},
        {"": "b"},
        {"Transfer-Encoding": "chunked"},
        {"content-length": "5"},
    ],
)
def test_a_header_that_could_become_something_else_is_not_sent(
    headers: dict[str, str], transport: HttpTransport
) -> None:
    with FaultyServer("keep_alive") as server:
        assert reason(transport.send(post(server.url, headers), deadline_s=5.0)) == "request"
        assert server.accepted == 0


BAD_URLS = [
    "",
    "/a",
    "http://",
    "http:///a",
    "ftp://127.0.0.1/",
    "httpx://127.0.0.1/",
    "http://u:p@127.0.0.1/",
    "http://127.0.0.1:port/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1/\r\nX: y",
    "http://127.0.0.1/ a",
    "http://[::1/",
    "http://.a/",
    "http://a..b/",
    "http://*/",
    "http://\ud800/",
    f"http://{'a' * 70}.b/",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_url_that_cannot_be_used_is_an_outcome(url: str, transport: HttpTransport) -> None:
    outcome = transport.send(post(url), deadline_s=1.0)
    assert isinstance(outcome, NoReply)
    assert outcome.reason == "request"
    assert not url or url not in outcome.detail


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(path=st.text(max_size=20), name=st.text(max_size=5), value=st.text(max_size=10))
def test_no_text_in_a_request_raises_or_adds_a_line(path: str, name: str, value: str) -> None:
    with FaultyServer("plain_then_close") as server, HttpTransport() as transport:
        url = f"http://127.0.0.1:{server.port}/{path}"
        outcome = transport.send(post(url, {"X" + name: value}), deadline_s=5.0)
        heads = [request.partition(b"\r\n\r\n")[0] for request in server.requests]
    assert reason(outcome) in (200, "request")
    assert all(head.count(b"\n") == 5 for head in heads)


def test_importing_the_transport_does_not_import_requests() -> None:
    program = "import sys, orchclient.delivery.transport; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
