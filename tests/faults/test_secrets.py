"""Secrets are nowhere: canaries go through a real agent and a receiver that repeats them, and are then searched for.

Searched are all bytes of the outbox's files while it is open and after, every log record of every logger at DEBUG,
what objects and errors show (repr, str, format, vars, pickle, tracebacks with the locals of our frames), what every
command prints, and the arguments that other users can read. A memory dump is not looked at: it holds the token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from attrs import frozen

from orchclient.testing import Fault, Receiver
from orchclient.testing.faultplan import problem
from tests.faults.network import FaultyServer
from tests.faults.secret_agent import BUGS

KINDS = ("token", "next token", "key", "header", "url", "webhook", "proxy")
WAYS = ("environment", "keyword", "file", "callable")
COMMANDS = (
    ("status",),
    ("list", "--limit", "1000"),
    ("list", "--state", "dead"),
    ("doctor",),
    ("retry", "no such id"),
    ("retry", "--all"),
    ("flush", "--dry-run"),
    ("flush", "--timeout", "1s"),
    ("status", "--check"),
    ("verify", "--repair", "--timeout", "1s"),
    ("resend", "--to", "orchestrator", "--since", "1h"),
    ("prune", "--dead", "--older-than", "0s"),
    ("show", "no such id"),
    ("--token", "misplaced"),
)
END = 10
"""So many characters of a canary's beginning or end are a leak: whoever cuts a text may cut a secret."""

Places = Mapping[str, bytes]


@pytest.fixture
def canaries() -> dict[str, str]:
    """One text a kind: random, so that nothing else looks like it, and no word of it is ordinary."""
    return {kind: f"{uuid4().hex}{uuid4().hex[:16]}" for kind in KINDS}


def leaks(canaries: Mapping[str, str], places: Places, but: Collection[str] = ()) -> list[str]:
    """Which canary is where, whole, in part, or in another spelling; ``but`` for those that nobody said are secret."""
    return [
        f"{kind} in {place}"
        for place, content in places.items()
        for kind, text in canaries.items()
        if kind not in but and any(spelling in content for spelling in spellings(text))
    ]


def spellings(text: str) -> Iterator[bytes]:
    yield text[:END].encode()
    yield text[-END:].encode()
    yield quote(text).encode()
    yield b64encode(f"me:{text}".encode())
    yield text.encode().hex().encode()


