"""The programs of benchmarks/ run, and find every event again. ``--quick``: how fast anything is, they do not say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
QUICK = ("flush", "ingest", "pacing", "processes")
SLOW = ("answer", "imports", "latency", "record")


def table_of(tmp_path: Path, program: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{program}.py"), "--quick", "--dir", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]  # 1: an event was lost, or came twice
    return done.stdout


@pytest.mark.parametrize("program", [*QUICK, *(pytest.param(each, marks=pytest.mark.release) for each in SLOW)])
def test_a_benchmark_runs_and_loses_nothing(program: str, tmp_path: Path) -> None:
    assert "| --- |" in table_of(tmp_path, program)


def test_the_benchmark_of_scale_runs_and_loses_nothing(tmp_path: Path) -> None:
    assert "of that" in table_of(tmp_path, "scale", "--events", "1000")


def test_every_program_is_run_by_a_test_or_needs_what_is_not_here() -> None:
    programs = {path.stem for path in BENCHMARKS.glob("*.py") if "parser(" in path.read_text()}
    assert programs - {*QUICK, *SLOW, "scale", "measure", "all"} == {"peers"}
