"""A real nats-server for tests, of the binary of this machine: a port and a directory of its own, JetStream on."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import nats
import pytest
from attrs import define, field
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

T = TypeVar("T")
START_S = 20.0


def binary() -> str:
    """Where nats-server is; without one the test is skipped."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
    if found is None:
        pytest.skip("no nats-server on this machine: install the package nats-server to run these tests")
    return found


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@define
class NatsServer:
    """A server that can be killed at any moment and started again with what it had stored."""

    directory: Path
    settings: str = ""  # more lines of its configuration
    login: str = ""  # of whoever looks: "user:password"
    scheme: str = "nats"
    port: int = field(factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        config = self.directory / "nats.conf"
        store = json.dumps(str(self.directory / "js"))
        config.write_text(f"listen: 127.0.0.1:{self.port}\njetstream {{ store_dir: {store} }}\n{self.settings}\n")
        self._process = subprocess.Popen([binary(), "-c", str(config)], stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                    if line.recv(16):  # its greeting
                        return self
            except OSError:
                assert self._process.poll() is None, f"nats-server does not start with {config}"
            assert time.monotonic() < until
            time.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(START_S)

    def pause(self) -> None:
        """It takes connections, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        while {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()} != {"T"}:
            time.sleep(0.001)  # each of its threads stops by itself

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> NatsServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    # What it holds, by a connection of the test's.

    def asked(self, question: Callable[[Client], Awaitable[T]]) -> T:
        async def ask() -> T:
            user, _, password = self.login.partition(":")
            options: dict[str, Any] = {"user": user, "password": password} if user else {}
            client = await nats.connect(self.url, **options)
            try:
                return await question(client)
            finally:
                await client.close()

        return asyncio.run(ask())

    def add_stream(self, prefix: str = "orchclient", **more: Any) -> None:
        config = StreamConfig(
            name="ORCHCLIENT",
            subjects=[f"{prefix}.>"],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            duplicate_window=120.0,
            **more,
        )

        async def add(client: Client) -> None:
            await client.jetstream().add_stream(config)

        self.asked(add)

    def held(self) -> list[tuple[str, dict[str, Any]]]:
        """Every message of the stream in its order: subject and event."""

        async def read(client: Client) -> list[tuple[str, dict[str, Any]]]:
            stream = client.jetstream()
            state = (await stream.stream_info("ORCHCLIENT")).state
            found: list[tuple[str, dict[str, Any]]] = []
            if not state.messages:
                return found
            reader = await stream.subscribe(">", stream="ORCHCLIENT", ordered_consumer=True)
            while len(found) < state.messages:
                message = await reader.next_msg(START_S)
                assert message.headers is not None
                event = json.loads(message.data)
                assert message.headers["Nats-Msg-Id"] == event["id"]
                found.append((message.subject, event))
            return found

        return self.asked(read)

    def ids(self) -> list[str]:
        return [event["id"] for _, event in self.held()]