@frozen
class Agent:
    """The careless agent with all that it leaves behind."""

    directory: Path
    way: str
    canaries: dict[str, str]
    plant: str = ""

    @property
    def outbox(self) -> Path:
        return self.directory / "outbox" / "outbox.db"

    @property
    def environment(self) -> dict[str, str]:
        """Of the agent, and of the operator's commands."""
        found = {**os.environ, "ORCHCLIENT_DB": str(self.outbox), "COLUMNS": "4000", "PYTHONPATH": os.getcwd()}
        if self.way == "environment":
            found["ORCHCLIENT_TOKEN"] = self.canaries["token"]
        if self.way == "file":
            file = self.directory / "token"
            file.touch(0o600)
            file.write_text(self.canaries["token"] + "\n")
            found["ORCHCLIENT_TOKEN_FILE"] = str(file)
        return found

    def run(self, **environment: str) -> dict[str, bytes]:
        """Run the program; what is to be searched, by place."""
        told = {
            "way": self.way,
            "outbox": str(self.outbox),
            "log": str(self.directory / "log"),
            "directory": str(self.directory),
            "canaries": self.canaries,
            "plant": self.plant,
        }
        command = [sys.executable, "-m", "tests.faults.secret_agent"]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env={**self.environment, **environment}
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
            shown = b"".join(takewhile(lambda line: line != b"READY\n", process.stdout))
            places = {"arguments": Path(f"/proc/{process.pid}/cmdline").read_bytes(), **self.files("open outbox")}
            rest, errors = process.communicate(b"\n", timeout=60)
        assert (process.returncode, errors) == (0, b""), errors.decode()
        return {
            **places,
            **self.files("closed outbox"),
            "objects": shown,
            "errors": rest,
            "log": (self.directory / "log").read_bytes(),
        }

    def files(self, when: str) -> dict[str, bytes]:
        return {f"{when}: {path.name}": path.read_bytes() for path in self.outbox.parent.iterdir()}

    def commands(self, **environment: str) -> dict[str, bytes]:
        """What every command prints, for people and as JSON, and the arguments that anybody can read."""
        newest = json.loads(self.command("list", "--limit", "1000", "--json")["list --limit 1000 --json"])["events"]
        shows = [("show", event["id"]) for event in newest]
        found: dict[str, bytes] = {}
        for arguments in (*COMMANDS, *shows[:: max(len(shows) // 4, 1)]):
            found |= self.command(*arguments, **environment)
            found |= self.command(*arguments, "--json", **environment)
        return found

    def command(self, *arguments: str, **environment: str) -> dict[str, bytes]:
        command = [sys.executable, "-m", "orchclient", *arguments]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment, "ORCHCLIENT_REQUEST_TIMEOUT": "400ms", **environment},
        ) as process:
            visible = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            printed, _ = process.communicate(timeout=60)
        name = " ".join(arguments)
        return {name: printed, f"arguments of {name}": visible}


@contextmanager
def parrot(canaries: Mapping[str, str]) -> Iterator[Receiver]:
    """A receiver that repeats every secret that it gets in its answers, whole and where a text is cut."""
    token = canaries["token"]
    said = f"Bearer {token} and {canaries['next token']} and {canaries['proxy']} {'y' * 60} {token}"
    placed = [f"{'x' * (200 - shift)}{token}" for shift in range(END, len(token), END)]
    refusals = [problem(status, text) for status, text in zip((401, 503, 403, 500), [said, *placed], strict=False)]
    with Receiver(capabilities={"protocol": ["1.0", f"0.{token}"]}) as receiver:
        receiver.plan(
            *(Fault(f"parrot {reply.status}", instead=reply) for reply in refusals),
            Fault.hang(),
            Fault.reject("t2", code=token, detail=said),
            Fault.retry("t1", code="busy", detail=placed[0]),
            Fault.status(500),
        )
        receiver.always(Fault.reject("t3", code="invalid", detail=said))
        yield receiver


@pytest.mark.parametrize("way", WAYS)
def test_secrets_of_a_careless_agent_are_nowhere(tmp_path: Path, canaries: dict[str, str], way: str) -> None:
    agent = Agent(tmp_path, way, canaries)
    with parrot(canaries) as receiver:
        places = agent.run(ORCHCLIENT_URL=receiver.url)
        places |= agent.commands(ORCHCLIENT_URL=receiver.url) if way == "environment" else {}
        assert canaries["token"] in "".join(seen.headers.get("authorization", "") for seen in receiver.requests)
        assert b"".join(json.dumps(event).encode() for event in receiver.events).count(b"[redacted]") > 20
    assert leaks(canaries, places, but=["proxy"] if way == "callable" else ["proxy", "next token"]) == []
    assert b"Traceback" in places["errors"]
    assert b"urllib3" in places["log"]


def test_a_receiver_that_is_down_and_a_proxy_that_repeats_its_password_reveal_nothing(
    tmp_path: Path, canaries: dict[str, str]
) -> None:
    agent = Agent(tmp_path, "environment", canaries)
    password = canaries["proxy"]
    encoded = b64encode(f"me:{password}".encode()).decode()
    body = json.dumps({"title": "who?", "detail": f"{password} {encoded} Basic {encoded}"}).encode()
    answer = b"HTTP/1.1 407 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with FaultyServer(raw=answer) as proxy:
        environment = {
            "ORCHCLIENT_URL": "http://127.0.0.1:9",
            "ORCHCLIENT_PROXY": f"http://me:{password}@127.0.0.1:{proxy.port}",
        }
        places = {**agent.run(**environment), **agent.commands(**environment)}
        assert b"HTTP 407" in places["status"]
        places |= agent.command("flush", "--timeout", "1s", ORCHCLIENT_URL="http://127.0.0.1:9")
    assert leaks(canaries, places, but=["next token"]) == []


EXPECTED = {
    "a sink that logs its headers": "log",
    "a redactor that suspects nothing": "open outbox: outbox.db-wal",
    "a text that is cut before its secrets are taken out": "open outbox: outbox.db-wal",
    "an answer that is stored as it came": "open outbox: outbox.db-wal",
    "a secret that shows in its repr": "errors",
    "settings that raise with all their frames": "errors",
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_search_finds_a_planted_leak(tmp_path: Path, canaries: dict[str, str], bug: str) -> None:
    with parrot(canaries) as receiver:
        places = Agent(tmp_path, "keyword", canaries, bug).run(ORCHCLIENT_URL=receiver.url)
    assert f"token in {EXPECTED[bug]}" in leaks(canaries, places)
