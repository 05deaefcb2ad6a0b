"""What is counted, in Prometheus' text format 0.0.4."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Counters:
    """What this process has counted since it started. Threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.events: Counter[str] = Counter()

    def count_request(self, endpoint: str, status: int) -> None:
        """One request was answered."""
        with self._lock:
            self.requests[endpoint, status] += 1

    def count_events(self, results: Iterable[str]) -> None:
        """Events were answered, each with its status."""
        with self._lock:
            self.events.update(results)


def text(counters: Counters, counts: Mapping[str, Any], waiting: int, now_us: int) -> str:
    """The page for Prometheus: the counters of this process, and what the database holds."""
    oldest_us = counts["oldest_question_us"]
    age_s = 0.0 if oldest_us is None else max(0.0, (now_us - oldest_us) / 1e6)
    lines = [
        *_metric("orchclient_requests_total", "counter", "Requests answered by this process.", _requests(counters)),
        *_metric("orchclient_events_total", "counter", "Events answered by this process.", _events(counters)),
        *_metric("orchclient_polls_waiting", "gauge", "Inbox polls that wait now.", {"": waiting}),
        *_metric("orchclient_tasks", "gauge", "Tasks by status.", _labelled("status", counts["tasks"])),
        *_metric("orchclient_questions_open", "gauge", "Questions without an answer.", {"": counts["questions_open"]}),
        *_metric("orchclient_question_oldest_age_seconds", "gauge", "Age of the oldest open question.", {"": age_s}),
        *_metric("orchclient_reviews_open", "gauge", "Results without a decision.", {"": counts["reviews_open"]}),
        *_metric("orchclient_incidents_open", "gauge", "Errors not resolved.", {"": counts["incidents_open"]}),
        *_metric("orchclient_inbox_pending", "gauge", "Items not acknowledged.", {"": counts["inbox_pending"]}),
        *_metric("orchclient_agents", "gauge", "Agents heard of.", {"": counts["agents"]}),
        *_metric("orchclient_sources", "gauge", "Outboxes heard of.", {"": counts["sources"]}),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, words: str, values: Mapping[str, float]) -> list[str]:
    return [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *(f"{name}{key} {values[key]}" for key in values)]


def _requests(counters: Counters) -> dict[str, float]:
    known = sorted(counters.requests.copy().items())
    return {f'{{endpoint="{endpoint}",status="{status}"}}': count for (endpoint, status), count in known}


def _events(counters: Counters) -> dict[str, float]:
    return _labelled("result", counters.events.copy())


def _labelled(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f'{{{label}="{name}"}}': values[name] for name in sorted(values)}
