"""Guards the paths of an outbox: makes them private, and refuses what others could reach.

Must not know what is inside the files. The database, its -wal and its -shm are looked at by ``stat`` only: when a
process closes any descriptor of a file, POSIX drops all locks that the process holds on it, SQLite's too
(sqlite.org/howtocorrupt.html, section 2.2).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from orchclient.core.errors import ConfigError, OutboxError, OutboxUnsafe
from orchclient.outbox import filesystems

_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_LONGEST_NAME = 255

Rule = tuple[Callable[[os.stat_result], bool], type[OutboxError], str]

# (offends, error, what is wrong and the cure); the first rule that offends is told.
_FILE_RULES: tuple[Rule, ...] = (
    (
        lambda info: stat.S_ISLNK(info.st_mode),
        OutboxUnsafe,
        "is a symbolic link: remove it, or set `outbox` to the file it points to",
    ),
    (lambda info: stat.S_ISDIR(info.st_mode), OutboxError, "is a directory: set `outbox` to a file in it"),
    (
        lambda info: not stat.S_ISREG(info.st_mode),
        OutboxUnsafe,
        "is not a regular file: remove it, or set `outbox` to another path",
    ),
    (
        lambda info: info.st_nlink > 1,
        OutboxUnsafe,
        "has {nlink} names (hard links): remove the others (find -samefile), or copy it to a name of its own",
    ),
    (
        # Root is no exception: the files that it makes beside this one would lock the owner out.
        lambda info: info.st_uid != os.geteuid(),
        OutboxUnsafe,
        "belongs to user {uid}, not to {us}: run as that user, or set `outbox` to a path of your own",
    ),
    (
        lambda info: bool(info.st_mode & 0o077),
        OutboxUnsafe,
        "can be opened by other users (mode {mode:04o}): chmod 600 it; they may have read what it holds",
    ),
    (
        # An empty one may just be in the making, under a umask that takes the owner's bits too.
        lambda info: info.st_size > 0 and info.st_mode & _FILE_MODE != _FILE_MODE,
        OutboxError,
        "cannot be read and written by its owner (mode {mode:04o}): chmod 600 it",
    ),
)
_PRIVATE = "set `outbox` to a path in a directory of your own; a missing one is made with mode 0700"
_DIRECTORY_RULES: tuple[Rule, ...] = (
    (lambda info: not stat.S_ISDIR(info.st_mode), OutboxError, f"is not a directory: {_PRIVATE}"),
    (
        # Root's is fine: root could read everything anyway.
        lambda info: info.st_uid not in (os.geteuid(), 0),
        OutboxUnsafe,
        "belongs to user {uid}, not to {us}, who could exchange the outbox: " + _PRIVATE,
    ),
    (
        # The sticky bit keeps others from exchanging our files, but not from planting a -wal before SQLite does.
        lambda info: bool(info.st_mode & 0o022 and info.st_mode & stat.S_ISVTX),
        OutboxUnsafe,
        "is shared with other users (mode {mode:04o}), as /tmp is: name a private directory below it, such as "
        "{path}/my-agent/outbox.db; a missing one is made with mode 0700",
    ),
    (
        lambda info: bool(info.st_mode & 0o022),
        OutboxUnsafe,
        "can be written by other users (mode {mode:04o}): chmod go-w it, or " + _PRIVATE,
    ),
)
_NO_RIGHT = "its directory must be yours to write, and all above it yours to enter"
_CURES: dict[int, tuple[type[OutboxError], str]] = {
    errno.EACCES: (OutboxError, _NO_RIGHT),
    errno.EPERM: (OutboxError, _NO_RIGHT),
    errno.EROFS: (OutboxError, "mount the file system for writing"),
    errno.ENOSPC: (OutboxError, "free some space"),
    errno.EDQUOT: (OutboxError, "free some of your quota"),
    errno.EIO: (OutboxError, "check the disk"),
    errno.EMFILE: (OutboxError, "raise this process's limit of open files"),
    errno.ENOTDIR: (OutboxError, "a part of it is a file where a directory must be"),
    errno.ENAMETOOLONG: (OutboxError, "give a shorter name"),
    errno.ELOOP: (OutboxUnsafe, "remove the symbolic link"),
}


class Companions(NamedTuple):
    """The files beside the database: two of SQLite's, two locks of ours, and what it is known to have held."""

    wal: Path
    shm: Path
    gate: Path
    flusher: Path
    mark: Path


