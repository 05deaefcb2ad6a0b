"""Whether a path still names the files that were opened by it.

SQLite in WAL mode does not notice when its files are removed or renamed: later commits go to a ghost. So somebody looks
after every commit, and the look must cost next to nothing. Knows names and what ``stat`` tells; opening a file would
drop SQLite's locks.
"""

from __future__ import annotations

import os
import time

from orchclient.outbox.files import FileIdentity

TIME_STEP_NS = 100_000_000
NEVER = (-1, -1)


class Whereabouts:
    """The database at ``path`` and its -wal as they are now, both of which exist. Raises ``OSError`` if not."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._wal_path = path + "-wal"
        self._directory = os.fsencode(os.path.dirname(path))  # as bytes: asked after every commit
        self._files = self._named_files()
        self._unchanged = NEVER

    @property
    def database(self) -> FileIdentity:
        """The file of the database, whatever the path names now."""
        _, ino, _, dev = self._files
        return FileIdentity(dev, ino)

    @property
    def wal(self) -> FileIdentity:
        """The file of the -wal."""
        ino, _, dev, _ = self._files
        return FileIdentity(dev, ino)

    def _named_files(self) -> tuple[int, int, int, int]:
        wal, database = os.lstat(self._wal_path), os.lstat(self._path)
        return wal.st_ino, database.st_ino, wal.st_dev, database.st_dev

    def is_intact(self) -> bool:
        """Whether the path still names these files.

        Any change of a name sets the directory's time, so one stat of the directory tells that there was none. The
        files themselves are looked at only when it changed: since Linux 6.13 a stat of the -wal makes the next write
        record a new time, and every fdatasync after it 70 microseconds slower.
        """
        try:
            directory = os.stat(self._directory)
            seen = directory.st_mtime_ns, directory.st_ino
            if seen == self._unchanged:
                return True
            is_intact = self._named_files() == self._files
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a disk with a bad moment tells nothing about names: the next commit looks again
            self._unchanged = NEVER
            return True
        # Older kernels set times in steps of up to 10 ms: two changes in one step look like one. A time to come is as
        # good as one long past: the clock was set back, and what happens now gets another time.
        self._unchanged = seen if is_intact and abs(time.time_ns() - seen[0]) > TIME_STEP_NS else NEVER
        return is_intact
