"""Power loss costs nothing that was promised: P1, P3 and P5, on the real client over a simulated disk.

Programs use the client under a shim that journals whatever they ask of the disk; the power then goes at any point of
the journal, in five flavours, and what the disk could hold is opened and judged. The disk forgets, tears and garbles
only what was not synced; what that means for orchclient is in ``power_ledger`` and ``power_laws``.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest

from tests.faults import power_journal
from tests.faults.power_cuts import WORKERS, Cuts, Tally, make_cuts, run_recovery, run_workload
from tests.faults.power_locks import writes_outside_the_gate
from tests.faults.preload import needs_shims

pytestmark = needs_shims

WORKLOADS = (
    "record_auto",
    "record_full",
    "record_in_threads",
    "record_in_processes",
    "record_in_company",
    "record_by_turns",
    "record_in_transactions",
    "record_in_company_while_syncs_fail",
    "record_while_syncs_fail",
    "checkpoint_while_syncs_fail",
    "flush",
    "checkpoint",
    "fold",
    "prune",
    "make_room",
    "migrate",
    "salvage",
    "salvage_from_rubbish",
    "salvage_of_damage",
    "pause",
)
QUICK, QUICK_STRICT, QUICK_SECOND, QUICK_AFTER = 360, 135, 200, 400
"""Cuts per workload: 20 times the first two, 6 times the third and once the last are 12,000 or so."""

ROUNDS = 10
"""Times so many cuts, at most, until a planted bug is found: of some bugs one cut in two hundred finds it."""

SYNCS_FAIL = ("record_while_syncs_fail", "record_in_company_while_syncs_fail", "checkpoint_while_syncs_fail")
NOT_TO_BE_RECOVERED = ("migrate", *SYNCS_FAIL, "salvage_from_rubbish")

RELEASE = 1_000_000
RELEASE_RUNS = 12
RELEASE_HOURS = 4


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    """Processes that make cuts. Spawned: pytest has threads, and a fork does not carry them over."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=spawn, max_tasks_per_child=50) as executor:
        yield executor  # one that has judged very many cuts runs into its bound of memory


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_cut_takes_what_was_promised_and_every_write_to_the_wal_is_under_the_gate(
    workload: str, pool: Executor, tmp_path: Path
) -> None:
    run = run_workload(workload, tmp_path)
    assert not writes_outside_the_gate(power_journal.records(run.journal))
    tally = make_cuts(pool, Cuts(run, QUICK))
    assert not tally.broken, tally


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_cut_takes_what_was_promised_where_names_need_a_sync_of_their_own(
    workload: str, pool: Executor, tmp_path: Path
) -> None:
    tally = make_cuts(pool, Cuts(run_workload(workload, tmp_path, seed=2), QUICK_STRICT, strict_names=True))
    assert not tally.broken, tally


@pytest.mark.parametrize("workload", ["record_auto", "checkpoint", "flush", "prune", "salvage", "salvage_of_damage"])
def test_a_second_cut_during_recovery_takes_nothing_either(workload: str, pool: Executor, tmp_path: Path) -> None:
    recovery = run_recovery(run_workload(workload, tmp_path, seed=3), tmp_path, images=20, seed=3)
    tally = make_cuts(pool, Cuts(recovery, QUICK_SECOND))
    assert not tally.broken, tally


def test_after_a_cut_every_event_reaches_the_orchestrator_once_and_in_order(pool: Executor, tmp_path: Path) -> None:
    tally = make_cuts(pool, Cuts(run_workload("flush", tmp_path, seed=4), QUICK_AFTER, judges_afterlife=True))
    assert not tally.broken, tally


@pytest.mark.parametrize("workload", SYNCS_FAIL)
def test_a_disk_that_drops_what_a_failed_sync_could_not_write_takes_nothing(
    workload: str, pool: Executor, tmp_path: Path
) -> None:
    order = Cuts(run_workload(workload, tmp_path), QUICK, drops_at_failed_sync=True)
    tally = make_cuts(pool, order)
    assert not tally.broken, tally


def test_control_writes_outside_the_gate_are_seen(tmp_path: Path) -> None:
    run = run_workload("record_auto", tmp_path, planted_bug="commits_outside_the_gate")
    assert writes_outside_the_gate(power_journal.records(run.journal))


# --- controls: what this harness must find --------------------------------------------------------------------------


def cuts_with(
    pool: Executor, workload: str, tmp_path: Path, *, bug: str = "", lies: str = "", finds: tuple[str, ...] = ("lost",)
) -> Tally:
    run, tally = run_workload(workload, tmp_path, planted_bug=bug, lies=lies), Tally()
    for seed in range(ROUNDS):
        tally.add(make_cuts(pool, Cuts(run, QUICK, seed, finds=finds)))
        if all(tally.has(kind) for kind in finds):
            break
    return tally


