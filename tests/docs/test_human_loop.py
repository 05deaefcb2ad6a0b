"""The page on people: its program is run as it says, and its table is the states that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from orchclient.core.judging import RequestState
from orchclient.testing import Receiver
from tests.cli.command import Command

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "human-loop.md").read_text()
RUN_S = 60


def run(home: Path, **settings: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHCLIENT_")}
    environ = {**kept, "ORCHCLIENT_DB": str(home / "outbox.db"), **settings}
    command = [sys.executable, "-W", "error", str(DOCS / "examples" / "asking_people.py")]
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True, timeout=RUN_S)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_asked_answered_on_the_host_and_known_at_once_by_the_next_run(tmp_path: Path) -> None:
    still_open, question_id = run(tmp_path).split(": ")
    assert still_open == "still open"
    assert Command(tmp_path / "outbox.db")("answer", question_id, "1", "--by", "ada").code == 0
    assert run(tmp_path) == run(tmp_path) == "ada says (cli): yes, bearer token"


def test_answered_at_the_orchestrator(tmp_path: Path) -> None:
    with Receiver() as receiver:
        receiver.answer_each("no, public")
        assert run(tmp_path, ORCHCLIENT_URL=receiver.url) == "u-1 says (web): no, public"


def test_the_table_has_every_state_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+\| [^|]+\| [^|]+\|$", PAGE, re.M)
    assert rows == [state.value for state in RequestState]
