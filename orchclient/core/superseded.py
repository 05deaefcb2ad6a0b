"""Which progress updates, and repeats of an error, tell nothing that a later one does not tell again. Pure.

At a limit they are dropped for want of space (design, "Limits"). A change of status is history and stays; so does an
update with a piece of metadata that no later update of the run repeats. Of an incident its first error and its newest
stay: the newest tells how many there were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Told:
    """What one event tells of its task: its status and the names of its members; no status for any other event."""

    seq: int
    task: str
    status: str | None = None
    members: frozenset[str] = frozenset()


def told_by_update(seq: int, task: str, data: Mapping[str, Any]) -> Told:
    """What a status update tells, each piece of metadata by its own name."""
    metadata = data.get("metadata")
    names = {f"metadata.{name}" for name in metadata} if isinstance(metadata, Mapping) else set()
    status = data.get("status")
    return Told(seq, task, status if isinstance(status, str) else None, frozenset(names.union(data) - {"metadata"}))


def superseded(told: Sequence[Told]) -> list[int]:
    """The places of progress updates, rising, of which every member is told again later in the same run.

    A run is a task's consecutive updates with one status; its first one, the change, stays. ``told`` are events in
    the order of the journal, of all tasks; what is beyond its ends is not known, so the first of each task stays too.
    """
    later: dict[str, tuple[str, frozenset[str]]] = {}  # by task: the run's status, and what its later updates tell
    places = []
    for each, is_progress in zip(reversed(told), reversed(_progress(told)), strict=True):
        if each.status is None:
            later.pop(each.task, None)
            continue
        status, members = later.get(each.task, (each.status, frozenset()))
        if status != each.status:
            members = frozenset()
        if is_progress and each.members and each.members <= members:
            places.append(each.seq)
        else:
            later[each.task] = each.status, members | each.members
    return places[::-1]


def superseded_repeats(repeats: Sequence[tuple[int, str]]) -> list[int]:
    """The places of repeated errors, rising, of whose incident a later one is there.

    ``repeats`` are (place, id of the incident's first error), in the order of the journal.
    """
    newest = {first_id: seq for seq, first_id in repeats}
    return [seq for seq, first_id in repeats if seq != newest[first_id]]


def _progress(told: Sequence[Told]) -> list[bool]:
    """For each event whether it is an update that goes on with the status that its task had just before."""
    previous: dict[str, str | None] = {}
    found = []
    for each in told:
        found.append(each.status is not None and previous.get(each.task) == each.status)
        previous[each.task] = each.status
    return found
