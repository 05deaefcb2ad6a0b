"""The demo with the real orchestrator: somebody answers on its page, or nobody does, and it says which."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from orchclient.cli import app
from orchclient.cli.demo_process import OUTBOX, Deadline
from orchclient.cli.demo_stage import Stage, rows, unheard
from orchclient.cli.demo_verdict import _WORDS
from orchclient.testing import ManualClock, Receiver
from tests.cli.test_demo import COMMAND, environment, processes_with
from tests.conftest import MakeClient

WAIT_S = 60


@contextmanager
def demo(home: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a user runs it, without a terminal."""
    process = subprocess.Popen(
        [*COMMAND, "--serve", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(home),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def until(lines: Any, pattern: str) -> tuple[list[str], str]:
    """The lines up to one that fits, and what fits in it."""
    seen: list[str] = []
    for line in lines:
        seen.append(line)
        if found := re.search(pattern, line):
            return seen, found[0]
    raise AssertionError(f"no {pattern} in {seen}")


def answer_on_the_page(url: str, **fields: str) -> str:
    """What a browser does without JavaScript: it opens the page and sends its form."""
    browser = requests.Session()
    page = browser.get(url, timeout=WAIT_S).text
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)">', page))
    return browser.post(url, data=hidden | {"outcome": "answered"} | fields, timeout=WAIT_S).text


def test_the_agent_goes_on_with_what_was_answered_on_the_page(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        assert running.stdout is not None
        before, url = until(running.stdout, r"http://127\.0\.0\.1:\d+/q/[\w-]+")
        assert "Answered by you" in answer_on_the_page(url, **{"option-1": "2"})
        out, err = running.communicate(timeout=WAIT_S)
    assert [line[0] for line in "".join([*before, out]).splitlines() if line[:1].isdigit()] == list("123456")
    assert "The agent has your answer: rounded." in out
    assert re.search(r"answer taken +1 +1 +0 +0", out)
    assert "Nothing was lost" in out
    assert (running.returncode, err) == (0, "")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


def test_ctrl_c_leaves_the_agent_without_an_answer_and_nothing_is_lost(tmp_path: Path) -> None:
    with demo(tmp_path, "--json") as running:
        assert running.stderr is not None
        until(running.stderr, r"http://127\.0\.0\.1:\d+/q/[\w-]+")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=WAIT_S)
    found = json.loads(out)
    assert (running.returncode, err, found["ok"]) == (0, "", True)
    assert found["kinds"]["clarification.withdrawn.v1"]["delivered"] == 1
    assert "clarification.consumed.v1" not in found["kinds"]
    assert found["recorded"] == found["delivered"] > 50
    assert (found["lost"], found["order_kept"]) == (0, True)


def test_there_is_nothing_to_open_without_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.run(["demo", "--open"])
    assert ended.value.code == 2
    assert "--serve" in capsys.readouterr().err


def test_heartbeats_while_somebody_takes_long_to_answer_break_no_promise(
    make_client: MakeClient, receiver: Receiver, tmp_path: Path
) -> None:
    clock = ManualClock()
    client = make_client("demo-agent", outbox=tmp_path / OUTBOX, url=receiver.url, clock=clock)
    client.request_clarification("primes", "Which form?")
    assert client.flush(WAIT_S)
    clock.advance("2m")
    assert receiver.wait_for(2, WAIT_S)
    assert client.flush(WAIT_S)
    found = rows(Stage(tmp_path, receiver.url, Deadline(0.0), unheard))
    assert [each.id for each in found] == [event["id"] for event in receiver.events]
    assert [_WORDS[each.type] for each in found] == ["question", "heartbeat"]
