"""The promises hold over whatever agents, processes, networks and clocks do."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from .machine import OutboxMachine
from .profiles import LONG_SEARCH, SEARCH


@pytest.mark.timeout(600)
def test_no_history_of_crashes_lies_and_clocks_breaks_a_promise(machine: type[OutboxMachine]) -> None:
    run_state_machine_as_test(machine, settings=SEARCH)
    assert machine.heartbeats > 20, machine.heartbeats


@pytest.mark.release
@pytest.mark.timeout(7200)
def test_nor_does_any_of_very_many(machine: type[OutboxMachine]) -> None:
    run_state_machine_as_test(machine, settings=LONG_SEARCH)
