"""Which type of file system a path is on, and on which types an outbox cannot be trusted. Opens nothing but /proc."""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTINFO = "/proc/self/mountinfo"

# Types on which SQLite's locks, or the shared memory of a -wal, cannot be trusted; ``fuse.sshfs`` counts as ``fuse``,
# while ``fuseblk``, a local disk driven by FUSE, is a word of its own.
is_remote = re.compile(
    r"(?:nfs4?|cifs|smb[23]|smbfs|ncpfs|9p|virtiofs|fuse|ceph|afs|coda|lustre|gpfs|beegfs|glusterfs|orangefs|pvfs2"
    r"|panfs|gfs2?|ocfs2|acfs|davfs|drvfs|vboxsf|vmhgfs|prl_fs|fakeowner)(?:\..*)?"
).fullmatch


def kind_at(path: str) -> str:
    """The type of the file system of a canonical ``path``; ``""`` where it cannot be told."""
    return filesystem_type(path, _mounts())


def _mounts() -> bytes:
    try:
        return Path(_MOUNTINFO).read_bytes()
    except OSError:
        return b""  # no Linux, or no /proc: nothing can be told


def filesystem_type(path: str, mountinfo: bytes) -> str:
    """The type of the file system of a canonical ``path``, by the text of /proc/self/mountinfo; ``""`` if unknown.

    Field 5 is the mount point, with space, tab, newline and backslash as octal escapes; the type is the first field
    after a lone hyphen (proc_pid_mountinfo(5)). Of equal mount points the last one hides the others.
    """
    wanted = os.fsencode(path) + b"/"
    longest, kind = b"", b""
    for line in mountinfo.split(b"\n"):
        before, _, after = line.partition(b" - ")
        point = _unescaped(before.split(b" ")[4]).rstrip(b"/") + b"/" if after else b""
        if after and wanted.startswith(point) and len(point) >= len(longest):
            longest, kind = point, after.split(b" ")[0]
    return os.fsdecode(kind)


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes((int(octal[1], 8) & 0xFF,)), field)
