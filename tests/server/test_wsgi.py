"""The application under a WSGI server that is not ours, and what it needs to be made."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from attrs import frozen

from orchclient.core.errors import ConfigError
from orchclient.server import access
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.reading import BATCH_TYPE
from orchclient.server.wsgi import application
from tests.server.events import Outbox, body_of
from tests.server.servers import free_port
from tests.stopwatch import Stopwatch

WAIT_S = 60.0


@frozen
class Running:
    process: subprocess.Popen[bytes]
    url: str
    headers: dict[str, str]


def with_token(db: str) -> str:
    orchestrator = Orchestrator.open(db)
    try:
        return orchestrator.writing(lambda session: access.add_token(session, "agent-1", "agent", 1))
    finally:
        orchestrator.close()


@pytest.fixture
def gunicorn(tmp_path: Path) -> Iterator[Running]:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: it is in the dependency group lifecycle")
    db = str(tmp_path / "o.db")
    token, url = with_token(db), f"127.0.0.1:{free_port()}"
    command = ["gunicorn", "--threads", "8", "--workers", "2", "--graceful-timeout", "2", "--bind", url]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "orchclient.server.wsgi:application()"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "ORCHCLIENT_SERVE_DB": db},
        stderr=subprocess.PIPE,
    )
    try:
        yield Running(process, f"http://{url}", {"Authorization": f"Bearer {token}"})
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def until_it_answers(url: str) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            assert requests.get(f"{url}/healthz", timeout=WAIT_S).json() == {"status": "ok"}
            return
        except requests.ConnectionError:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_gunicorn_takes_a_batch_and_ends_while_a_poll_waits(gunicorn: Running) -> None:
    until_it_answers(gunicorn.url)
    outbox = Outbox()
    body = body_of([outbox.status() for _ in range(3)])
    headers = gunicorn.headers | {"Content-Type": BATCH_TYPE}
    reply = requests.post(f"{gunicorn.url}/v1/events", body, headers=headers, timeout=WAIT_S)
    assert [result["status"] for result in reply.json()["results"]] == ["accepted"] * 3
    assert requests.post(f"{gunicorn.url}/v1/events", body, timeout=WAIT_S).status_code == 401
    poll = f"{gunicorn.url}/v1/inbox?source={outbox.source}&wait=25"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(requests.get, poll, headers=gunicorn.headers, timeout=WAIT_S)
        until = time.monotonic() + WAIT_S
        while "polls_waiting 1" not in requests.get(f"{gunicorn.url}/metrics", headers=headers, timeout=WAIT_S).text:
            assert time.monotonic() < until  # one of the two workers has it
        with Stopwatch() as took:
            gunicorn.process.send_signal(signal.SIGTERM)
            assert gunicorn.process.wait(WAIT_S) == 0
        assert took.s < 15
        assert waiting.exception(WAIT_S) is None or isinstance(waiting.exception(), requests.RequestException)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "ORCHCLIENT_SERVE_DB"),
        ({"ORCHCLIENT_SERVE_RETENTION": "5d"}, "30d"),
        ({"ORCHCLIENT_SERVE_RETENTION": "long"}, "90d"),
    ],
)
def test_what_cannot_be_is_told_in_plain_words(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    if variables:
        with_token(str(tmp_path / "o.db"))
        variables = {"ORCHCLIENT_SERVE_DB": str(tmp_path / "o.db"), **variables}
    with pytest.raises(ConfigError, match=words):
        application(variables)


def test_it_is_not_made_without_a_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a token"):
        application({"ORCHCLIENT_SERVE_DB": str(tmp_path / "o.db")})
