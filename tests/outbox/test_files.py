"""Paths of an outbox: what is made, with which mode, and what is refused before anything is made."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchclient.core.errors import ConfigError, OutboxError, OutboxUnsafe
from orchclient.outbox import files, filesystems
from orchclient.outbox.files import companions, create_lock_file, free_bytes, identity, prepare
from orchclient.outbox.whereabouts import Whereabouts

NOBODY = 65534
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can give a file to another user")
UMASKS = (0o000, 0o022, 0o777)


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A path in a private directory; neither file nor companions exist."""
    tmp_path.chmod(0o700)
    return tmp_path / "outbox.db"


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Runs the test without root's rights, whoever started it, in a directory that it owns."""
    with tempfile.TemporaryDirectory() as name:
        if AS_ROOT:
            os.chown(name, NOBODY, -1)
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if AS_ROOT:
                os.seteuid(0)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def make(path: Path, permissions: int = 0o600) -> None:
    path.touch()
    path.chmod(permissions)


def tree(directory: Path) -> list[tuple[str, int, int]]:
    """Every name below with what must not change: mode and inode."""
    return sorted((str(p), p.lstat().st_mode, p.lstat().st_ino) for p in (directory, *directory.rglob("*")))


# --- What is made ---


@pytest.mark.parametrize("mask", UMASKS)
def test_new_directories_and_file_are_private_under_any_umask(unprivileged: Path, mask: int) -> None:
    with umask(mask):
        path = prepare(unprivileged / "a" / "b" / "outbox.db")
    assert [mode(path), mode(path.parent), mode(path.parent.parent)] == [0o600, 0o700, 0o700]


@pytest.mark.parametrize("mask", UMASKS)
def test_new_file_is_private_where_mknod_is_left_to_root(
    unprivileged: Path, mask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "mknod", refusal(errno.EPERM))
    with umask(mask):
        path = prepare(unprivileged / "outbox.db")
    assert mode(path) == 0o600
    assert prepare(path) == path


def test_existing_outbox_is_left_as_it_is(outbox: Path) -> None:
    outbox.parent.chmod(0o755)
    for path in (outbox, *companions(outbox)):
        make(path)
    outbox.write_bytes(b"content")
    before = tree(outbox.parent)
    assert prepare(outbox) == outbox
    assert tree(outbox.parent) == before
    assert outbox.read_bytes() == b"content"


def test_path_comes_back_absolute_and_without_links(outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = outbox.parent / "real"
    real.mkdir(mode=0o700)
    (outbox.parent / "link").symlink_to(real)
    monkeypatch.chdir(outbox.parent)
    assert prepare(Path("link/sub/../outbox.db")) == real / "outbox.db"


def test_sqlite_gives_its_own_files_the_same_mode(outbox: Path) -> None:
    with umask(0), closing(sqlite3.connect(prepare(outbox))) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a)")
        assert {mode(path) for path in (outbox, *companions(outbox)[:2])} == {0o600}
        assert prepare(outbox) == outbox


def test_companions_stand_beside_the_outbox() -> None:
    names = [path.name for path in companions(Path("/x/o.db"))]
    assert names == ["o.db-wal", "o.db-shm", "o.db.gate", "o.db.flusher", "o.db.mark"]


def test_eight_threads_make_one_file(outbox: Path) -> None:
    start = threading.Barrier(8)
    found: list[object] = []

    def run() -> None:
        start.wait()
        found.append(identity(prepare(outbox.parent / "new" / "dir" / "outbox.db")))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_eight_processes_make_one_file(outbox: Path) -> None:
    path = outbox.parent / "new" / "dir" / "outbox.db"
    code = (
        "import sys; from pathlib import Path; from orchclient.outbox.files import identity, prepare;"
        "print(flush=True); sys.stdin.read(); print(identity(prepare(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(path)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(8)]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    for worker in workers:
        assert worker.stdin
        worker.stdin.close()
    answers = [worker.stdout.read() for worker in workers if worker.stdout]
    for worker in workers:
        with worker:
            assert worker.wait() == 0
    assert set(answers) == {f"{identity(path)}\n"}


def other_process_can_lock(path: Path) -> bool:
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False)
    assert done.returncode == 0 or b"locked" in done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(("maker", "kept"), [("mknod", True), ("open", False)])
