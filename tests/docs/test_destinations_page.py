"""The page on destinations is run: its own destination delivers, and a published suite passes over it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "destinations.md").read_text()
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[0]


def test_the_destination_of_the_page_gets_what_is_recorded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE],
        env={**os.environ, "ORCHCLIENT_DB": str(tmp_path / "private" / "outbox.db")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["data"]["progress_percentage"] == 10
