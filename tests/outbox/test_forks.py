"""Which outboxes a fork heeds."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from orchclient.outbox import forks


class Known:
    """An outbox, as a fork sees it."""

    is_still = True

    def hold_still(self, until: float) -> None:
        """Nobody commits."""

    def go_on(self) -> None:
        """Nothing was held."""

    def start_anew(self) -> None:
        """Nothing was open."""


@pytest.fixture
def _hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_an_outbox_is_heeded_as_long_as_it_lives() -> None:
    outbox = Known()
    forks.watch(outbox)
    assert outbox in forks._live()
    del outbox
    gc.collect()
    assert not [each for each in forks._live() if isinstance(each, Known)]


@pytest.mark.usefixtures("_hasty_threads")
def test_outboxes_that_come_and_go_in_other_threads_disturb_no_fork() -> None:
    """A WeakSet raises when it changes while it is looked at, and what the hook before had held stayed held."""
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            for outbox in [Known() for _ in range(20)]:
                forks.watch(outbox)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(2000):
            assert all(outbox.is_still for outbox in forks._live())
    finally:
        is_over.set()
        thread.join()