def test_making_the_file_drops_no_lock_of_a_quicker_thread(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, maker: str, kept: bool
) -> None:
    """``open`` is the negative control: the way not taken, in which the planted thread does lose its lock."""
    quicker = []
    real = getattr(os, maker)

    def overtaken(*args: object) -> object:
        made = real(*args)
        if args[0] == outbox:  # and not a directory, which is synced after it
            quicker.append(sqlite3.connect(outbox))
            quicker[0].execute("BEGIN EXCLUSIVE")
        return made

    if maker == "open":
        monkeypatch.setattr(os, "mknod", refusal(errno.EPERM))
    monkeypatch.setattr(os, maker, overtaken)
    prepare(outbox)
    monkeypatch.undo()
    with closing(quicker[0]):
        assert other_process_can_lock(outbox) is not kept


# --- What is refused ---


def plant_link(path: Path) -> None:
    make(path.parent / "victim")
    path.symlink_to(path.parent / "victim")


def plant_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "not there")


def plant_hard_link(path: Path) -> None:
    make(path.parent / "victim")
    path.hardlink_to(path.parent / "victim")


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


PLANTED: dict[str, Callable[[Path], object]] = {
    "is a symbolic link": plant_link,
    "is a symbolic link: remove": plant_dangling_link,
    "has 2 names": plant_hard_link,
    "is not a regular file": os.mkfifo,
    "is not a regular file: remove": plant_socket,
    "mode 0640": lambda path: make(path, 0o640),
    "mode 0602": lambda path: make(path, 0o602),
}


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal", ".gate", ".flusher"])
@pytest.mark.parametrize("problem", PLANTED)
def test_planted_file_is_refused_and_nothing_is_made(outbox: Path, problem: str, ending: str) -> None:
    planted = outbox.with_name(outbox.name + ending)
    PLANTED[problem](planted)
    before = tree(outbox.parent)
    with pytest.raises(OutboxUnsafe, match=problem) as refused:
        prepare(outbox)
    assert str(refused.value).startswith(f"{planted} ")
    assert tree(outbox.parent) == before


@needs_root
@pytest.mark.parametrize("ending", ["", "-wal", ".gate"])
def test_file_of_another_user_is_refused_even_to_root(outbox: Path, ending: str) -> None:
    planted = outbox.with_name(outbox.name + ending)
    make(planted)
    os.chown(planted, NOBODY, -1)
    with pytest.raises(OutboxUnsafe, match=f"belongs to user {NOBODY}, not to 0: run as that user"):
        prepare(outbox)


@needs_root
def test_file_of_root_is_refused_to_others(unprivileged: Path) -> None:
    os.seteuid(0)
    make(unprivileged / "outbox.db")
    os.seteuid(NOBODY)
    with pytest.raises(OutboxUnsafe, match="belongs to user 0"):
        prepare(unprivileged / "outbox.db")


@needs_root
def test_directory_of_another_user_is_refused_even_to_root(outbox: Path) -> None:
    os.chown(outbox.parent, NOBODY, -1)
    with pytest.raises(OutboxUnsafe, match="who could exchange the outbox"):
        prepare(outbox)


@needs_root
def test_directory_of_root_is_fine_for_the_owner_of_the_file(unprivileged: Path) -> None:
    prepare(unprivileged / "outbox.db")
    os.seteuid(0)
    os.chown(unprivileged, 0, -1)
    unprivileged.chmod(0o755)
    os.seteuid(NOBODY)
    assert prepare(unprivileged / "outbox.db").exists()


@pytest.mark.parametrize(
    ("permissions", "problem"),
    [
        (0o770, r"mode 0770\): chmod go-w it"),
        (0o702, r"mode 0702\): chmod go-w it"),
        (0o1777, r"mode 1777\), as /tmp is: name a private directory below it"),
    ],
)
def test_directory_that_others_can_write_is_refused(outbox: Path, permissions: int, problem: str) -> None:
    outbox.parent.chmod(permissions)
    with pytest.raises(OutboxUnsafe, match=problem):
        prepare(outbox)
    assert not outbox.exists()


def test_private_directory_is_made_below_a_sticky_one(outbox: Path) -> None:
    outbox.parent.chmod(0o1777)
    assert mode(prepare(outbox.parent / "agent" / "outbox.db").parent) == 0o700


