"""How soon an answer reaches the agent that waits for it, counted from its arrival at the receiver, on this machine.

An agent's process asks and waits; a person answers while a poll is held. Once the agent's process polls itself, once
another process on the same outbox does. All read the same clock. Exits with 1 when an answer did not arrive.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Spread, parser, percentile, report, rotated, tell, workspace

from orchclient.testing import INBOX_PATH, Receiver

ROUNDS = 3
QUESTIONS = 40
ALONE, ACROSS = "the agent's process polls", "another process polls"
LONG_S = 30.0

AGENT = """
import sys, time
from orchclient import OrchestratorClient

with OrchestratorClient("bench", outbox=sys.argv[1], url=sys.argv[2]) as client:
    for line in sys.stdin:
        question = client.request_clarification("task-0", "Go on?", key=line.strip())
        print(question.id, flush=True)
        answer = question.wait(30)
        print(time.time_ns() if answer else 0, flush=True)
"""


def main() -> int:
    """Measure, print the table; 1 when anything did not arrive."""
    options = parser(__doc__).parse_args()
    questions, rounds = (3, 1) if options.quick else (QUESTIONS, ROUNDS)
    taken: dict[str, list[list[float]]] = {ALONE: [], ACROSS: []}
    with workspace(options.dir) as directory:
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for name in rotated(list(taken), number):
                taken[name].append(_round(directory / f"{number}-{name == ACROSS}", questions, name == ACROSS))
        print(report("From the receiver to the agent that waits", directory, _rows(taken)))
    return 0 if all(len(delays) == questions for rounds_ in taken.values() for delays in rounds_) else 1


def _round(directory: Path, questions: int, is_across: bool) -> list[float]:
    directory.mkdir(mode=0o700)
    outbox = directory / "outbox.db"
    with Receiver() as receiver, _agent(outbox, receiver) as first:
        _asked_and_answered(receiver, first, "first")  # imports and connections are made, and it is elected
        if not is_across:
            return _delays_ms(receiver, first, questions)
        with _agent(outbox, receiver) as second:
            return _delays_ms(receiver, second, questions)


@contextmanager
def _agent(outbox: Path, receiver: Receiver) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", AGENT, str(outbox), receiver.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
        try:
            yield agent
        finally:
            agent.stdin.close()  # type: ignore[union-attr]
            agent.wait(LONG_S)


def _delays_ms(receiver: Receiver, agent: subprocess.Popen[str], questions: int) -> list[float]:
    delays = (_asked_and_answered(receiver, agent, f"q{number}") for number in range(questions))
    return sorted(delay for delay in delays if delay is not None)


def _asked_and_answered(receiver: Receiver, agent: subprocess.Popen[str], key: str) -> float | None:
    """Milliseconds from the answer's arrival to the end of the agent's wait."""
    assert agent.stdin is not None
    assert agent.stdout is not None
    agent.stdin.write(f"{key}\n")
    agent.stdin.flush()
    question = agent.stdout.readline().strip()
    receiver.wait_for(lambda r: _holds_a_poll(r) and any(each["id"] == question for each in r.events), LONG_S)
    arrived_ns = time.time_ns()
    receiver.answer(question, "yes")
    heard_ns = int(agent.stdout.readline() or 0)
    return (heard_ns - arrived_ns) / 1e6 if heard_ns else None


def _holds_a_poll(receiver: Receiver) -> bool:
    polls = [request for request in receiver.requests if request.path == INBOX_PATH]
    return bool(polls) and polls[-1].status is None


def _rows(taken: dict[str, list[list[float]]]) -> list[dict[str, object]]:
    return [
        {
            "case": name,
            "answers": sum(map(len, rounds)),
            "p50 ms": Spread.of(percentile(delays, 0.5) for delays in rounds),
            "p95 ms": Spread.of(percentile(delays, 0.95) for delays in rounds),
            "max ms": Spread.of(max(delays) for delays in rounds),
        }
        for name, rounds in taken.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
