"""A clock that stands still and a transport that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply

Answer = HttpOutcome | Callable[[list[dict[str, Any]]], HttpOutcome]


class StillClock:
    """Time moves when a test moves it."""

    def __init__(self) -> None:
        self.us = 1_800_000_000_000_000
        self.seconds = 1000.0
        self._made = 0

    def now_us(self) -> int:
        return self.us

    def monotonic(self) -> float:
        return self.seconds

    def jitter(self) -> float:
        return 0.5

    def randomness(self) -> bytes:
        self._made += 1
        return self._made.to_bytes(10, "little")

    def pass_s(self, seconds: float) -> None:
        self.seconds += seconds
        self.us += int(seconds * 1e6)

    sleep = pass_s


class ScriptedTransport:
    """Answers POSTs from a script, then accepts everything; keeps what was sent."""

    def __init__(self, answers: Iterable[Answer] = ()) -> None:
        self.answers = list(answers)
        self.batches: list[list[dict[str, Any]]] = []
        self.requests: list[HttpRequest] = []

    @property
    def sent(self) -> list[int]:
        """The progress that each sent event told, batch after batch; notices of gaps tell none."""
        told = (event["data"].get("progress_percentage") for batch in self.batches for event in batch)
        return [percent for percent in told if percent is not None]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """What each sent notice of a gap said."""
        return [event["data"] for batch in self.batches for event in batch if event["type"].endswith("gap.v1")]

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpReply | NoReply:
        self.requests.append(request)
        if request.method == "GET":
            return HttpReply(404)
        batch = json.loads(request.body)
        self.batches.append(batch)
        if not self.answers:
            return HttpReply(200)
        answer = self.answers.pop(0)
        return answer(batch) if callable(answer) else answer

    def close(self) -> None:
        pass


def results(**by_task: str) -> Callable[[list[dict[str, Any]]], HttpReply]:
    """Per-event results by task; accepted where nothing is said."""

    def answer(batch: list[dict[str, Any]]) -> HttpReply:
        items = [
            {"id": event["id"], "status": by_task.get(event["subject"], "accepted"), "code": "told", "detail": "so"}
            for event in batch
        ]
        return HttpReply(200, {}, json.dumps({"results": items}).encode())

    return answer


def poisoned(percent: int, status: int = 400) -> Callable[[list[dict[str, Any]]], HttpReply]:
    """Refuses a batch as long as it contains a certain event."""

    def answer(batch: list[dict[str, Any]]) -> HttpReply:
        hit = any(event["data"].get("progress_percentage") == percent for event in batch)
        return HttpReply(status, {}, b'{"title":"bad event"}') if hit else HttpReply(200)

    return answer
