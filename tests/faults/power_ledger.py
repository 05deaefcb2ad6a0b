"""The ledger: what users of an outbox had been promised up to a moment, by the journal of what happened until then.

It hears the notes of the programs and the syncs of the disk, and knows nothing of what is in the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from attrs import define, evolve, field, frozen

from tests.faults import power_journal
from tests.faults.power_journal import Record

SECOND_S = 1.0


@frozen
class Told:
    """A call that returned, as its note has it."""

    id: str
    seq: int
    agent: str
    task: str
    told: Mapping[str, Any]


@define
class Ledger:
    """What was promised up to a moment."""

    outbox: str
    returned: list[Told] = field(factory=list)
    protected: set[str] = field(factory=set)  # ids that power loss may not take any more
    answered: dict[str, set[str]] = field(factory=dict)  # by event id: what the receiver said of it so far
    kept: list[dict[str, Any]] = field(factory=list)  # the events that the receiver has
    seen: set[str] = field(factory=set)  # found after an earlier cut, and so never to be lost again
    prunes: bool = False
    is_renumbered: bool = False  # files were taken away: events may have got new places
    is_damaged: bool = False  # somebody spoilt the database: it may be set aside, and nothing in it may be lost
    is_adrift: bool = False  # files were taken away, and no call has returned since
    _waiting: list[tuple[float, Told]] = field(factory=list)  # since when: progress that is not protected yet
    _late_s: float = 0.0
    _distrusts_syncs: bool = False  # one failed: what it dropped, the next one will not write

    def hear(self, record: Record, names: Iterable[str] = ()) -> None:
        """Take one more record in. ``names`` are those of the file that it is about."""
        self._count_seconds(record.monotonic_s)
        if record.what == power_journal.NOTE:
            note = record.note
            for kind, value in note.items():
                if kind in self._NOTES:
                    self._NOTES[kind](self, value)
            if "returned" in note:
                self._hear_return(Told(**note["returned"]), note["synced"], record.monotonic_s)
        elif record.what == power_journal.FAILED_SYNC:
            self._distrusts_syncs = True
        elif record.what == power_journal.SYNC and self._trusts_sync_of(names):
            self._protect(lambda told: True)

    def _trusts_sync_of(self, names: Iterable[str]) -> bool:
        return not (self.is_adrift or self._distrusts_syncs) and any(name.endswith("-wal") for name in names)

    def _hear_return(self, told: Told, synced: bool, now_s: float) -> None:
        if self.is_adrift:  # what the lost files held was brought into the new one, and that is synced
            self.is_adrift = False
            self.protected |= {each.id for each in self.returned}
        self.returned.append(told)
        self._waiting.append((now_s, told))
        if synced:  # and with it everything that was recorded before
            self._distrusts_syncs = False
            self._protect(lambda each: each.seq <= told.seq)

    def _count_seconds(self, now_s: float) -> None:
        """Progress is protected a second after its call returned, later by as much as the machine itself was late."""
        if self._waiting and not self.is_adrift and now_s - self._waiting[0][0] > SECOND_S + self._late_s:
            due = {told.id for since_s, told in self._waiting if now_s - since_s > SECOND_S + self._late_s}
            self._protect(lambda told: told.id in due)

    def _protect(self, which: Callable[[Told], bool]) -> None:
        self.protected |= {told.id for _, told in self._waiting if which(told)}
        self._waiting = [(since_s, told) for since_s, told in self._waiting if not which(told)]

    def _hear_answers(self, answers: dict[str, str]) -> None:
        for id_, status in answers.items():
            self.answered.setdefault(id_, set()).add(status)

    def _hear_kept(self, events: list[dict[str, Any]]) -> None:
        self.kept += events

    def _hear_loss(self, how: str) -> None:
        """Files were taken away: nothing can be asked of power loss until a call has returned again."""
        self.is_renumbered = self.is_adrift = True
        self.protected, self._waiting = set(), []

    def _hear_damage(self, is_damaged: bool) -> None:
        self.is_renumbered = self.is_damaged = is_damaged

    def _hear_outbox(self, path: str) -> None:
        self.outbox, self.returned, self.protected, self._waiting = path, [], set(), []

    def _hear_seen(self, ids: list[str]) -> None:
        self.seen = set(ids)

    def _hear_prunes(self, prunes: bool) -> None:
        self.prunes = prunes

    def _hear_lateness(self, late_s: float) -> None:
        self._late_s = max(self._late_s, late_s)

    _NOTES: Mapping[str, Callable[[Ledger, Any], None]] = {
        "answered": _hear_answers,
        "kept": _hear_kept,
        "files_taken": _hear_loss,
        "file_damaged": _hear_damage,
        "outbox": _hear_outbox,
        "seen": _hear_seen,
        "prunes": _hear_prunes,
        "machine_late_s": _hear_lateness,
    }

    def after_a_cut(self, outbox: str) -> Ledger:
        """What is left of the promises when the power went: whatever waited for its second may be gone."""
        return evolve(self.snapshot(), outbox=outbox, waiting=[])

    def snapshot(self) -> Ledger:
        """This moment's ledger, which later records do not change."""
        answered = {id_: set(statuses) for id_, statuses in self.answered.items()}
        own = {"returned": list(self.returned), "protected": set(self.protected), "waiting": list(self._waiting)}
        return evolve(self, answered=answered, kept=list(self.kept), **own)
