"""The tutorial works as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.console import DOCS
from tests.docs.walkthrough import newcomer

PAGE = (DOCS / "tutorial.md").read_text()
AGENT = re.findall(r"^<!-- file: agent.py -->\n```python\n(.*?)^```", PAGE, re.M | re.S)[0]


def test_the_tutorial_works_from_its_first_command_to_its_last(tmp_path: Path) -> None:
    pytest.importorskip("flask", reason="the orchestrator needs the extra server")
    with newcomer(tmp_path, AGENT) as person:
        person.walk(PAGE)
        assert len(person.done) == PAGE.count("\n$ ")
