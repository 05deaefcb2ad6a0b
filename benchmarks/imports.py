"""What importing orchclient costs an agent at its start, and a command a person or a script: time over bare Python.

Every case is a process of its own, the cases take turns, and bare Python of the same round is subtracted. On a busy
machine the wall clock counts the neighbours as well; the processor time does not.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from attrs import frozen
from measure import Spread, parser, report, rotated, tell, workspace

RUNS = 15
RUNS_QUICK = 5
BARE = "bare Python"


@frozen
class Run:
    """One process, from its start to its end."""

    ms: float
    cpu_ms: float


def main() -> int:
    """Measure and print the table."""
    options = parser(__doc__).parse_args()
    runs = RUNS_QUICK if options.quick else RUNS
    with workspace(options.dir) as directory:
        taken = _measured(_commands(), runs, directory)
        print(report(f"Imports, {runs} runs", directory, [_row(name, taken) for name in taken]))
    return 0


def _commands() -> dict[str, list[str]]:
    script = Path(sys.executable).with_name("orchclient")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "orchclient"]
    return {
        BARE: [sys.executable, "-c", "pass"],
        "import orchclient": [sys.executable, "-c", "import orchclient"],
        "from orchclient import OrchestratorClient": [
            sys.executable,
            "-c",
            "from orchclient import OrchestratorClient",
        ],
        "orchclient --help": [*program, "--help"],
        "orchclient status": [*program, "status"],
        "orchclient update": [*program, "update", "task", "testing"],
    }


def _measured(commands: dict[str, list[str]], runs: int, directory: Path) -> dict[str, list[Run]]:
    """Every run, by case; a first one that compiles and fills the caches does not count."""
    os.environ["ORCHCLIENT_DB"] = str(directory / "private" / "outbox.db")
    taken: dict[str, list[Run]] = {name: [] for name in commands}
    for command in commands.values():
        _run(command, directory)
    for number in range(runs):
        tell(f"run {number + 1} of {runs}")
        for name in rotated(list(commands), number):
            taken[name].append(_run(commands[name], directory))
    return taken


def _run(command: Sequence[str], directory: Path) -> Run:
    began, cpu_began = time.perf_counter(), _cpu_of_children()
    subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, check=True)
    return Run((time.perf_counter() - began) * 1e3, (_cpu_of_children() - cpu_began) * 1e3)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(name: str, taken: dict[str, list[Run]]) -> dict[str, object]:
    pairs = list(zip(taken[name], taken[BARE], strict=True))
    return {
        "case": name,
        "ms": f"{median(run.ms for run, _ in pairs):.1f}",
        "ms over bare Python": Spread.of(run.ms - bare.ms for run, bare in pairs),
        "of bare Python": Spread.of(run.ms / bare.ms for run, bare in pairs),
        "CPU ms over bare Python": Spread.of(run.cpu_ms - bare.cpu_ms for run, bare in pairs),
    }


if __name__ == "__main__":
    sys.exit(main())
