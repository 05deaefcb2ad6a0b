"""The WAL-reset race of SQLite 3.7.0 to 3.51.2: a checkpoint stopped between any two instructions, beside commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from orchclient.outbox.checkup import has_wal_reset_bug
from tests.faults.stepper.race import Outcome, Race, built, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

COARSE, FINE = 20, 1
FEWEST_STEPS = 200
"""A checkpoint of fewer instructions would mean that the stepper does not see it."""


@pytest.fixture(scope="session")
def stepper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stepper, compiled once."""
    return built(tmp_path_factory.mktemp("stepper"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory if there is one: no race here depends on a disk."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with TemporaryDirectory(prefix="orchclient-race-", dir=base) as directory:
        yield Path(directory)


def swept(stepper: Path, directory: Path, every: int, *, is_gated: bool) -> list[Outcome]:
    """Every race in which the checkpoint was stopped inside."""
    with Race(stepper, directory, is_gated=is_gated) as race:
        outcomes = [outcome for outcome in race.sweep(every) if outcome.was_stopped]
    damaged = [outcome for outcome in outcomes if outcome.is_damaged]
    print(
        f"{'gated' if is_gated else 'ungated'}, SQLite {sqlite3.sqlite_version}: {len(outcomes)} stops, "
        f"{sum(outcome.met for outcome in outcomes)} met a commit, {len(damaged)} damaged",
        *damaged,
        sep="\n  ",
    )
    assert len(outcomes) * every > FEWEST_STEPS
    return outcomes


def assert_sound(outcomes: list[Outcome]) -> None:
    assert [outcome for outcome in outcomes if outcome.is_damaged] == []
    assert [outcome for outcome in outcomes if outcome.met] == []


def test_no_commit_meets_a_checkpoint_that_stands_still_and_nothing_is_lost(stepper: Path, memory: Path) -> None:
    assert_sound(swept(stepper, memory, COARSE, is_gated=True))


@pytest.mark.release
@pytest.mark.timeout(1800)
def test_nothing_is_lost_wherever_a_checkpoint_stands_still(stepper: Path, memory: Path) -> None:
    assert_sound(swept(stepper, memory, FINE, is_gated=True))


@pytest.mark.skipif(
    not has_wal_reset_bug(), reason=f"SQLite {sqlite3.sqlite_version} is fixed: without the gate nothing is damaged"
)
def test_without_the_gate_the_same_stops_damage_the_file(stepper: Path, memory: Path) -> None:
    outcomes = swept(stepper, memory, COARSE, is_gated=False)
    assert all(outcome.met for outcome in outcomes)
    assert any(outcome.is_damaged for outcome in outcomes)
