"""A notebook: cells of an IPython shell inside a running event loop, as a kernel runs them."""

from __future__ import annotations

import asyncio
import json
import sys

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

CELLS = [
    "from orchclient import OrchestratorClient\nclient = OrchestratorClient('notebook', outbox=path, url=url)",
    "client.update_task_status('cell', 'in_progress', progress_percentage=10)",
    "client",
    # The first cell again, as people do: the client before is dropped without a close.
    "client = OrchestratorClient('notebook', outbox=path, url=url)",
    "with client.task('cell') as task:\n    raise ValueError('a cell that fails')",
    "import asyncio\nawait asyncio.sleep(0)\nclient.report_completion('cell', None, {'tests_passed': 1})",
    "client.update_task_status('later', 'in_progress')\nraise KeyboardInterrupt",
    "client.flush(30).pending",
]


async def main(path: str, url: str) -> None:
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, user_ns={"path": path, "url": url}, colors="NoColor")
    with capture_output() as printed:  # the tracebacks of the cells that fail
        outcomes = [
            await shell.run_cell_async(cell, store_history=False, transformed_cell=shell.transform_cell(cell))
            for cell in CELLS
        ]
    told = {
        "errors": [type(each.error_in_exec).__name__ if each.error_in_exec else "" for each in outcomes],
        "pending": outcomes[-1].result,
        "shown": repr(outcomes[2].result),
        "stderr": printed.stderr,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
