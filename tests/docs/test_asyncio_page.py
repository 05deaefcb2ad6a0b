"""The page on asyncio is run: its agent records what it shows, its transaction keeps both."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from orchclient import OrchestratorClient

PAGE = (Path(__file__).parents[2] / "docs" / "asyncio.md").read_text()
AGENT, TRANSACTION = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)


def test_the_agent_of_the_page_works_on_two_tasks_at_once(outbox_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AGENT],
        env={**os.environ, "ORCHCLIENT_DB": str(outbox_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["2 completions", "task-1 asked True", "task-2 asked True"]
    with OrchestratorClient("reader", outbox=outbox_path) as client:
        for name in ("task-1", "task-2"):
            state = client.task_state(name)
            assert state is not None
            assert state.status == "completed"


def test_the_transaction_of_the_page_keeps_the_row_and_the_event(outbox_path: Path) -> None:
    program = f"""
from orchclient.aio import OrchestratorClient

async def main():
    async with OrchestratorClient("a", outbox={str(outbox_path)!r}) as client:
        async with client.transaction() as own:
            await own.execute("CREATE TABLE my_steps (task, step)")
{textwrap.indent(TRANSACTION, "        ")}
        async with client.transaction() as own:
            rows = await own.execute("SELECT * FROM my_steps")
        return rows, (await client.task_state("task-1")).current_step
"""
    names: dict[str, object] = {}
    exec(program, names)
    assert asyncio.run(names["main"]()) == ([("task-1", "routes")], "routes")  # type: ignore[operator]
