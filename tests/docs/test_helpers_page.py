"""The page on trouble is run: what its programs print, and what a person gets of each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.test_client import stored

PAGE = (Path(__file__).parents[2] / "docs" / "helpers.md").read_text()
EXCEPTION, RECOVERY, INCIDENT, LOGGING = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def ran(program: str, outbox: Path) -> list[str]:
    """What a program of the page prints; nothing on stderr but what Python's last-resort logging prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "ORCHCLIENT_DB": str(outbox)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_exception_of_the_page_is_critical_by_its_class(outbox_path: Path) -> None:
    assert ran(EXCEPTION, outbox_path) == ["critical"]
    assert "in push" in stored(outbox_path)[0]["data"]["traceback"]


def test_the_work_of_the_page_is_done_at_its_third_try(outbox_path: Path) -> None:
    assert ran(RECOVERY, outbox_path) == ["pushed at attempt 2", "migrated"]
    assert [event["data"]["current_step"] for event in stored(outbox_path)] == [
        "Started",
        "Recovering from network: attempt 1 of 3",
        "Recovering from network: attempt 2 of 3",
        "Recovered from network after 2 attempts",
    ]


def test_the_three_errors_of_the_page_are_one_incident(outbox_path: Path) -> None:
    assert ran(INCIDENT, outbox_path) == ["3 errors, one incident"]
    assert stored(outbox_path)[-1]["data"]["count"] == 3


def test_the_thousand_errors_of_the_page_are_two_events(outbox_path: Path) -> None:
    assert ran(LOGGING, outbox_path) == []
    events = [event["data"] for event in stored(outbox_path)]
    assert [event["context"].get("records_since_last") for event in events] == [None, 998]
