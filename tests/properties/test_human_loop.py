"""One question sent, one answer taken, in every interleaving; and bugs planted into the real code are found."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from orchclient import people
from orchclient.core.answers import Answer
from orchclient.core.judging import ItemVerdict
from orchclient.outbox import inbox, requests

from .human_loop import HumanLoop
from .profiles import CONTROL, SEARCH

ON_PUSH = settings(SEARCH, max_examples=60, stateful_step_count=30)
RELEASE = settings(SEARCH, max_examples=500, stateful_step_count=40)
PLANTED = settings(CONTROL, max_examples=300, stateful_step_count=30)


def test_a_question_is_asked_once_and_its_answer_taken_once() -> None:
    run_state_machine_as_test(HumanLoop, settings=ON_PUSH)


@pytest.mark.release
@pytest.mark.timeout(1500)
def test_the_same_in_a_long_search() -> None:
    run_state_machine_as_test(HumanLoop, settings=RELEASE)


def asking_again_asks_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(requests, "same_question", lambda con, task, key, digest: None)


def an_answer_is_consumed_by_everyone(patch: pytest.MonkeyPatch) -> None:
    def planted(con: sqlite3.Connection, request_id: str, now_us: int) -> bool:
        return True

    patch.setattr(requests, "consume", planted)


def an_answer_to_something_else_counts(patch: pytest.MonkeyPatch) -> None:
    _verdict(patch, {ItemVerdict.STALE: ItemVerdict.ACCEPTED})


def the_last_answer_wins(patch: pytest.MonkeyPatch) -> None:
    def planted(con: sqlite3.Connection, request_id: str, state: Any, now_us: int, *answer: Any) -> bool:
        con.execute("UPDATE requests SET settled_us = NULL WHERE id = ?", (request_id,))
        return settle(con, request_id, state, now_us, *answer)

    settle = requests.settle
    patch.setattr(requests, "settle", planted)
    _verdict(patch, {ItemVerdict.LATE: ItemVerdict.ACCEPTED})


def a_timeout_is_told_as_a_no(patch: pytest.MonkeyPatch) -> None:
    def planted(default: Any) -> Answer:
        return evolve(expired(default), outcome="rejected")

    expired = people.expired
    patch.setattr(people, "expired", planted)


def _verdict(patch: pytest.MonkeyPatch, instead: dict[ItemVerdict, ItemVerdict]) -> None:
    def planted(*item: Any, **known: Any) -> ItemVerdict:
        verdict = judged(*item, **known)
        return instead.get(verdict, verdict)

    judged = inbox.judged
    patch.setattr(inbox, "judged", planted)


PLANTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    asking_again_asks_again,
    an_answer_is_consumed_by_everyone,
    an_answer_to_something_else_counts,
    the_last_answer_wins,
    a_timeout_is_told_as_a_no,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(HumanLoop, settings=PLANTED)
