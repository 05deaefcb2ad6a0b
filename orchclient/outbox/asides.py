"""Which files were ever set aside beside an outbox, and whether that was ended. Only names: seeing them is cheap."""

from __future__ import annotations

import os


def set_asides(path: str) -> list[str]:
    """The files that were set aside for the outbox ``path``, without their companions, oldest first."""
    directory, name = os.path.split(path)
    beginning = f"{name}.damaged-"
    with os.scandir(directory or ".") as entries:
        found = [entry.path for entry in entries if entry.name.startswith(beginning)]
    return sorted(each for each in found if not each.endswith(("-wal", "-shm")))


def note_path(path: str) -> str:
    """Where the note of the outbox ``path`` stands."""
    return path + ".owed"


def is_noted(path: str) -> bool:
    """Whether somebody began to set files aside and did not end it, or is at it."""
    return os.path.lexists(note_path(path))