def test_unsafe_file_that_appears_while_ours_is_made_is_refused(outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(outbox.parent / "victim")
    monkeypatch.setattr(os, "mknod", lambda path, _mode: path.symlink_to(outbox.parent / "victim"))
    with pytest.raises(OutboxUnsafe, match="symbolic link"):
        prepare(outbox)


# --- What the operating system refuses ---


def refusal(number: int) -> Callable[..., None]:
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_directory_in_place_of_the_file_is_an_error(outbox: Path) -> None:
    outbox.mkdir()
    with pytest.raises(OutboxError, match="is a directory: set `outbox` to a file in it"):
        prepare(outbox)


def test_file_in_place_of_a_directory_is_an_error(outbox: Path) -> None:
    make(outbox)
    for path in (outbox / "x.db", outbox / "sub" / "x.db"):
        with pytest.raises(OutboxError, match="directory") as refused:
            prepare(path)
        assert str(outbox) in str(refused.value)


def test_directory_without_write_permission_is_an_error(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    for path in (unprivileged / "outbox.db", unprivileged / "sub" / "outbox.db"):
        with pytest.raises(OutboxError, match=rf"{path} cannot be used as outbox: Permission denied"):
            prepare(path)
    unprivileged.chmod(0o700)


def test_directory_without_search_permission_is_an_error(unprivileged: Path) -> None:
    unprivileged.chmod(0o600)
    with pytest.raises(OutboxError, match="yours to enter"):
        prepare(unprivileged / "outbox.db")
    unprivileged.chmod(0o700)


def test_file_that_its_owner_cannot_write_is_an_error(outbox: Path) -> None:
    outbox.write_bytes(b"content")
    outbox.chmod(0o400)
    with pytest.raises(OutboxError, match=r"mode 0400\): chmod 600 it"):
        prepare(outbox)


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.EROFS, "mount"), (errno.ENOSPC, "free some space"), (errno.EIO, "check")]
)
def test_refusal_of_the_system_names_path_and_cure(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    monkeypatch.setattr(os, "mknod", refusal(number))
    with pytest.raises(OutboxError, match=f"{os.strerror(number)}: {cure}") as refused:
        prepare(outbox)
    assert str(outbox) in str(refused.value)
    assert "ORCHCLIENT_DB" in str(refused.value)


@pytest.mark.parametrize("long", ["n" * 250, "d" * 300 + "/outbox.db"])
def test_name_too_long_for_a_companion_is_an_error_before_anything_is_made(outbox: Path, long: str) -> None:
    with pytest.raises(OutboxError, match="give a shorter name"):
        prepare(outbox.parent / "new" / long)
    assert list(outbox.parent.iterdir()) == []


def test_links_that_lead_in_a_circle_are_refused(outbox: Path) -> None:
    (outbox.parent / "loop").symlink_to(outbox.parent / "loop")
    with pytest.raises(OutboxError, match="loop"):
        prepare(outbox.parent / "loop" / "outbox.db")


@pytest.mark.parametrize("path", ["", ".", "/", "..", "a/..", "a\0b", "a\0/b.db", "\ud800"])
def test_text_that_names_no_file_is_a_config_error(path: str) -> None:
    with pytest.raises(ConfigError, match=r"outbox: .* names no file"):
        prepare(Path(path))


# --- File systems ---

MOUNTS = b"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,discard shared:1 master:2 - ext4 /dev/vda rw
30 27 0:40 / /mnt/nfs rw - nfs4 server:/x rw,vers=4.2
31 30 8:1 / /mnt/nfs/local rw - xfs /dev/sda rw
32 27 0:41 / /mnt/with\\040space\\134 rw - fuse.sshfs host:/ rw
33 27 0:42 / /mnt/twice rw - autofs systemd-1 rw
34 33 0:43 / /mnt/twice rw - cifs //s/x rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/outbox.db", "ext4"),
        ("/mnt/nfs/outbox.db", "nfs4"),
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs2/outbox.db", "ext4"),
        ("/mnt/nfs/local/outbox.db", "xfs"),
        ("/mnt/with space\\/outbox.db", "fuse.sshfs"),
        ("/mnt/twice/outbox.db", "cifs"),
    ],
)
def test_file_system_is_that_of_the_longest_and_last_mount_point(path: str, kind: str) -> None:
    assert filesystems.filesystem_type(path, MOUNTS) == kind


@given(st.binary(min_size=1, max_size=20).filter(lambda name: not set(name) & {0, ord("/")}))
def test_every_mount_point_is_found_through_its_escapes(name: bytes) -> None:
    escaped = b"".join(b"\\%03o" % byte if byte in b" \t\n\\" else bytes((byte,)) for byte in name)
    mounts = MOUNTS + b"40 27 0:9 / /m/" + escaped + b" rw - ceph c rw\n"
    assert filesystems.filesystem_type(os.fsdecode(b"/m/" + name + b"/o.db"), mounts) == "ceph"