class FileIdentity(NamedTuple):
    """Which file it is, whatever its name: two paths with one identity are one file."""

    dev: int
    ino: int


def companions(path: Path) -> Companions:
    """The paths of the files that stand beside the outbox ``path``, whether they exist or not."""
    endings = ("-wal", "-shm", ".gate", ".flusher", ".mark")
    return Companions(*(path.with_name(path.name + ending) for ending in endings))


def prepare(path: Path, *, allow_network: bool = False) -> Path:
    """The canonical path of an outbox that is safe to open; what was missing exists afterwards.

    Missing directories are made with mode 0700 and the file with 0600 under any umask, and their names survive power
    loss; what exists is not changed. Nothing is made when the path is refused. Raises ``ConfigError`` for a text that
    names no file; ``OutboxUnsafe`` for links, foreign owners, open permissions and network file systems
    (``allow_network`` permits these); ``OutboxError`` for what the operating system refuses.
    """
    _refuse_no_name(path)
    with translated(path):
        canonical = Path(os.path.realpath(path.parent), path.name)
        _refuse_long_name(canonical)
        if not allow_network:
            _refuse_network(canonical)
        _refuse_unsafe(canonical)
        _make_directories(canonical.parent)
        _make_file(canonical)
        _refuse_unsafe(canonical)  # again: somebody may have been quicker
        _sync_new_names(canonical)
    return canonical


def inspected(path: Path, *, allow_network: bool = False) -> Path:
    """The canonical path of an outbox that exists and is safe to open; nothing is made. Raises as ``prepare`` does."""
    _refuse_no_name(path)
    with translated(path):
        canonical = Path(os.path.realpath(path.parent), path.name)
        if not allow_network:
            _refuse_network(canonical)
        _refuse_unsafe(canonical)
    return canonical


def _refuse_no_name(path: Path) -> None:
    try:
        names_file = path.name not in ("", "..") and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        names_file = False
    if not names_file:
        raise ConfigError(f"outbox: {str(path)!r} names no file: give a path such as /home/me/agent/outbox.db")


def _refuse_long_name(path: Path) -> None:
    names = (*path.parts, companions(path).flusher.name)
    if any(len(os.fsencode(name)) > _LONGEST_NAME for name in names):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _refuse_network(path: Path) -> None:
    kind = filesystems.kind_at(str(path))
    if filesystems.is_remote(kind):
        raise OutboxUnsafe(
            f"{path} is on a file system of type {kind}, where SQLite's locks cannot be trusted: set `outbox` to a "
            "path on a local disk, or `allow_network_filesystem` to true if one host alone uses the file"
        )


def _refuse_unsafe(path: Path) -> None:
    """Nothing for what is missing: it will be made."""
    _refuse_by(_DIRECTORY_RULES, path.parent)
    for file in (path, path.with_name(path.name + "-journal"), *companions(path)):
        _refuse_by(_FILE_RULES, file)


def _refuse_by(rules: tuple[Rule, ...], path: Path) -> None:
    with suppress(FileNotFoundError):
        _refuse(rules, path, os.lstat(path))


def _refuse(rules: tuple[Rule, ...], path: Path, info: os.stat_result) -> None:
    mode, facts = stat.S_IMODE(info.st_mode), {"nlink": info.st_nlink, "uid": info.st_uid, "us": os.geteuid()}
    for offends, error, problem in rules:
        if offends(info):
            raise error(f"{path} {problem.format(path=path, mode=mode, **facts)}")


def _make_directories(directory: Path) -> None:
    missing = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(path, _DIRECTORY_MODE)
            _widen(path, _DIRECTORY_MODE)
            sync_directory(path.parent)


