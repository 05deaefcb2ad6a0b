"""``orchclient retry``: dead letters become pending again, each in its task's order."""

from __future__ import annotations

import click
from attrs import asdict, frozen

from orchclient.cli import completion
from orchclient.cli.choices import sink_option
from orchclient.cli.choosing import chosen_events, chosen_sinks, what_follows
from orchclient.cli.duration import Since
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import ExitCode, emit, plural, printable
from orchclient.core.errors import OutboxError
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import dead_letters, leadership
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.dead_letters import Chosen, Retried
from orchclient.outbox.listing import Listed
from orchclient.station import Station


@frozen
class Selection:
    """What the operator named: events, or a task, or all; of them those that became dead since an instant."""

    events: tuple[Listed, ...]
    task: str | None
    since_us: int

    def chosen(self) -> list[Chosen]:
        """As the store understands it."""
        if self.events:
            seqs = [each.entry.seq for each in self.events]
            return [Chosen(self.task, seq, seq, dead_since_us=self.since_us) for seq in seqs]
        return [Chosen(self.task, dead_since_us=self.since_us)]

    @property
    def words(self) -> str:
        """For a message."""
        if self.events:
            return ", ".join(each.entry.id for each in self.events)
        return f"task {self.task}" if self.task else "any task"


@click.command("retry")
@click.argument("event_ids", nargs=-1, metavar="[ID]...", shell_complete=completion.events)
@click.option("--all", "is_all", is_flag=True, help="Every dead letter.")
@sink_option("Only those of one destination.")
@click.option("--task", metavar="ID", help="Only those of one task.", shell_complete=completion.tasks)
@click.option("--since", type=Since(), metavar="WHEN", help="Dead since then: 2h, 3d, or 2026-11-25T03:00.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Count, and change nothing.")
@json_option
@click.pass_context
def retry_command(
    ctx: click.Context,
    event_ids: tuple[str, ...],
    is_all: bool,
    sink: str | None,
    task: str | None,
    since: int | None,
    is_dry: bool,
    as_json: bool,
) -> int:
    """Send dead letters again, once what they were refused for is mended.

    They wait for their turn in their task's order, and whoever delivers is woken; orchclient flush waits for the
    result. An event that is refused again is dead again, with its attempts counted on. Any unique beginning of an id
    will do. Exit code 1: no dead letter was meant by it, or one of the ids is not dead.

    \b
    Examples: orchclient retry --all
              orchclient retry --since 2h --to slack
              orchclient retry 01a20631 --to orchestrator
    """
    if not (event_ids or is_all or task or sink or since is not None):
        what = "say which dead letters: ids, --task, --to, --since or --all; orchclient list --state dead"
        raise click.UsageError(what, ctx)
    if event_ids and is_all:
        raise click.UsageError("either ids or --all", ctx)
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        raise OutboxError(f"nothing to retry: there is no outbox yet at {outbox_path(settings)}")
    try:
        rows = chosen_sinks([sink] if sink else [], station)
        selection = Selection(tuple(chosen_events(event_ids, station)), task, since or 0)
        alive = [each for each in selection.events if not _is_dead(each, rows)]
        done = _counted(station, rows, selection) if is_dry else _retried(station, rows, selection)
        text = _text(station, done, alive, rows, is_dry=is_dry)
    finally:
        station.close(0)
    events = sum(each.events for each in done.values())
    if not events:
        raise OutboxError(_nothing(selection, alive, rows))
    code = ExitCode.ERROR if alive else ExitCode.DONE
    document = {
        "ok": code == ExitCode.DONE,
        "dry_run": is_dry,
        "retried": events,
        "destinations": {name: asdict(each) for name, each in done.items()},
        "not_dead": [each.entry.id for each in alive],
    }
    emit(document, text, as_json=as_json)
    return code


def _is_dead(each: Listed, rows: list[SinkRow]) -> bool:
    return any(each.fates[row.name].state == "dead" for row in rows if row.name in each.fates)


def _counted(station: Station, rows: list[SinkRow], selection: Selection) -> dict[str, Retried]:
    done = {}
    for row in rows:
        total = Retried()
        for chosen in selection.chosen():
            total += dead_letters.count(station, row.name, chosen)
        if total.events or total.gone:
            done[row.name] = total
    return done


def _retried(station: Station, rows: list[SinkRow], selection: Selection) -> dict[str, Retried]:
    now_us, done = SystemClock.now_us(), {}
    for row in rows:
        total = Retried()
        for chosen in selection.chosen():
            total += dead_letters.retry(station, row.name, chosen, now_us)
        if total.events or total.gone:
            done[row.name] = total
    if done:
        station.write(leadership.nudge)
    return done


def _text(station: Station, done: dict[str, Retried], alive: list[Listed], rows: list[SinkRow], *, is_dry: bool) -> str:
    lines = []
    for name, each in done.items():
        lines.append(f"{name}  {plural(each.events, 'dead event')} {'would be ' if is_dry else ''}pending again")
        if each.gone:
            lines.append(f"{name}  {plural(each.gone, 'dead letter')} cannot be sent: the event is lost from the file")
        if not is_dry:
            lines.append(what_follows(station, name))
    lines += [f"Not dead: {each.entry.id} ({_fates(each, rows)})" for each in alive]
    return "\n".join(lines)


def _nothing(selection: Selection, alive: list[Listed], rows: list[SinkRow]) -> str:
    if alive:
        return "not dead: " + "; ".join(f"{each.entry.id} is {_fates(each, rows)}" for each in alive)
    where = f" for {rows[0].name}" if len(rows) == 1 else ""
    whose = f" of {printable(selection.words)}" if selection.events or selection.task else ""
    whose += " since then" if selection.since_us else ""
    return f"nothing to retry: no dead letters{whose}{where}; see orchclient list --state dead"


def _fates(each: Listed, rows: list[SinkRow]) -> str:
    told = [f"{each.fates[row.name].state} at {row.name}" for row in rows if row.name in each.fates]
    return ", ".join(told) or "waiting for a destination"