@pytest.fixture
def mounted(
    outbox: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Makes the directory of ``outbox`` look like a mount of the given type."""

    def mount(kind: str) -> Path:
        table = tmp_path_factory.mktemp("proc") / "mountinfo"
        table.write_text(f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / {outbox.parent} rw - {kind} x rw\n")
        monkeypatch.setattr(filesystems, "_MOUNTINFO", str(table))
        return outbox.parent / "new" / "outbox.db"

    return mount


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse", "fuse.sshfs", "fuse.s3fs", "ceph", "afs", "lustre"],
)
def test_network_file_system_is_refused_and_nothing_is_made(mounted: Callable[[str], Path], kind: str) -> None:
    path = mounted(kind)
    with pytest.raises(OutboxUnsafe, match=rf"type {kind}, .*`allow_network_filesystem`"):
        prepare(path)
    assert list(path.parent.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "fuseblk", "nfsd", "apfs"])
def test_local_file_system_is_fine(mounted: Callable[[str], Path], kind: str) -> None:
    assert prepare(mounted(kind)).exists()


def test_network_file_system_is_used_when_allowed(mounted: Callable[[str], Path]) -> None:
    assert prepare(mounted("nfs4"), allow_network=True).exists()


def test_nothing_is_checked_where_proc_is_missing(outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_MOUNTINFO", str(outbox.parent / "no proc"))
    assert prepare(outbox).exists()


# --- Identity, locks, space ---


def test_identity_is_that_of_the_path_itself(outbox: Path) -> None:
    make(outbox)
    link = outbox.parent / "link"
    link.symlink_to(outbox)
    assert identity(outbox) == (outbox.stat().st_dev, outbox.stat().st_ino)
    assert identity(link) != identity(outbox)
    assert identity(outbox / "below") is None
    assert identity(outbox.parent / "missing") is None


def exchange(path: Path) -> None:
    make(path.with_name("other"))
    path.with_name("other").replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "exchanged": exchange,
    "moved": lambda path: path.rename(path.with_name("moved")),
    "directory moved": lambda path: path.parent.rename(path.parent.with_name("moved")),
}


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("change", CHANGES)
def test_files_are_the_same_until_one_is_replaced(outbox: Path, change: str, which: int) -> None:
    pair = (outbox.parent / "d" / "outbox.db", outbox.parent / "d" / "outbox.db-wal")
    pair[0].parent.mkdir()
    for path in pair:
        make(path)
    whereabouts = Whereabouts(str(pair[0]))
    assert (whereabouts.database, whereabouts.wal) == (identity(pair[0]), identity(pair[1]))
    assert whereabouts.is_intact()
    CHANGES[change](pair[which])
    assert not whereabouts.is_intact()


@pytest.mark.parametrize("mask", UMASKS)
def test_lock_file_is_private_and_opens_again(unprivileged: Path, mask: int) -> None:
    path = unprivileged / "outbox.db.gate"
    with umask(mask):
        locks = [create_lock_file(path), create_lock_file(path)]
    for lock in locks:
        assert not os.get_inheritable(lock)
        assert os.pwrite(lock, b"pid", 0) == 3
        assert os.pread(lock, 3, 0) == b"pid"
        os.close(lock)
    assert mode(path) == 0o600


@pytest.mark.parametrize("problem", PLANTED)
def test_planted_lock_file_is_refused(outbox: Path, problem: str) -> None:
    PLANTED[problem](outbox)
    before = tree(outbox.parent)
    with pytest.raises(OutboxUnsafe, match=problem):
        create_lock_file(outbox)
    assert tree(outbox.parent) == before


@pytest.mark.parametrize("plant", [plant_link, plant_dangling_link, plant_hard_link, os.mkfifo])
def test_lock_file_planted_after_the_check_is_refused_without_a_leak(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], object]
) -> None:
    plant(outbox)
    monkeypatch.setattr(files, "_refuse_by", lambda *_: None)
    spare = os.dup(0)
    os.close(spare)
    with pytest.raises(OutboxUnsafe):
        create_lock_file(outbox)
    after = os.dup(0)
    os.close(after)
    assert after == spare
    assert not (outbox.parent / "not there").exists()


def test_lock_file_in_a_missing_directory_is_an_error(outbox: Path) -> None:
    with pytest.raises(OutboxError, match="No such file"):
        create_lock_file(outbox.parent / "missing" / "x.gate")


def test_free_bytes_are_those_of_the_user(outbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = os.statvfs(outbox.parent)
    monkeypatch.setattr(os, "statvfs", lambda _path: sizes)
    assert free_bytes(outbox) == sizes.f_bavail * sizes.f_frsize > 0


def test_free_bytes_of_a_missing_path_is_an_error(outbox: Path) -> None:
    with pytest.raises(OutboxError, match="No such file"):
        free_bytes(outbox)