def _make_file(path: Path) -> None:
    """By mknod, which follows no link and leaves no descriptor.

    With open(O_EXCL), another thread could see the new file, open it with SQLite and lock it before the descriptor
    is closed here: the close would drop those locks.
    """
    with suppress(FileExistsError):
        try:
            os.mknod(path, _FILE_MODE | stat.S_IFREG)
        except PermissionError:
            _make_file_by_descriptor(path)
        _widen(path, _FILE_MODE)


def _make_file_by_descriptor(path: Path) -> None:
    """For systems that leave mknod to root (BSD, macOS) or file systems without it (vfat).

    Only a file that did not exist is ever opened, so that SQLite cannot have held it before.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDWR, _FILE_MODE))


def _sync_new_names(path: Path) -> None:
    """Of a file in the making, whoever makes it: another process may have made its name and not synced it yet.

    Of the directories above, only the last one can be in that state: each is synced before the next one is made. The
    name of the -wal is synced by SQLite.
    """
    if os.lstat(path).st_size == 0:
        sync_directory(path.parent.parent)
        sync_directory(path.parent)


def sync_directory(directory: str | Path) -> None:
    """Make the names in a directory survive power loss, where the file system has a way to.

    fsync(2), "Notes": a file's own fsync does not make its name durable. A directory that may be entered but not read
    cannot be opened for it, and some file systems refuse it: these are left to their own order of writing.
    """
    with suppress(PermissionError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
                raise
        finally:
            os.close(descriptor)


def _widen(path: Path, mode: int) -> None:
    """Give back what the umask took from a path that we have just made; the umask itself belongs to all threads."""
    if os.lstat(path).st_mode & mode != mode:
        os.chmod(path, mode)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """The operating system's errors as ours, with the path and the cure, and the cause kept."""
    try:
        yield
    except OSError as error:
        kind, cure = _CURES.get(error.errno or 0, (OutboxError, "check the path"))
        reason = f"{path} cannot be used as outbox: {error.strerror or error}"
        raise kind(f"{reason}: {cure}, or set another path (`outbox`, ORCHCLIENT_DB)") from error


def create_lock_file(path: Path) -> int:
    """A descriptor, for reading and writing, of the lock file ``path``, which is made with mode 0600 if missing.

    The caller owns it. It is not inherited by programs that are started. Raises ``OutboxUnsafe`` for anything but a
    regular file of ours that nobody else can open, and ``OutboxError`` for what the operating system refuses.
    """
    with translated(path):
        _refuse_by(_FILE_RULES, path)  # before the open, which would have effects on a device
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE)
        try:
            info = os.fstat(lock)
            _refuse(_FILE_RULES, path, info)
            if info.st_mode & _FILE_MODE != _FILE_MODE:
                os.fchmod(lock, _FILE_MODE)
        except BaseException:
            os.close(lock)
            raise
    return lock


def identity(path: str | Path) -> FileIdentity | None:
    """Which file stands at ``path`` itself, a link not followed; None if none can be seen."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return FileIdentity(info.st_dev, info.st_ino)


_WAL_HEADER, _FRAME_HEADER = 32, 24


def write_again(wal_path: str) -> None:
    """Write every byte of a -wal a second time where it is, and sync it. The caller holds the gate alone.

    The one file of SQLite's that may be opened: its locks are on the database and the -shm, never on the -wal
    (sqlite.org/walformat.html, section 2.3), so that closing a descriptor drops none. Frame by frame, as SQLite wrote
    it: a frame that is on the disk is written with the bytes that it has. Raises ``OSError``.
    """
    wal = os.open(wal_path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        header = os.pread(wal, _WAL_HEADER, 0)
        os.pwrite(wal, header, 0)
        size, place = _FRAME_HEADER + int.from_bytes(header[8:12]), len(header)
        while frame := os.pread(wal, size, place):
            place += os.pwrite(wal, frame, place)
        os.fsync(wal)
    finally:
        os.close(wal)


def free_bytes(path: Path) -> int:
    """Bytes that this user can still write on the file system of ``path``, an existing file or directory.

    Quotas do not show. Raises ``OutboxError`` if it cannot be told.
    """
    with translated(path):
        system = os.statvfs(path)
    return system.f_bavail * system.f_frsize
