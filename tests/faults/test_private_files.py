"""Nobody else can open a file of an outbox at any moment: its mode is right when the call that makes it returns.

The shim ``modes`` sees every such call of the process, SQLite's too; a look from outside could come too late.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchclient import OutboxUnsafe
from orchclient.testing import Receiver
from tests.conftest import MakeClient
from tests.faults import preload
from tests.faults.private_agent import BUGS

pytestmark = preload.needs_shims

UMASKS = (0o000, 0o022, 0o777)
MADE = {"outbox.db", "outbox.db-wal", "outbox.db-shm", "outbox.db.gate", "outbox.db.flusher-orchestrator"}
"""What every outbox has while it is open. Others come and go: a journal before the switch to WAL, a salvage's lock."""


def made(directory: Path, receiver: Receiver, umask: int, bug: str = "") -> list[tuple[str, int, str]]:
    """What an agent makes, in order: the call, the mode when it returned, the name."""
    root, log = directory / "new", directory / "modes"
    log.touch()
    path = root / "deeper" / "outbox.db"
    done = subprocess.run(
        preload.command("private_agent", path, receiver.url, bug),
        env=preload.environment("modes", {"MODES_ROOT": root, "MODES_LOG": log, "PYTHONPATH": os.getcwd()}),
        umask=umask,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    return [(what, int(mode, 8), Path(path).name) for what, mode, path in lines]


def broken(calls: list[tuple[str, int, str]]) -> list[str]:
    """What others could have opened, or were affected by."""
    found = [f"{name} came with mode {mode:04o}" for what, mode, name in calls if what != "umask" and mode & 0o077]
    return found + ["the umask was changed" for what, _, _ in calls if what == "umask"]


@pytest.mark.parametrize("umask", UMASKS)
def test_every_file_is_private_from_its_first_moment(tmp_path: Path, receiver: Receiver, umask: int) -> None:
    calls = made(tmp_path, receiver, umask)
    assert {name for what, _, name in calls if what == "mkdir"} == {"new", "deeper"}
    assert {name for _, _, name in calls} >= MADE
    assert broken(calls) == []
    left = [path for path in (tmp_path / "new").rglob("*") if ".damaged" not in path.name]
    assert {f"{path.stat().st_mode & 0o7777:04o}" for path in left if path.is_file()} == {"0600"}
    assert {f"{path.stat().st_mode & 0o7777:04o}" for path in left if path.is_dir()} == {"0700"}


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug])
def test_the_shim_sees_a_planted_bug(tmp_path: Path, receiver: Receiver, bug: str) -> None:
    assert broken(made(tmp_path, receiver, 0o022, bug)) != []


@pytest.mark.parametrize("ending", [".flusher-orchestrator", ".gate", "-wal"])
def test_a_link_that_is_planted_beside_an_outbox_is_not_followed(
    make_client: MakeClient, outbox_path: Path, receiver: Receiver, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The election's file is needed by delivery only: recording goes on without it, and the log says what to remove."""
    make_client().close()
    victim = outbox_path.with_name("victim")
    planted = outbox_path.with_name(outbox_path.name + ending)
    planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    if ending == ".flusher-orchestrator":
        client = make_client(url=receiver.url)
        assert client.update_task_status("t", "in_progress")
        client.flush(0.2)
        assert client.health().sinks[0].pending == 1
        assert f"{planted} is a symbolic link: remove it" in caplog.text
    else:
        with pytest.raises(OutboxUnsafe, match="is a symbolic link: remove it"):
            make_client()
    assert not victim.exists()
