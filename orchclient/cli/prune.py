"""``orchclient prune``: delivered history goes, and, when asked, dead letters are given up for good."""

from __future__ import annotations

import click

from orchclient.cli.choosing import chosen_sinks
from orchclient.cli.duration import Duration
from orchclient.cli.opening import json_option, open_existing, outbox_path, settings_of
from orchclient.cli.output import age, emit, plural
from orchclient.delivery.clock import SystemClock
from orchclient.outbox import dead_letters, retention
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.dead_letters import Chosen
from orchclient.station import Station


@click.command("prune")
@click.option("--dead", "with_dead", is_flag=True, help="Give up dead letters, too: they count as expired then.")
@click.option(
    "--older-than", "age_s", type=Duration(), default="7d", show_default=True, help="Recorded, or dead, for so long."
)
@click.option("--to", "sink", metavar="NAME", help="Give up dead letters of one destination only.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Count, and change nothing.")
@json_option
@click.pass_context
def prune_command(
    ctx: click.Context, with_dead: bool, age_s: float, sink: str | None, is_dry: bool, as_json: bool
) -> None:
    """Forget what every destination has, and give up dead letters when asked to. Asks nothing, says what it did.

    Pending events always stay. A dead letter that is given up counts as expired, and stays itemised as such:
    orchclient list --state expired.

    \b
    Example: orchclient prune --dead --older-than 30d --dry-run
    """
    if sink and not with_dead:
        raise click.UsageError("--to goes with --dead: history is shared by all destinations", ctx)
    settings = settings_of(ctx)
    station = open_existing(settings)
    if station is None:
        text = f"Nothing to prune: no outbox yet at {outbox_path(settings)}."
        emit({"ok": True, "exists": False, "pruned": 0, "given_up": {}}, text, as_json=as_json)
        return
    before_us = SystemClock.now_us() - int(age_s * 1e6)
    try:
        rows = chosen_sinks([sink] if sink else [], station) if with_dead else []
        given_up = {row.name: _give_up(station, row, before_us, is_dry=is_dry) for row in rows}
        pruned = _forget(station, before_us, list(given_up), is_dry=is_dry)
    finally:
        station.close(0)
    document = {"ok": True, "exists": True, "dry_run": is_dry, "pruned": pruned, "given_up": given_up}
    emit(document, _text(pruned, given_up, age_s, is_dry=is_dry), as_json=as_json)


def _give_up(station: Station, row: SinkRow, before_us: int, *, is_dry: bool) -> int:
    chosen = Chosen(dead_before_us=before_us)
    if is_dry:
        return len(station.query(lambda con: dead_letters.dead_letters(con, row.name, chosen, 0, -1)))
    return dead_letters.give_up(station, row.name, chosen, SystemClock.now_us())


def _forget(station: Station, before_us: int, names: list[str], *, is_dry: bool) -> int:
    count = station.query(lambda con: retention.prunable_count(con, before_us, names))
    if is_dry:
        return count
    station.prune(before_us)
    return max(count - station.query(lambda con: retention.prunable_count(con, before_us, names)), 0)


def _text(pruned: int, given_up: dict[str, int], age_s: float, *, is_dry: bool) -> str:
    would, old = "would be " if is_dry else "", f"older than {age(age_s)}" if age_s else "of any age"
    lines = [f"{plural(count, 'dead letter')} for {name} {would}given up" for name, count in given_up.items()]
    lines.append(f"{plural(pruned, 'event')} {old} {would}forgotten")
    if any(given_up.values()) and not is_dry:
        lines.append("What was given up counts as expired: orchclient list --state expired")
    return "\n".join(lines)
