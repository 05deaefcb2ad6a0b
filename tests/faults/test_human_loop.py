"""A real agent that asks is killed with SIGKILL at each step of the way; it asks once, and takes its answer once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient.testing import Receiver

LONG = 30.0
AGENT = """
import sys
from orchclient import OrchestratorClient
client = OrchestratorClient("agent", outbox=sys.argv[1], url=sys.argv[2])
question = client.request_clarification("t", "Which colour?", key="colour")
print(question.id, flush=True)
answer = question.wait(float(sys.argv[3]))
print(answer.text if answer else None, flush=True)
sys.stdin.read()
"""


class Agent:
    """One run of the agent."""

    def __init__(self, outbox: Path, url: str, wait_s: float = LONG) -> None:
        command = [sys.executable, "-c", AGENT, str(outbox), url, str(wait_s)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.question = self.line()

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def asked(receiver: Receiver) -> list[str]:
    return [each["id"] for each in receiver.events if each["type"].endswith("clarification.requested.v1")]


def consumed(receiver: Receiver) -> list[str]:
    return [each["data"]["answer_id"] for each in receiver.events if each["type"].endswith("consumed.v1")]


@pytest.mark.parametrize("kill_after_answer", [False, True])
def test_asked_while_down_killed_answered_while_it_is_down_and_there_at_the_third_start(
    tmp_path: Path, kill_after_answer: bool
) -> None:
    outbox = tmp_path / "outbox.db"
    receiver = Receiver().start()
    url = receiver.url
    receiver.stop()
    first = Agent(outbox, url)
    first.kill()
    receiver.start()
    try:
        assert receiver.url == url
        second = Agent(outbox, url)
        assert second.question == first.question
        assert receiver.wait_for(lambda r: bool(asked(r)), LONG)
        second.kill()
        said = receiver.answer(first.question, "red")
        third = Agent(outbox, url)
        assert (third.question, third.line()) == (first.question, "red")
        if kill_after_answer:
            third.kill()
        fourth = Agent(outbox, url, 0.0)
        assert (fourth.question, fourth.line()) == (first.question, "red")
        assert receiver.wait_for(lambda r: bool(consumed(r)), LONG)
        fourth.kill()
        if not kill_after_answer:
            third.kill()
        assert asked(receiver) == [first.question]
        assert consumed(receiver) == [said["data"]["answer_id"]]
    finally:
        receiver.stop()
