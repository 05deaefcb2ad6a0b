"""An agent under gevent: everything is patched before anything else is imported."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import json
import os
import sys
import time

import gevent

from orchclient import OrchestratorClient


def record(client: OrchestratorClient, task: str, count: int) -> list[str]:
    ids = []
    for percent in range(count):
        ids.append(client.update_task_status(task, "in_progress", progress_percentage=percent).event_id)
        gevent.sleep(0)
    return ids


def child_of_a_fork(client: OrchestratorClient) -> int:
    """The exit status of a child that records and delivers."""
    pid = os.fork()
    if pid == 0:
        client.update_task_status("child", "completed")
        os._exit(0 if client.flush(30) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def longest_pause_s(while_waiting: gevent.Greenlet) -> float:
    """How long no other greenlet came to run until that one ended."""
    longest, last = 0.0, time.monotonic()
    while not while_waiting.ready():
        gevent.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


def main(path: str, url: str, hangs: bool) -> None:
    client = OrchestratorClient("gevent", outbox=path, url=url, request_timeout=60.0)
    workers = [gevent.spawn(record, client, f"task-{number}", 25) for number in range(8)]
    gevent.joinall(workers, raise_error=True)
    flushing = gevent.spawn(client.flush, 5 if hangs else 30)
    told = {"pause_s": longest_pause_s(flushing), "delivered_all": bool(flushing.get())}
    told["child"] = 0 if hangs else child_of_a_fork(client)
    told["ids"] = [id_ for worker in workers for id_ in worker.get()]
    told["ends_at"] = time.monotonic()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3] == "hangs")
