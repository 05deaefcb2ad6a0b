"""A disk that fails costs nothing that was acknowledged, is told in plain words, and is forgotten when it is well.

The real client runs on a disk that fails at the 1st, the 5th, the 9th ... operation (before a release: at every one),
once or from then on; the laws are in ``io_trials``. And on a small file system that is really full.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define, field

from orchclient import OrchestratorClient
from orchclient.core.errors import OutboxError, OutboxFull
from tests.faults.io_trials import WORKLOADS
from tests.faults.preload import MEMORY, REPOSITORY, command, environment, needs_shims

STEP = 4
SWEEP_S = 100


@define
class Tally:
    """What a sweep did and found."""

    trials: int = 0
    hits: int = 0
    returned: int = 0
    refused: int = 0
    broken: list[str] = field(factory=list)


def swept(workload: str, step: int = STEP, planted_bug: str = "", timeout_s: float = SWEEP_S) -> Tally:
    """Sweep one workload in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="orchclient-io-", dir=MEMORY) as root:
        done = subprocess.run(
            command("io_trials", workload, root, step, planted_bug),
            env=environment("disk", {"DISK_ROOT": root}),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    return _counted([json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def _counted(lines: list[dict[str, object]], errors: str) -> Tally:
    tally, begun = Tally(), ""
    for line in lines:
        begun = str(line.get("begins", begun))
        if "hits" in line:
            tally.trials += 1
            tally.hits += int(str(line["hits"]))
            tally.returned += int(str(line["returned"]))
            tally.refused += int(str(line["refused"]))
            tally.broken += [f"{begun}: {each}" for each in line["broken"]]  # type: ignore[attr-defined]
    if not lines or "done" not in lines[-1]:
        tally.broken.append(f"{begun}: the process died or hung: {errors[-3000:]}")
    return tally


@needs_shims
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_disk_that_fails_at_any_operation_costs_nothing_and_is_forgotten_when_it_is_well(workload: str) -> None:
    tally = swept(workload)
    assert not tally.broken, tally
    assert min(tally.hits, tally.refused) > 3, tally  # it has met faults, and said so: 14 to 1,245 times, 9 once
    print(tally.trials, tally.hits, tally.refused)


@needs_shims
@pytest.mark.parametrize(
    ("workload", "bug", "sign", "step"),
    [
        ("record_full", "swallows_errors_of_a_commit", "lost", STEP),
        ("record_full", "tries_again_without_looking", "recorded twice", STEP),
        ("record_full", "lets_errors_of_sqlite_out", "raised OperationalError", STEP),
        ("look", "takes_a_read_error_for_damage", "set aside", STEP),
        ("deliver_behind", "delivers_until_the_first_error", "never delivered", 5 * STEP),  # each is waited for in vain
    ],
)
def test_control_a_planted_bug_is_found(workload: str, bug: str, sign: str, step: int) -> None:
    tally = swept(workload, step, planted_bug=bug)
    assert any(sign in each for each in tally.broken), tally


@needs_shims
@pytest.mark.release
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_disk_that_fails_at_every_single_operation_costs_nothing(workload: str) -> None:
    tally = swept(workload, step=1, timeout_s=1800)
    assert not tally.broken, tally
    print(workload, tally)


# --- really full ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 640 KiB."""
    directory = Path(tempfile.mkdtemp(prefix="orchclient-small-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=640k,mode=0700", "tmpfs", str(directory)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        reason = done.stderr
    except FileNotFoundError as error:
        done, reason = None, str(error)
    if done is None or done.returncode:
        directory.rmdir()
        pytest.skip(f"a small tmpfs cannot be mounted here (it needs root): {reason.strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
        directory.rmdir()


def record_until_refused(client: OrchestratorClient, most: int = 5_000) -> tuple[list[str], OutboxError]:
    kept: list[str] = []
    for number in range(most):
        try:
            kept.append(client.update_task_status("t", "testing", {"text": "x" * 400}, number % 101).event_id)
        except OutboxError as error:
            return kept, error
    raise AssertionError("nothing was refused")


def ids(client: OrchestratorClient) -> set[str]:
    question = "SELECT id FROM events"
    return set(client._station.query(lambda con: {id_ for (id_,) in con.execute(question)}))  # type: ignore[union-attr]


@pytest.mark.parametrize("durability", ["auto", "full"])
def test_a_disk_that_is_really_full_refuses_loudly_keeps_everything_and_works_again(
    small_disk: Path, durability: str
) -> None:
    path, filler = small_disk / "state" / "outbox.db", small_disk / "filler"
    filler.write_bytes(bytes(200_000))
    settings = {"outbox": path, "mode": "offline", "min_free_bytes": 1, "durability": durability}
    with OrchestratorClient("a", **settings) as client:  # type: ignore[arg-type]
        kept, error = record_until_refused(client)
        assert isinstance(error, OutboxFull)
        assert str(path) in str(error)
        assert "free" in str(error)
        assert set(kept) <= ids(client)
        filler.unlink()
        kept += [client.update_task_status("t", "testing").event_id for _ in range(20)]
        assert set(kept) <= ids(client)
    with OrchestratorClient("a", **settings) as client:  # type: ignore[arg-type]
        assert set(kept) <= ids(client)


def test_a_limit_on_the_size_of_files_is_met_in_the_same_way(outbox_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with OrchestratorClient("a", outbox=outbox_path, mode="offline", background=False) as client:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
            kept, error = record_until_refused(client)
            assert str(outbox_path) in str(error)
            assert set(kept) <= ids(client)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            kept += [client.update_task_status("t", "testing").event_id for _ in range(20)]
            assert set(kept) <= ids(client)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_client_on_a_read_only_file_system_says_so(small_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    assert subprocess.run(remount, check=False).returncode == 0
    with pytest.raises(OutboxError, match="mount the file system for writing"):
        OrchestratorClient("a", outbox=small_disk / "outbox.db")
    assert os.listdir(small_disk) == []
