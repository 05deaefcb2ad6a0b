"""An agent that makes every file an outbox can have: new, with threads, checkpointed, salvaged, damaged.

Run under the shim ``modes`` by ``test_private_files``; arguments: the path of the outbox, a URL, a bug to plant.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from threading import Thread

from orchclient import OrchestratorClient
from orchclient.outbox import files


def main(path: Path, url: str, bug: str) -> None:
    """Record with threads, deliver, lose the file, go on; then open a damaged one."""
    BUGS[bug]()
    client = OrchestratorClient("private", outbox=path, url=url)
    threads = [Thread(target=record, args=(client, n)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.flush(10)
    client._station._outbox._checkpoint(wait=True)  # type: ignore[union-attr]
    path.unlink()
    record(client, 9)
    client.close()
    path.write_bytes(b"damaged " * 1000)
    with OrchestratorClient("private", outbox=path, mode="offline") as again:
        record(again, 10)


def record(client: OrchestratorClient, number: int) -> None:
    """Some events of one task."""
    for percent in range(20):
        client.update_task_status(f"t{number}", "in_progress", None, percent)
    client.escalate_error(f"t{number}", "e", "m")


def _make_then_tighten() -> None:
    def make(path: Path) -> None:
        if not path.exists():
            os.mknod(path, 0o644 | stat.S_IFREG)
            path.chmod(0o600)

    files._make_file = make


def _borrow_the_umask() -> None:
    honest = files._make_file

    def make(path: Path) -> None:
        before = os.umask(0o077)
        honest(path)
        os.umask(before)

    files._make_file = make


BUGS = {
    "": lambda: None,
    "a file that is tightened after it was made": _make_then_tighten,
    "a umask that is borrowed": _borrow_the_umask,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
