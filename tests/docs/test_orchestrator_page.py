"""The page on the orchestrator is run, and tells every flag and model that there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient.cli.serve import serve_command
from orchclient.server.bell import MOST_WAITING
from orchclient.server.models import Base
from orchclient.server.people_api import api

PAGE = (Path(__file__).parents[2] / "docs" / "orchestrator.md").read_text()
EXAMPLE = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[0]


def test_the_example_of_the_page_runs_over_tables_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "[]\n")


@pytest.mark.parametrize("name", [option.opts[0] for option in serve_command.params])
def test_every_flag_is_told(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", sorted(mapper.class_.__name__ for mapper in Base.registry.mappers))
def test_every_model_is_told(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_every_path_for_people_is_told() -> None:
    from flask import Flask

    app = Flask("page")
    app.register_blueprint(api)
    paths = [str(rule) for rule in app.url_map.iter_rules() if str(rule).startswith("/api/")]
    assert [path for path in paths if path not in PAGE] == []


def test_the_number_of_polls_is_the_one_of_the_code() -> None:
    assert f"At most {MOST_WAITING} polls wait in one process" in PAGE
