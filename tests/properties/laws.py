"""What must hold after every step, whatever happened: the promises, held against the file and what was seen of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define, field

from orchclient.core.task_state import TaskState
from orchclient.core.timestamps import rfc3339
from orchclient.outbox import cursors
from orchclient.outbox.cursors import SinkRow
from orchclient.reporting import SinkReport

from .sayings import AGENTS, TASKS, TaskModel
from .world import SINKS, World

COUNTED = {
    "task.status.v1": "updates_sent",
    "clarification.requested.v1": "clarifications_requested",
    "task.completed.v1": "completions_reported",
    "error.escalated.v1": "errors_escalated",
}


@define
class File:
    """What the file holds, read with a connection of the test's own."""

    version: tuple[int, ...] = ()
    journal: tuple[int, ...] = ()  # what tasks and tallies depend on
    said: int = 0
    events: dict[int, str] = field(factory=dict)
    sinks: list[SinkRow] = field(factory=list)
    desk: dict[str, dict[int, str]] = field(factory=dict)
    lanes: dict[str, dict[str, int]] = field(factory=dict)
    notes: set[int] = field(factory=set)


class Laws:
    """The laws of one world. What did not change since the last look is not looked at again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._file = File()

    def hold(self) -> None:
        """Raises ``AssertionError`` with the first breach."""
        self._orchestrators_saw_no_breach()
        self._world.hear_notices()
        before, self._file = self._file, self._look()
        if self._file.version == before.version:
            return
        self._nothing_is_lost_or_invented()
        self._every_count_adds_up()
        if self._file.journal != before.journal:
            journal = self._world.model.journal
            spoken_of = {each.task for each in journal[before.said :]}
            self._each_task_is_what_was_said_of_it(spoken_of | {TASKS[len(journal) % len(TASKS)]})
            self._each_agent_is_told_what_it_said(AGENTS[len(journal) % len(AGENTS)])

    def hold_at_rest(self) -> None:
        """In a healed world everything that is not dead is delivered."""
        self.hold()
        self._each_task_is_what_was_said_of_it(set(TASKS))
        for agent in AGENTS:
            self._each_agent_is_told_what_it_said(agent)
        self._each_gap_was_told()
        for row in self._file.sinks:
            assert row.cursor == len(self._world.model.journal), f"{row.name} stands at {row.cursor}"
            assert not row.parked, f"{row.name} keeps {row.parked} events at its desk"

    def _look(self) -> File:
        """The file as it is now; the same as before when nobody wrote to it."""
        said = len(self._world.model.journal)
        version = self._world.host.lives, self._rows("PRAGMA data_version")[0][0], said
        if version == self._file.version:
            return self._file
        events = dict(self._rows("SELECT seq, id FROM events"))
        ((folded_seq,),) = self._rows("SELECT value FROM meta WHERE key = 'folded_seq'")
        return File(
            version,
            (self._world.host.lives, said, len(events), folded_seq),
            said,
            events,
            cursors.sinks(self._world.host.reader),
            {name: dict(self._rows("SELECT seq, state FROM work WHERE sink = ?", name)) for name in SINKS},
            {name: dict(self._rows("SELECT task, parked FROM lanes WHERE sink = ?", name)) for name in SINKS},
            {note for (note,) in self._rows("SELECT note FROM own")},
        )

    def _rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._world.host.reader.execute(statement, values).fetchall()

    # --- the laws -------------------------------------------------------------------------------------------------

    def _orchestrators_saw_no_breach(self) -> None:
        for name, orchestrator in self._world.orchestrators.items():
            assert not orchestrator.breaches, f"{name}: {orchestrator.breaches[0]}"

    def _nothing_is_lost_or_invented(self) -> None:
        model, file = self._world.model, self._file
        for seq, id_ in file.events.items():
            assert model.journal[seq - 1 : seq], f"nobody said {seq}"
            assert model.journal[seq - 1].id == id_, f"{seq} is another event"
        if model.journal:
            assert len(model.journal) in file.events, "the newest event is gone: its sequence will come again"
        assert file.notes == model.notes, "a transaction came apart: the caller's rows are not those of its events"
        for row in file.sinks:
            self._nothing_is_lost_for(row)

    def _nothing_is_lost_for(self, row: SinkRow) -> None:
        orchestrator, at_desk = self._world.orchestrators[row.name], self._file.desk[row.name]
        for each in self._world.model.journal[row.start_seq :]:
            if each.seq in self._world.model.gaps[row.name]:
                continue  # pruned before this destination came
            state = "pending" if each.seq > row.cursor else at_desk.get(each.seq, "delivered")
            if state == "delivered":
                assert each.id in orchestrator.kept, f"{row.name}: {each.seq} counts as delivered and is lost"
            else:
                assert each.seq in self._file.events, f"{row.name}: {each.seq} is {state} and gone"
            if state == "dead":
                assert each.id in orchestrator.refused, f"{row.name}: {each.seq} is dead and was never refused"

    def _each_gap_was_told(self) -> None:
        """A receiver hears of every event that will not come, and of no other."""
        journal = self._world.model.journal
        told = {seq for each in journal if each.is_notice for seq in each.missing}
        refused = set.union(*(orchestrator.refused for orchestrator in self._world.orchestrators.values()))
        pruned = set.union(*self._world.model.gaps.values())
        for seq in told - pruned:
            assert journal[seq - 1].id in refused, f"{seq} was told to be missing, and nobody refused it"
        for row in self._file.sinks:
            expired = {seq for seq in self._world.model.gaps[row.name] if seq > row.start_seq}
            dead = {seq for seq, state in self._file.desk[row.name].items() if state == "dead"}
            silent = {seq for seq in dead | expired if seq not in told and not journal[seq - 1].is_notice}
            assert not silent, f"{row.name}: nobody was told of {silent}"

    def _every_count_adds_up(self) -> None:
        report = self._world.host.client(0).health()
        assert report.recorded == len(self._world.model.journal), f"recorded is {report.recorded}"
        for row, told in zip(self._file.sinks, report.sinks, strict=True):
            self._counts_add_up(row, told)

    def _counts_add_up(self, row: SinkRow, told: SinkReport) -> None:
        journal, at_desk = self._world.model.journal, self._file.desk[row.name]
        counted = Counter(at_desk.values())
        counted["expired"] = sum(row.start_seq < seq <= row.cursor for seq in self._world.model.gaps[row.name])
        counted["pending"] = len(journal) - row.cursor + counted["parked"]
        counted["delivered"] = row.cursor - row.start_seq - len(at_desk) - counted["expired"]
        for state in ("parked", "dead", "expired", "pending", "delivered"):
            assert getattr(told, state) == counted[state] >= 0, f"{row.name} tells {told}, counted {counted}"
        total = told.delivered + told.pending + told.dead + told.expired
        assert len(journal) - row.start_seq == total, f"{row.name} tells {told}"
        parked = Counter(journal[seq - 1].task for seq, state in at_desk.items() if state == "parked")
        assert self._file.lanes[row.name] == parked, f"{row.name}: lanes are {self._file.lanes}, counted {parked}"

    def _each_task_is_what_was_said_of_it(self, asked: set[str]) -> None:
        tasks = self._world.model.tasks()
        for task in asked:
            state = self._world.host.client(0).task_state(task)
            told = _told(state) if state else None
            assert told == tasks.get(task), f"{task} is told as {told}, said was {tasks.get(task)}"

    def _each_agent_is_told_what_it_said(self, agent: str) -> None:
        said = [each for each in self._world.model.journal if each.agent == agent and not each.is_notice]
        stats = self._world.host.stats(agent)
        counts = Counter(COUNTED[each.saying.type] for each in said)
        for name in COUNTED.values():
            assert stats[name] == counts[name], f"{agent}: {name} is {stats[name]}, said were {counts[name]}"
        last_us = max((each.recorded_us for each in said), default=None)
        last = None if last_us is None else rfc3339(last_us)
        assert stats["last_communication"] == last, f"{agent}: {stats['last_communication']}, not {last}"


def _told(state: TaskState) -> TaskModel:
    """What a client tells of a task, in the words of the model."""
    return TaskModel(
        state.agent_id, state.status, state.progress_percentage, state.current_step, dict(state.metadata), state.seq
    )
