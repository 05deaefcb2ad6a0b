"""The README is run: its example against a receiver, its table of tests and its links against the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient.testing import Receiver

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)[0]


def test_the_first_two_commands_are_one_line_each() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    assert blocks[0] == "python -m pip install . && orchclient demo\n"
    assert blocks[1] == "python -m pip install '.[test]' && python -m pytest\n"


@pytest.mark.parametrize("with_url", [True, False])
def test_the_example_runs_as_it_stands(tmp_path: Path, receiver: Receiver, with_url: bool) -> None:
    environment = {**os.environ, "ORCHCLIENT_DB": str(tmp_path / "outbox.db")}
    if with_url:
        environment["ORCHCLIENT_URL"] = receiver.url
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "quality 85\n", "")
    types = [event["type"].removeprefix("dev.orchclient.") for event in receiver.events]
    expected = ["task.status.v1"] * 3 + ["clarification.requested.v1", "task.completed.v1"]
    assert types == (expected if with_url else [])


def test_the_example_is_about_twenty_lines() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 24


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_every_link_and_every_named_test_exists(page: Path) -> None:
    text = page.read_text()
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    missing += [name for name in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text) if not (ROOT / name).exists()]
    assert not missing
