"""A task executor: runs steps, assesses the result, and lets a person decide on it when a check failed.

Run it as it is:

    python docs/examples/task_executor.py

The steps are functions, the checks are commands. Their results give the quality score that the completion carries.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchclient import Answer, OrchestratorClient, Task

Step = Callable[[Path], None]
REVIEW_S = 2.0


class TaskExecutor:
    """Works through the steps of a task in a directory, and hands in what came of it."""

    def __init__(self, task: Task, directory: Path) -> None:
        self._task = task
        self._directory = directory

    def run(self, steps: Sequence[Step], checks: Sequence[Sequence[str]]) -> Answer | None:
        """The decision on the result: None when none was needed, or when nobody has decided yet."""
        for number, step in enumerate(steps):
            # Said before it is done: a killed agent leaves behind what it was at.
            self._task.progress(80 * number / len(steps), str(step.__doc__))
            step(self._directory)
        self._task.update("testing", progress_percentage=80, current_step="Running the checks")
        results = assessed([self._passes(check) for check in checks])
        return self._hand_in(results)

    def _passes(self, check: Sequence[str]) -> bool:
        done = subprocess.run(check, cwd=self._directory, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            # Not fatal: the result is handed in all the same, and a person sees why it is not better.
            self._task.escalate("check_failed", f"{check[-1]}: {done.stderr[-2000:]}", fatal=False, dedup_key=check[-1])
        return done.returncode == 0

    def _hand_in(self, results: dict[str, Any]) -> Answer | None:
        files = sorted(path.name for path in self._directory.glob("*.py"))
        done = self._task.complete(None, results, {"generated_files": files}, review=results["tests_failed"] > 0)
        print(f"Quality score: {done.quality_score:.0f} of 100")
        return done.review.wait(REVIEW_S) if done.review else None


def assessed(passed: Sequence[bool]) -> dict[str, Any]:
    """What the completion says of the checks."""
    return {"tests_passed": sum(passed), "tests_failed": len(passed) - sum(passed), "total_tests": len(passed)}


def write_models(directory: Path) -> None:
    """Writing the models"""
    (directory / "models.py").write_text("USERS = {1: 'ada'}\n")


def write_routes(directory: Path) -> None:
    """Writing the routes"""
    (directory / "routes.py").write_text("from models import USERS\n\n\ndef user(number):\n    return USERS[number]\n")


CHECKS = [
    [sys.executable, "-c", "import routes; assert routes.user(1) == 'ada'"],
    [sys.executable, "-c", "import routes; assert routes.user(2) is None"],  # what the models do not know
]


def main() -> None:
    """One task; an exception that escapes is escalated with its traceback."""
    with OrchestratorClient("task-executor") as client, client.task("users-api") as task, TemporaryDirectory() as place:
        decision = TaskExecutor(task, Path(place)).run([write_models, write_routes], CHECKS)
        print(f"Decided: {decision.outcome}" if decision else "Nobody has decided yet")


if __name__ == "__main__":
    main()
