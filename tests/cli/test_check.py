"""``orchclient status --check``: silent about what is well, one line for each thing that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from orchclient.cli.check import Thresholds, troubles
from orchclient.reporting import OutboxReport, SinkReport
from orchclient.testing import Receiver
from tests.cli.command import Command
from tests.cli.inside import Inside
from tests.conftest import MakeClient

WELL = SinkReport("orchestrator", "orchestrator", 0, 0, 9, 0, 0, None, "delivering", "", None, None, "", None, None)


def report(**changes: Any) -> OutboxReport:
    """An outbox with one destination that is well but for the changes."""
    return OutboxReport("/outbox.db", "s", 9, 9, (evolve(WELL, **changes),))


@pytest.mark.parametrize(
    ("changes", "is_served", "codes"),
    [
        ({}, False, []),
        ({"pending": 3, "oldest_age_s": 299.0}, True, []),
        ({"pending": 3, "oldest_age_s": 301.0}, True, ["old"]),
        ({"pending": 3, "oldest_age_s": 1.0}, False, ["nobody"]),
        ({"pending": 101, "oldest_age_s": 1.0}, True, ["many"]),
        ({"dead": 1}, True, ["dead"]),
        ({"state": "paused", "reason": "HTTP 401"}, True, ["paused"]),
        ({"state": "disabled", "pending": 1, "oldest_age_s": 1.0}, True, ["disabled"]),
        ({"state": "waiting", "pending": 1, "oldest_age_s": 1.0}, True, []),
    ],
)
def test_each_trouble_is_one_finding(changes: dict[str, Any], is_served: bool, codes: list[str]) -> None:
    found = troubles(report(**changes), Thresholds(300, 100), lambda name: is_served)
    assert [each.code for each in found] == codes
    assert all(each.message.startswith("orchestrator: ") for each in found)


def test_a_probe_hears_of_dead_letters_and_of_what_nobody_delivers(
    make_client: MakeClient, outbox_path: Path, receiver: Receiver
) -> None:
    command = Command(outbox_path, receiver.url)
    assert command("status", "--check").code == 0  # no outbox yet
    client = make_client(background=False)
    client.update_task_status("t", "testing")
    waiting = command("status", "--check")
    assert (waiting.code, waiting.out) == (1, "1 event pending, and no destination was ever configured\n")
    assert command("flush").code == 0
    well = command("status", "--check")
    assert (well.code, well.out) == (0, "ok: 0 pending, 0 dead\n")
    receiver.reject("bad")
    client.update_task_status("bad", "testing")
    command("flush")
    client.update_task_status("t", "testing")
    ill = command("status", "--check", "--max-age", "1h", "--json")
    assert (ill.code, ill.document["ok"]) == (1, False)
    assert [each["code"] for each in ill.document["findings"]] == ["dead", "nobody"]


def test_files_that_were_set_aside_are_told_until_they_are_gone(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client(background=False)
    client.update_task_status("t", "testing")
    client.close()
    command = Inside(outbox_path)
    assert ", the last 0 s ago" in command("status").out
    outbox_path.write_bytes(b"\0" * outbox_path.stat().st_size)
    assert "1 damaged file of this outbox was set aside. Look: orchclient doctor" in command("status").out
    (aside,) = command.json("status")["set_aside"]
    checked = command("status", "--check", "--json")
    assert (checked.code, [each["code"] for each in checked.document["findings"]]) == (1, ["set_aside"])
    for name in outbox_path.parent.glob("*.damaged-*"):
        name.unlink()
    assert aside not in command("status").out
    assert command("status", "--check").code == 0


def test_an_outbox_that_was_taken_away_is_not_taken_for_one_that_never_was(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "t")
    outbox_path.unlink()
    assert "is gone: it held events up to 1. Look: orchclient doctor" in command("status").out
    checked = command("status", "--check", "--json")
    assert (checked.code, [each["code"] for each in checked.document["findings"]]) == (1, ["gone"])
    assert command.json("status")["exists"] is False
