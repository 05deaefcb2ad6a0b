"""Every exit code of the documented table is provoked, and the help, the table and the code know the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from orchclient.cli import status
from orchclient.cli.output import ExitCode
from orchclient.testing.receiver import Receiver
from tests.cli.command import Ended
from tests.cli.inside import Inside, inside
from tests.conftest import MakeClient
from tests.docs.console import DOCS


class Scene:
    """A host with an orchestrator, and what a person there does."""

    def __init__(self, path: Path, make_client: MakeClient, receiver: Receiver, patch: pytest.MonkeyPatch) -> None:
        self.command = Inside(path, receiver.url)
        self.make_client, self.receiver, self.patch = make_client, receiver, patch

    def done(self) -> Ended:
        self.command("update", "t")
        return self.command("flush")

    def error(self) -> Ended:
        self.command("update", "t")
        return self.command("show", "ffff")

    def usage(self) -> Ended:
        return self.command("flush", "--timeout", "soon")

    def setting(self) -> Ended:
        return self.command("status", ORCHCLIENT_MODE="sometimes")

    def pending(self) -> Ended:
        self.receiver.stop()
        self.command("update", "t")
        return self.command("flush", "--timeout", "1s")

    def still_open(self) -> Ended:
        return self.command("ask", "t", "q?", "--wait=0")

    def dead(self) -> Ended:
        self.receiver.reject("t")
        self.command("update", "t")
        return self.command("flush")

    def busy(self) -> Ended:
        client = self.make_client(url=self.receiver.url)
        client.update_task_status("t", "testing")
        assert client.flush(20)
        return self.command("flush", "--no-wait")

    def refused(self) -> Ended:
        self.command("update", "t")
        with Receiver(token="right") as strict:
            return self.command("flush", ORCHCLIENT_URL=strict.url, ORCHCLIENT_TOKEN="wrong-one")

    def otherwise(self) -> Ended:
        self.receiver.review_each("rejected")
        return self.command("complete", "t", "--review", "--wait=20s")

    def expired(self) -> Ended:
        return self.command("ask", "t", "q?", "--deadline", "2020-01-01", "--wait=20s")

    def interrupted(self) -> Ended:
        def interrupt(seconds: float) -> None:
            raise KeyboardInterrupt

        self.patch.setattr(status.time, "sleep", interrupt)
        return self.command("status", "--watch")

    def finding(self) -> Ended:
        self.command("update", "t")
        return self.command("status", "--check")


PROVOKED: list[tuple[ExitCode, Callable[[Scene], Ended]]] = [
    (ExitCode.DONE, Scene.done),
    (ExitCode.ERROR, Scene.error),
    (ExitCode.ERROR, Scene.finding),
    (ExitCode.USAGE, Scene.usage),
    (ExitCode.USAGE, Scene.setting),
    (ExitCode.PENDING, Scene.pending),
    (ExitCode.PENDING, Scene.still_open),
    (ExitCode.DEAD, Scene.dead),
    (ExitCode.BUSY, Scene.busy),
    (ExitCode.REFUSED, Scene.refused),
    (ExitCode.OTHERWISE, Scene.otherwise),
    (ExitCode.EXPIRED, Scene.expired),
    (ExitCode.INTERRUPTED, Scene.interrupted),
]


@pytest.mark.parametrize(("code", "provoke"), PROVOKED, ids=lambda value: getattr(value, "__name__", str(value)))
def test_an_exit_code_is_what_happened(
    code: ExitCode,
    provoke: Callable[[Scene], Ended],
    outbox_path: Path,
    make_client: MakeClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = provoke(Scene(outbox_path, make_client, receiver, monkeypatch))
    assert ended.code == code, (ended.out, ended.err)


def test_every_code_is_provoked_and_told() -> None:
    codes = {code.value: code.name for code in ExitCode}
    assert {code.value for code, _ in PROVOKED} == set(codes)
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", (DOCS / "reference" / "command-line.md").read_text(), re.M)
    assert {int(number): name for number, name in rows} == codes
    told = " ".join(inside("--help").out.partition("Exit codes:")[2].split())
    assert {int(number) for number in re.findall(r"(?:^|, )(\d+) [a-z]", told)} == set(codes)
