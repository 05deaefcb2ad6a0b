"""The agent of ``orchclient demo``: one task that ends well, one that fails. Written as a user of the SDK writes one.

Started as ``python -m orchclient.cli.demo_agent OUTBOX URL [wait]``: with the word it waits for a person's answer. It
must not know that it is watched for losses, that its orchestrator is down, or that it will be killed: whatever it needs
to go on after that, it asks its outbox.
"""

from __future__ import annotations

import json
import logging
import select
import sys
from collections.abc import Callable
from functools import wraps
from math import isqrt
from pathlib import Path
from time import perf_counter
from typing import Any

from orchclient import Answer, Clarification, OrchestratorClient, Task, TaskStatus

LIMIT = 200_000
SLICE = 4_000
PRIMES_BELOW_LIMIT = 17_984
WAITS = "wait"
LOOK_S = 0.5
KEY_FILES = ("publish.key", "keys/publish.key", "secrets/publish.key")


def main(outbox: str, url: str, wait: str = "") -> None:
    """Work, then stay until standard input ends; what is not delivered by then stays in the outbox."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(message)s")
    with OrchestratorClient("demo-agent", outbox=outbox, url=url) as client:
        _show_receipts(client)
        primes = count_primes(client, waits=wait == WAITS)
        failure = _failure_of(lambda: publish(client, primes))
        _say("worked", primes=primes, failure=failure)
        sys.stdin.read()


def count_primes(client: OrchestratorClient, *, waits: bool = False) -> int:
    """Count slice by slice, from where the task stands: an earlier process may have done a part of it, or all."""
    task = client.task("count-primes")
    stands = task.snapshot()
    checked, primes = stands.metadata.get("checked", 0), stands.metadata.get("primes", 0)
    _say("stands", checked=checked, primes=primes)
    if stands.status != TaskStatus.COMPLETED:
        with task:
            primes = _count(task, checked, primes, waits)
    return int(primes)


def _count(task: Task, checked: int, primes: int, waits: bool) -> int:
    while checked < LIMIT:
        primes += sum(map(_is_prime, range(checked, checked + SLICE)))
        checked += SLICE
        task.progress(100 * checked / LIMIT, f"Checked up to {checked}", checked=checked, primes=primes)
    published = str(primes) if _asked(task, waits) == "exact" else f"about {round(primes, -3)}"
    is_right = primes == PRIMES_BELOW_LIMIT
    task.complete(None, {"tests_passed": int(is_right), "total_tests": 1}, {"primes": primes, "published": published})
    return primes


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def _asked(task: Task, waits: bool) -> str:
    """What a person wants; the recommended option when nobody says so."""
    question = task.ask(
        "Publish the exact count or a rounded one?",
        options=["exact", "rounded"],
        recommended="exact",
        key="rounding",
    )
    answer = _awaited(question) if waits else None
    if answer is None:
        withdraw = _acknowledged(question.withdraw)
        withdraw("went on with the recommended option")
    return (answer.text if answer is not None else None) or "exact"


def _awaited(question: Clarification) -> Answer | None:
    """The answer; None when standard input ends before: nobody is there any more."""
    _say("asked", id=question.id)
    while (answer := question.wait(LOOK_S)) is None:
        if select.select([sys.stdin], [], [], 0)[0]:
            return None
    _say("answered", outcome=answer.outcome, text=answer.text)
    return answer


def publish(client: OrchestratorClient, primes: int) -> None:
    """Fails, since nobody put a key there; the error that escapes the block becomes a call for help."""
    with client.task("publish-count") as task:
        task.progress(10, "Looking for the key", primes=primes)
        for name in KEY_FILES:
            try:
                Path(name).read_text()
            except FileNotFoundError as error:
                task.recovery_attempted(error, "looked in the next place")
        raise FileNotFoundError(f"no key in {', '.join(KEY_FILES)}")


def _failure_of(work: Callable[[], None]) -> str:
    try:
        work()
    except FileNotFoundError as error:
        return type(error).__name__
    return ""


# What follows is for the demo only: it shows every receipt to the process that started this one.

_VERBS = ("start_task", "update_task_status", "request_clarification", "report_completion", "escalate_error")


def _show_receipts(client: OrchestratorClient) -> None:
    # On the client, since a task's handle and its context manager call it too.
    for verb in _VERBS:
        setattr(client, verb, _acknowledged(getattr(client, verb)))


def _acknowledged(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, which then tells the id of the event and how long the call took."""

    @wraps(verb)
    def timed(*args: Any, **kwargs: Any) -> Any:
        began = perf_counter()
        result = verb(*args, **kwargs)
        took_ms = (perf_counter() - began) * 1e3
        _say("receipt", id=getattr(result, "receipt", result).event_id, took_ms=took_ms)
        return result

    return timed


def _say(what: str, **facts: Any) -> None:
    # One write below PIPE_BUF: a kill leaves whole lines or none.
    sys.stdout.write(json.dumps({"say": what, **facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
