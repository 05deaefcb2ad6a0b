"""The promises hold over whatever agents, processes, networks and clocks do."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from .machine import OutboxMachine
from .profiles import SEARCH


@pytest.mark.timeout(600)
def test_no_history_of_crashes_lies_and_clocks_breaks_a_promise(machine: type[OutboxMachine]) -> None:
    run_state_machine_as_test(machine, settings=SEARCH)
