"""The unit of the page on deploying is one that systemd takes; its container file and settings name what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from orchclient.cli.serve import serve_command
from orchclient.server.wsgi import SIGNING_VARIABLE
from tests.docs.console import DOCS

PAGE = (DOCS / "deploying.md").read_text()


def block(kind: str) -> str:
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)
    return str(found)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine: install systemd to run this test")
    unit = tmp_path / "orchclient.service"
    unit.write_text(block("ini").replace("/opt/orchclient/bin/orchclient", "/bin/true"))  # one that is there
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "orchclient.service" in line]
    assert (done.returncode, said) == (0, [])


def test_every_variable_of_the_page_is_one_that_the_command_reads() -> None:
    known = {param.envvar for param in serve_command.params if getattr(param, "envvar", None)}
    known.add(SIGNING_VARIABLE)  # a secret, and so no flag
    assert set(re.findall(r"ORCHCLIENT_SERVE_[A-Z_]+", PAGE)) == known


def test_the_container_runs_the_command_and_asks_for_its_health() -> None:
    lines = dict(line.split(" ", 1) for line in block("dockerfile").splitlines() if line[:1].isalpha())
    assert (json.loads(lines["ENTRYPOINT"]), json.loads(lines["CMD"])) == (["orchclient"], ["serve"])
    probe = re.search(r"CMD (\[.*\])\nENTRYPOINT", block("dockerfile"))
    assert probe is not None
    compile(json.loads(probe[1])[2], "probe", "exec")
