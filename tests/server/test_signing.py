"""What agents send to an orchestrator is signed, and an orchestrator with a secret takes nothing else from them."""

from __future__ import annotations

import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from orchclient import ConfigError, OrchestratorClient
from orchclient.core.secret import Secret
from orchclient.core.signing import SECRET_PREFIX, batch_id, keys_of, signed
from orchclient.server.app import create_app
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.questions import Decision
from orchclient.server.reading import BATCH_TYPE
from orchclient.server.serving import Listening, Server
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing import Receiver
from tests.server.conftest import Clock
from tests.server.events import Outbox, body_of
from tests.sinks.events import KINDS, batch_with

standardwebhooks = pytest.importorskip("standardwebhooks")
Webhook, WebhookVerificationError = standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError
SECRET, OTHER = (SECRET_PREFIX + b64encode(letter * 32).decode() for letter in (b"a", b"b"))
KEYS = keys_of("secret", SECRET)
WAIT_S = 30


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(orchestrator: Orchestrator) -> FlaskClient:
    return create_app(orchestrator, signing=KEYS).test_client()


def headers(clock: Clock, body: bytes, secret: str = SECRET, seconds: int = 0) -> dict[str, str]:
    made = signed(keys_of("secret", secret), batch_id(body), clock.now_us // 1_000_000 + seconds, body)
    return made | {"Content-Type": BATCH_TYPE}


@pytest.mark.parametrize(
    ("secret", "seconds", "status"),
    [
        (SECRET, 0, 200),
        (SECRET, 299, 200),
        (SECRET, -299, 200),
        (f"{OTHER} {SECRET}", 0, 200),
        (OTHER, 0, 401),
        (SECRET, 302, 401),
        (SECRET, -302, 401),
    ],
)
def test_a_signature_counts_when_it_is_good_and_of_now(
    client: FlaskClient, clock: Clock, secret: str, seconds: int, status: int
) -> None:
    body = body_of([Outbox().status()])
    reply = client.post("/v1/events", data=body, headers=headers(clock, body, secret, seconds))
    assert reply.status_code == status, reply.text


def test_without_a_good_signature_nothing_is_taken_in_and_what_is_wrong_is_told(
    client: FlaskClient, clock: Clock, orchestrator: Orchestrator
) -> None:
    body = body_of([Outbox().status()])
    good = headers(clock, body)
    for name, value, words in (
        ("webhook-signature", "", "missing"),
        ("webhook-id", "", "missing"),
        ("webhook-id", "bat_0", "not good"),
        ("webhook-signature", "v1,é", "not good"),
        ("webhook-signature", good["webhook-signature"].replace("v1,", "v1a,"), "not good"),
        ("webhook-timestamp", "now", "another time"),
        ("webhook-timestamp", "9" * 400, "another time"),
    ):
        reply = client.post("/v1/events", data=body, headers=good | {name: value})
        assert (reply.status_code, reply.mimetype) == (401, "application/problem+json"), (name, value)
        assert words in reply.json["detail"]
    for place in (0, len(body) // 2, len(body) - 1):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        assert client.post("/v1/events", data=changed, headers=good).status_code == 401
    assert client.post("/v1/inbox/ack", data=b"{}", headers={"Content-Type": "application/json"}).status_code == 401
    with orchestrator.reading() as session:
        from orchclient.server import people

        assert people.arrivals(session) == []
    assert client.get("/v1/capabilities").status_code == 200  # there is nothing to sign
    assert client.get("/healthz").status_code == 200


def test_what_is_compressed_is_signed_as_it_is_sent(client: FlaskClient, clock: Clock) -> None:
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(body_of([Outbox().status()])) + packer.flush()
    gzip = {"Content-Encoding": "gzip"}
    assert client.post("/v1/events", data=body, headers=headers(clock, body) | gzip).status_code == 200


@pytest.fixture
def server(orchestrator: Orchestrator) -> Iterator[Server]:
    orchestrator.now_us = lambda: time.time_ns() // 1000  # the agents' own time
    server = Server(orchestrator, Listening(port=0, signing=KEYS))
    running = threading.Thread(target=server.run)
    running.start()
    try:
        yield server
    finally:
        server.stop()
        running.join()


def test_a_real_agent_that_has_the_secret_is_heard_and_gets_its_answer(
    orchestrator: Orchestrator, server: Server, tmp_path: Path
) -> None:
    """Large batches are compressed, and what it has got is acknowledged: both are signed."""
    with OrchestratorClient(
        "signer", outbox=tmp_path / "o.db", url=server.url, signing_secret=f"{SECRET},{OTHER}"
    ) as client:
        for percent in range(100):
            client.update_task_status("t", "in_progress", {"text": "x" * 1000}, percent)
        question = client.request_clarification("t", "Which?")
        assert client.flush(WAIT_S)
        said = [{"question_id": "q1", "text": "this"}]
        orchestrator.answer(
            question.id, Decision("answered", {"kind": "human", "id": "ada"}, said, None, "web", None, 0)
        )
        answer = question.wait(WAIT_S)
        assert answer is not None
        assert answer.text == "this"
        assert client.flush(WAIT_S)
        until = time.monotonic() + WAIT_S
        while not (inbox := client.health().sinks[0].inbox) or not inbox.is_acknowledged:
            assert time.monotonic() < until, inbox
            time.sleep(0.01)
        assert SECRET.removeprefix(SECRET_PREFIX) not in repr(client) + repr(client._settings)


@pytest.mark.parametrize("settings", [{}, {"signing_secret": OTHER}])
def test_an_agent_without_the_secret_keeps_everything_and_is_told_why(
    server: Server, tmp_path: Path, settings: dict[str, str]
) -> None:
    with OrchestratorClient("stranger", outbox=tmp_path / "o.db", url=server.url, **settings) as client:
        client.update_task_status("t", "in_progress")
        client.flush(WAIT_S)
        (sink,) = client.health().sinks
    assert (sink.state, sink.pending, sink.dead) == ("paused", 1, 0)
    assert "signature" in sink.reason


def test_the_signature_verifies_elsewhere_for_every_request_that_has_a_body() -> None:
    sink = OrchestratorSink("https://o.example", lambda: "token", signing=[Secret(SECRET), Secret(OTHER)])
    batch = batch_with(next(iter(KINDS.values())))
    for request in (sink.render(batch), sink.inbox.acknowledgement("a" * 36, "1-2")):
        for secret in (SECRET, OTHER):
            Webhook(secret).verify(request.body, dict(request.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET_PREFIX + b64encode(b"c" * 32).decode()).verify(request.body, dict(request.headers))
        assert request.headers["webhook-id"] == batch_id(request.body)
    assert sink.render(batch).headers["webhook-id"] == sink.render(batch).headers["webhook-id"]
    for request in (sink.greeting(), sink.inbox.poll("a" * 36, "", 1.0), sink.report_request("a" * 36)):
        assert "webhook-signature" not in request.headers
    unsigned = OrchestratorSink("https://o.example", lambda: None).render(batch)
    assert not [name for name in unsigned.headers if name.startswith("webhook")]


@pytest.mark.parametrize(
    "text", ["hunter2hunter2", f"{SECRET} hunter2", SECRET_PREFIX + b64encode(b"hunter2").decode()]
)
def test_a_secret_that_is_none_is_refused_without_repeating_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whsec_ and the base64") as refused:
        OrchestratorClient("a", outbox=tmp_path / "o.db", url="http://127.0.0.1:9", signing_secret=text)
    assert "hunter2" not in str(refused.value)
    assert text.removeprefix(SECRET_PREFIX) not in str(refused.value)


def test_a_table_has_a_secret_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setenv("MIRROR_SECRET", SECRET)
    file = tmp_path / "c.toml"
    file.write_text(f'[sinks.mirror]\nkind = "orchestrator"\nurl = "{receiver.url}"\nsecret_env = "MIRROR_SECRET"\n')
    monkeypatch.setenv("ORCHCLIENT_CONFIG", str(file))
    with OrchestratorClient("signer", outbox=tmp_path / "o.db") as client:
        client.update_task_status("t", "in_progress")
        assert client.flush(WAIT_S)
    (sent,) = (seen for seen in receiver.requests if seen.method == "POST" and seen.path == "/v1/events")
    assert "v1," in {name.lower(): value for name, value in sent.headers.items()}["webhook-signature"]
