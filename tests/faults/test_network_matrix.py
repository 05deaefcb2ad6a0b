"""A real client in a faulty network: every fault, at the first, a middle and the last request and at the greeting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.faulty_orchestrator import LOSSES, STRIKES
from tests.faults.network_trials import (
    POSITIONS,
    Naive,
    Optimist,
    Plant,
    Renamer,
    Shuffler,
    tried,
    tried_everywhere,
)


@pytest.mark.parametrize("fault", STRIKES)
def test_a_fault_at_any_request_costs_its_deadline_and_nothing_else(fault: str, tmp_path: Path) -> None:
    trials = tried_everywhere(fault, tmp_path, list(POSITIONS.values()))
    assert {position: trial.broken_laws() for position, trial in trials.items()} == {at: [] for at in trials}


@pytest.mark.parametrize("loss", LOSSES)
def test_an_answer_lost_after_the_events_were_kept_makes_the_same_events_come_again(loss: str, tmp_path: Path) -> None:
    trial = tried(loss, POSITIONS["middle"], tmp_path / "outbox.db")
    assert trial.broken_laws() == []
    assert trial.repeats >= 1


@pytest.mark.parametrize(
    ("fault", "plant", "found"),
    [
        ("drip_chunks", Naive, "bounded in time"),
        ("redirect_to_get", Naive, "nothing lost"),
        ("processed_then_reset", Renamer, "repeats are the same"),
        ("reset_after_reading", Optimist, "nothing lost"),
        ("reset_after_reading", Shuffler, "order of each task"),
    ],
)
def test_a_transport_with_a_planted_defect_is_found(fault: str, plant: Plant, found: str, tmp_path: Path) -> None:
    trial = tried(fault, POSITIONS["middle"], tmp_path / "outbox.db", plant)
    assert found in trial.broken_laws()