@pytest.mark.parametrize("workload", ["record_auto", "checkpoint"])
def test_control_a_disk_that_lies_about_syncs_loses_and_corrupts(workload: str, pool: Executor, tmp_path: Path) -> None:
    tally = cuts_with(pool, workload, tmp_path, lies="sync", finds=("lost", "corrupt"))
    assert tally.lost, tally
    assert tally.corrupt, tally


def test_control_what_a_failed_sync_dropped_is_lost_when_it_is_not_written_again(
    pool: Executor, tmp_path: Path
) -> None:
    run = run_workload("record_while_syncs_fail", tmp_path, planted_bug="trusts_a_sync_after_a_failed_one")
    tally = make_cuts(pool, Cuts(run, QUICK, drops_at_failed_sync=True, finds=("lost",)))
    assert tally.lost, tally


@pytest.mark.parametrize("workload", ["record_auto", "checkpoint", "record_in_transactions"])
def test_control_synced_events_committed_as_normal_are_lost_and_nothing_is_corrupt(
    workload: str, pool: Executor, tmp_path: Path
) -> None:
    tally = cuts_with(pool, workload, tmp_path, bug="synced_events_as_normal", finds=())
    assert tally.lost, tally
    assert not tally.corrupt, tally


@pytest.mark.parametrize(("workload", "finds"), [("record_full", ("lost",)), ("checkpoint", ("lost", "corrupt"))])
def test_control_synchronous_off_loses_and_where_checkpoints_write_the_database_corrupts(
    workload: str, finds: tuple[str, ...], pool: Executor, tmp_path: Path
) -> None:
    tally = cuts_with(pool, workload, tmp_path, bug="nothing_synced", finds=finds)
    assert all(tally.has(kind) for kind in finds), tally


def test_control_names_that_are_never_synced_are_lost(pool: Executor, tmp_path: Path) -> None:
    run = run_workload("record_auto", tmp_path, lies="names")
    tally = make_cuts(pool, Cuts(run, QUICK, strict_names=True, finds=("lost",)))
    assert tally.lost, tally


@pytest.mark.parametrize(
    ("workload", "bug", "kind"),
    [
        ("record_in_company", "promises_before_the_sync", "lost"),
        ("record_by_turns", "changes_not_synced", "lost"),
        ("pause", "never_synced_late", "lost"),
        ("flush", "settles_before_the_answer", "settled"),
        ("flush", "parks_in_two_steps", "miscounted"),
        ("prune", "prunes_what_is_pending", "lost"),
        ("fold", "folds_in_two_steps", "misfolded"),
        ("make_room", "folds_superseded_in_two_steps", "lost"),
        ("salvage", "salvages_nothing", "lost"),
        ("salvage_of_damage", "forgets_what_it_owes_before_the_commit", "lost"),
        ("record_in_transactions", "transactions_in_two_steps", "torn"),
    ],
)
def test_control_a_planted_bug_is_found(workload: str, bug: str, kind: str, pool: Executor, tmp_path: Path) -> None:
    tally = cuts_with(pool, workload, tmp_path, bug=bug, finds=(kind,))
    assert tally.broken[kind], tally


def test_control_a_sequence_that_is_used_twice_is_found_in_the_life_after(tmp_path: Path) -> None:
    run = run_workload("flush", tmp_path, seed=4)
    order = Cuts(run, QUICK_AFTER, judges_afterlife=True, gives_up_taken_numbers=True, finds=("dead",))
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as own_pool:
        tally = make_cuts(own_pool, order)
    assert tally.broken["dead"], tally


# --- before a release -----------------------------------------------------------------------------------------------


@pytest.mark.release
@pytest.mark.timeout(RELEASE_HOURS * 3600)
def test_no_cut_of_very_many_takes_what_was_promised(pool: Executor, tmp_path: Path) -> None:
    total = cut_everything(pool, tmp_path, RELEASE)
    print(total)
    assert not total.broken, total


def cut_everything(pool: Executor, scratch: Path, cuts: int) -> Tally:
    """So many cuts over all workloads, plain, in recovery and where names need a sync of their own by turns."""
    total, share = Tally(), cuts // (RELEASE_RUNS * len(WORKLOADS))
    for seed in range(RELEASE_RUNS):
        for workload in WORKLOADS:
            run = run_workload(workload, scratch, seed=100 + seed)
            if seed % 3 == 1 and workload not in NOT_TO_BE_RECOVERED:
                run = run_recovery(run, scratch, images=40, seed=seed)
            total.add(make_cuts(pool, Cuts(run, share, seed=seed, strict_names=seed % 3 == 2)))
    return total
