"""Which files were ever set aside beside an outbox. Only their names: whoever looks at a host must see them at once."""

from __future__ import annotations

import os


def set_asides(path: str) -> list[str]:
    """The files that were set aside for the outbox ``path``, without their companions, oldest first."""
    directory, name = os.path.split(path)
    beginning = f"{name}.damaged-"
    with os.scandir(directory or ".") as entries:
        found = [entry.path for entry in entries if entry.name.startswith(beginning)]
    return sorted(each for each in found if not each.endswith(("-wal", "-shm")))
