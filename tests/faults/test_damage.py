"""Damaged files: noticed where it can be, set aside together, read as far as they can be; recording goes on at once.

The rows are those of a table of damage that was measured on SQLite alone, where half of them are silent losses. Every
row several times, at places that a seed chooses (``DAMAGE_ROUNDS`` sets how often before a release).
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, evolve
from click.testing import CliRunner

from orchclient import OrchestratorClient
from orchclient.cli.app import cli
from orchclient.outbox import identity
from orchclient.outbox.past import mark_of
from orchclient.testing.receiver import Receiver
from tests.faults import damage_trials as trials
from tests.faults.damage_trials import Damage, Files

ROUNDS = 4
RELEASE_ROUNDS = int(os.environ.get("DAMAGE_ROUNDS", "200"))


@define
class Left:
    """What an agent left: its files, to be copied for each trial, and the ids of its events."""

    directory: Path
    ids: list[str]

    def copied(self, into: Path) -> Files:
        """The files in a directory of their own."""
        shutil.copytree(self.directory, into / "state", copy_function=shutil.copy2)
        shutil.copy2(self.directory.parent / "stranger.db", into / "state" / "stranger.db")
        self._remember_copies(into / "state")
        return Files(into / "state")

    def _remember_copies(self, directory: Path) -> None:
        """The mark knows the database by its inode, which a copy does not have."""
        path = directory / "outbox.db"
        mark = mark_of((directory / "outbox.db.mark").read_bytes())
        assert mark is not None
        if mark.ino == (self.directory / "outbox.db").stat().st_ino:
            (directory / "outbox.db.mark").write_bytes(evolve(mark, ino=path.stat().st_ino).text())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where agents leave their files."""
    directory = tmp_path_factory.mktemp("left", numbered=True)
    with OrchestratorClient("stranger", outbox=directory / "there" / "stranger.db", mode="offline") as stranger:
        for _ in range(3):
            stranger.update_task_status("s", "testing")
    shutil.copy2(directory / "there" / "stranger.db", directory / "stranger.db")
    return directory


def left(scratch: Path, how: str) -> Left:
    (scratch / how).mkdir(mode=0o700)
    return Left(scratch / how, trials.leave(scratch / how, how=how))


@pytest.fixture(scope="module")
def killed(scratch: Path) -> Left:
    """An agent that was killed: the last hundred events are in the -wal."""
    return left(scratch, "killed")


@pytest.fixture(scope="module")
def closed(scratch: Path) -> Left:
    """An agent that ended well."""
    return left(scratch, "closed")


