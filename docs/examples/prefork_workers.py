"""Workers that are forked: one client, made before the fork, used by all of them on one outbox.

Run it as it is:

    python docs/examples/prefork_workers.py

gunicorn --preload, Celery's prefork pool and multiprocessing all do this. A worker opens the file anew at its first
record; one process delivers for all, and when it dies another one takes over.
"""

from __future__ import annotations

import multiprocessing
import os

from orchclient import OrchestratorClient

client = OrchestratorClient("worker-pool")


def work(number: int) -> int:
    """One job, in a worker; who did it stands in the task's metadata."""
    with client.task(f"job-{number}") as task:
        task.update(metadata={"pid": os.getpid()}, progress_percentage=50, current_step="Half way")
        task.complete(None, {"tests_passed": number, "tests_failed": 0})
    return os.getpid()


def main() -> None:
    """Six jobs in two workers, told by one client."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pids = set(pool.map(work, range(1, 7), chunksize=3))
    stats = client.get_communication_stats()
    print(f"{stats['completions_reported']} jobs done by {len(pids)} workers, none of them this process")
    # The workers are gone. What they left is delivered by who stays: here, at the end, for two seconds at most.
    client.close()


if __name__ == "__main__":
    main()
