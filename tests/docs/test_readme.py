"""The README is run: its example against a receiver, its table of tests and its links against the tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient.testing import Receiver
from tests.docs.walkthrough import newcomer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)[0]


def test_the_first_two_commands_are_one_line_each() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S)
    assert blocks[0] == "python -m pip install . && orchclient demo\n"
    assert blocks[1] == "python -m pip install '.[test]' && python -m pytest\n"


def test_the_example_records_what_its_lines_say(tmp_path: Path, receiver: Receiver) -> None:
    environment = {**os.environ, "ORCHCLIENT_DB": str(tmp_path / "outbox.db"), "ORCHCLIENT_URL": receiver.url}
    command = [sys.executable, "-W", "error", "-c", EXAMPLE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    types = [event["type"].removeprefix("dev.orchclient.") for event in receiver.events]
    assert types == ["task.status.v1"] * 2 + ["clarification.requested.v1", "task.completed.v1"]


def test_the_site_begins_with_the_same_example() -> None:
    assert EXAMPLE in (ROOT / "docs" / "index.md").read_text()


def test_the_example_has_five_lines() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) == 5


def test_a_newcomer_breaks_the_network_and_mends_it(tmp_path: Path) -> None:
    pytest.importorskip("flask", reason="the orchestrator needs the extra server")
    with newcomer(tmp_path, EXAMPLE) as person:
        person.walk(README)
        assert len(person.done) == README.count("\n$ ")


def test_the_figures_are_those_of_the_comparison() -> None:
    comparison = (ROOT / "docs" / "comparison.md").read_text()
    shown = re.findall(r"([\d, ]+) µs", README)
    assert shown
    assert all(f"{figure.strip()} µs" in comparison for figures in shown for figure in figures.split(","))


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_every_link_and_every_named_test_exists(page: Path) -> None:
    text = page.read_text()
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    missing += [name for name in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text) if not (ROOT / name).exists()]
    assert not missing


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub and the site name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name
)
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]*\.md|)#([^)]+)\)", page.read_text())
    lost = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors((page.parent / target) if target else page)
    ]
    assert lost == []