@define
class Aftermath:
    """What a new agent found, and what it did."""

    files: Files
    made: list[str]
    held: set[str]
    new: list[str]
    sources: tuple[str, ...]
    changes: list[identity.Change]
    errors: list[str]

    @property
    def saved(self) -> int:
        """How many of the old events are there."""
        return len(self.held & set(self.made))

    @property
    def asides(self) -> list[Path]:
        """The databases that were set aside."""
        return [path for path in self.files.directory.glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm"))]


def opened_after(damage: Damage, past: Left, into: Path, seed: int, caplog: pytest.LogCaptureFixture) -> Aftermath:
    """Do the damage, and let a new agent record and look."""
    files = past.copied(into)
    damage(files, random.Random(seed))
    caplog.clear()
    with OrchestratorClient("b", outbox=files.database, mode="offline", background=False, min_free_bytes=1) as client:
        new = [client.update_task_status("after", "testing").event_id for _ in range(3)]
        client.health()
        box = client._station._outbox  # type: ignore[union-attr]
        held = box.query(lambda con: {id_ for (id_,) in con.execute("SELECT id FROM events")})
        sources, changes = box.query(identity.identities).sources, box.query(identity.changes)
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert set(new) <= held
    with OrchestratorClient("c", outbox=files.database, mode="offline", background=False) as client:
        client.health()
    again = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert again == errors, "told twice"
    return Aftermath(files, past.ids, held, new, sources, changes, errors)


def must_be_told_and_go_on_under_a_new_source(after: Aftermath) -> None:
    """The law of every loss."""
    assert after.saved == len(after.made) or len(after.errors) == 1, after.errors
    if after.saved < len(after.made):
        assert "orchclient doctor" in after.errors[0]
        assert after.changes or len(after.sources) == 1
        result = CliRunner().invoke(cli, ["--db", str(after.files.database), "doctor", "--json"])
        what = " ".join(finding["what"] for finding in json.loads(result.stdout)["findings"])
        assert "set aside" in what or "missing" in what, what


# --- nothing is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_files_that_are_as_they_were_left_are_taken_as_they_are(
    how: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    after = opened_after(lambda files, rng: None, request.getfixturevalue(how), tmp_path, 0, caplog)
    assert (after.saved, after.errors, after.changes, after.asides) == (len(after.made), [], [], [])


@pytest.mark.parametrize("damage", [trials.shm_deleted, trials.shm_garbage])
def test_the_shm_is_built_anew(damage: Damage, killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    after = opened_after(damage, killed, tmp_path, 0, caplog)
    assert (after.saved, after.errors, after.changes) == (len(after.made), [], [])


# --- the tail is gone -----------------------------------------------------------------------------------------------

TAIL = [trials.wal_deleted, trials.wal_zeroed, trials.wal_cut, trials.wal_bit, trials.older_copy]


def lose_the_tail(damage: Damage, killed: Left, into: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    after = opened_after(damage, killed, into, seed, caplog)
    missing = len(after.made) - after.saved
    assert missing > 0
    assert f"{missing} events that it held are missing" in after.errors[0]
    assert len(after.sources) == 2
    assert after.changes[0].first_seq == after.saved + 1
    must_be_told_and_go_on_under_a_new_source(after)


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("damage", TAIL)
def test_a_lost_tail_is_told_with_its_length_and_recording_goes_on_under_a_new_source(
    damage: Damage, seed: int, killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose_the_tail(damage, killed, tmp_path, seed, caplog)


@pytest.mark.parametrize("how", ["killed", "closed"])
@pytest.mark.parametrize("damage", [trials.set_deleted, trials.somebody_elses_outbox])
def test_an_outbox_that_is_gone_or_another_one_is_told(
    damage: Damage, how: str, request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    after = opened_after(damage, request.getfixturevalue(how), tmp_path, 0, caplog)
    assert after.saved == 0
    assert "events that it held are missing" in after.errors[0]
    must_be_told_and_go_on_under_a_new_source(after)


# --- the database is damaged ----------------------------------------------------------------------------------------

DATABASE = [
    trials.database_deleted,
    trials.database_emptied,
    trials.database_cut,
    trials.database_zeroed,
    trials.header_zeroed,
    trials.text_over_the_start,
    trials.page_overwritten,
    trials.older_copy_under_the_wal,
]


def damage_the_database(damage: Damage, past: Left, into: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    after = opened_after(damage, past, into, seed, caplog)
    must_be_told_and_go_on_under_a_new_source(after)
    if after.asides:
        assert len(after.sources) > 1 or after.changes
        assert {path.stat().st_mode & 0o777 for path in after.files.directory.iterdir()} == {0o600}


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("how", ["killed", "closed"])
@pytest.mark.parametrize("damage", DATABASE)
def test_a_damaged_database_is_noticed_at_start_and_nothing_is_lost_in_silence(
    damage: Damage,
    how: str,
    seed: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if how == "closed" and damage is trials.older_copy_under_the_wal:
        pytest.skip("after a clean end there is no -wal: it is an older copy")
    damage_the_database(damage, request.getfixturevalue(how), tmp_path, seed, caplog)


def test_what_the_wal_holds_of_a_database_that_is_gone_is_saved(
    killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    after = opened_after(trials.database_deleted, killed, tmp_path, 0, caplog)
    assert after.saved >= trials.IN_ALL - trials.IN_DATABASE
    (aside,) = after.asides
    assert Path(f"{aside}-wal").stat().st_size == (killed.directory / "outbox.db-wal").stat().st_size


def test_rows_beside_an_overwritten_page_are_saved(
    closed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = [opened_after(trials.page_overwritten, closed, tmp_path / str(n), n, caplog).saved for n in range(6)]
    assert max(saved) > 0.9 * trials.IN_ALL


def test_two_files_set_aside_in_one_moment_have_two_names(closed: Left, tmp_path: Path) -> None:
    files = closed.copied(tmp_path)
    for _ in range(2):
        trials.header_zeroed(files, random.Random(0))
        with OrchestratorClient("b", outbox=files.database, mode="offline", clock=StillClock()) as client:
            client.update_task_status("after", "testing")
    assert len([path for path in files.directory.glob("*.damaged-*") if path.suffix != ".damaged"]) >= 2


class StillClock:
    """It is always the same moment."""

    def now_us(self) -> int:
        return 1_800_000_000_000_000

    def monotonic(self) -> float:
        return 1.0

    def jitter(self) -> float:
        return 0.5

    def randomness(self) -> bytes:
        return os.urandom(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An orchestrator."""
    with Receiver() as running:
        yield running


@pytest.mark.parametrize("seed", range(8))
def test_a_bit_that_flipped_in_a_payload_makes_a_dead_letter_and_stops_nothing(
    seed: int, closed: Left, tmp_path: Path, receiver: Receiver
) -> None:
    files = closed.copied(tmp_path)
    trials.payload_bit(files, random.Random(seed))
    with OrchestratorClient("b", outbox=files.database, url=receiver.url) as client:
        client.flush(20.0)
        (sink,) = client.health().sinks
        assert (sink.dead, sink.pending) == (1, 0)
    assert len({event["id"] for event in receiver.events} & set(closed.ids)) == len(closed.ids) - 1


# --- controls: what these tests must find -----------------------------------------------------------------------------


@pytest.mark.parametrize("damage", TAIL)
def test_control_without_the_mark_the_tail_is_lost_in_silence(
    damage: Damage, killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.keeps_no_mark(monkeypatch)
    after = opened_after(damage, killed, tmp_path, 0, caplog)
    assert after.saved < len(after.made)
    assert not after.errors


def test_control_without_the_check_at_start_damage_is_not_noticed(
    closed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.checks_nothing_at_start(monkeypatch)
    told = []
    for seed in range(6):
        files = closed.copied(tmp_path / str(seed))
        trials.page_overwritten(files, random.Random(seed))
        caplog.clear()
        with OrchestratorClient("b", outbox=files.database, mode="offline", background=False) as client:
            client.update_task_status("after", "testing")
        told.append(len(caplog.records))
    assert 0 in told


def test_control_without_the_checksum_a_damaged_event_is_sent(
    closed: Left, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.believes_every_row(monkeypatch)
    files = closed.copied(tmp_path)
    trials.payload_bit(files, random.Random(1))
    with OrchestratorClient("b", outbox=files.database, url=receiver.url) as client:
        client.flush(20.0)
        assert client.health().sinks[0].dead == 0


def test_control_without_salvage_what_could_be_read_is_not_there(
    closed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.salvages_nothing(monkeypatch)
    after = opened_after(trials.page_overwritten, closed, tmp_path, 1, caplog)
    assert after.saved == 0


def test_control_sqlite_deletes_the_wal_of_an_empty_database(
    killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials.lets_sqlite_have_the_wal(monkeypatch)
    after = opened_after(trials.database_emptied, killed, tmp_path, 1, caplog)
    assert after.saved == 0
    assert not after.asides


# --- before a release -------------------------------------------------------------------------------------------------


@pytest.mark.release
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("damage", [*TAIL, *DATABASE])
def test_every_kind_of_damage_at_very_many_places(
    damage: Damage, killed: Left, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(RELEASE_ROUNDS):
        into = tmp_path / str(seed)
        (lose_the_tail if damage in TAIL else damage_the_database)(damage, killed, into, 1000 + seed, caplog)
        shutil.rmtree(into)
