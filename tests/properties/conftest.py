"""Where the machines work: small limits, so that fifty steps cross every one of them, and files in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchclient import recorder
from orchclient.core import batching
from orchclient.outbox import attempts, bulk, folding, journal, limits, outbox, redelivery, retention, steps
from orchclient.sinks import orchestrator

from .machine import OutboxMachine, machine_in
from .profiles import MEMORY

SMALL = (
    (batching, "AFTER_OUTAGE_EVENTS", 2),
    (folding, "STEP", 7),
    (folding, "SMALL_STEP", 5),
    (folding, "BEHIND_AT_MOST", 4),
    (outbox, "LOOK_AFTER", 5),
    (outbox, "CHECKPOINT_AFTER", 6),
    (outbox, "CHECKPOINT_MYSELF_AFTER", 15),
    (limits, "SOME_EVENTS", 10),
    (bulk, "TOLD_ROWS", 3),
    (bulk, "FIRST_ROWS", 2),
    (bulk, "MOST_ROWS", 3),
    (steps, "STEP", 2),
    (redelivery, "DESK_AT_MOST", 5),
    (redelivery, "SET_BACK_FROM", 3),
    (retention, "SLICE", 4),
    (attempts, "KEPT", 5),
    (journal, "KNOWN_TASKS", 2),
    (orchestrator, "COMPRESS_ABOVE", 2_000),
    (recorder, "KNOWN_LANES", 2),
)
"""The same code with smaller numbers: what happens every thousand events happens every few."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[OutboxMachine]]:
    """A state machine whose files are in memory where that is possible."""
    for module, name, value in SMALL:
        monkeypatch.setattr(module, name, value)
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        yield machine_in(Path(name))
