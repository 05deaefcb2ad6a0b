"""The page on destinations is run: its own destinations deliver."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from orchclient.server.orchestrator import Orchestrator
from orchclient.server.people import TaskFilter, tasks

PAGE = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def run(sign: str, directory: Path) -> None:
    """Run the example with these words in it, without a word on stderr."""
    (example,) = (text for text in EXAMPLES if sign in text)
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "ORCHCLIENT_DB": str(directory / "private" / "outbox.db")},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_destination_of_the_page_gets_what_is_recorded(tmp_path: Path) -> None:
    run("class AuditFile", tmp_path)
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["progress_percentage"] == 10


def test_the_sessions_of_the_page_get_what_is_recorded(tmp_path: Path) -> None:
    run("DatabaseSink", tmp_path)
    with closing(Orchestrator.open(str(tmp_path / "orchestrator.db"))) as opened, opened.reading() as session:
        assert [task.progress_percentage for task in tasks(session, TaskFilter())] == [10]
