"""Chat destinations: what people see on the doubles, whatever happens on the way, and that nothing goes uncounted."""

from __future__ import annotations

import gc
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from attrs import evolve

from orchclient import OrchestratorClient
from orchclient.core.events import Event, NotificationPriority
from orchclient.core.http import HttpOutcome, HttpReply
from orchclient.core.ids import uuid7
from orchclient.core.noise import NoiseRules
from orchclient.core.policy import Action, Verdict
from orchclient.core.reminders import Waiting
from orchclient.core.schedule import Schedule
from orchclient.core.secret import Secret
from orchclient.core.telling import Told
from orchclient.delivery.clock import SystemClock
from orchclient.delivery.reminding import Reminding
from orchclient.outbox import cursors, journal, posts
from orchclient.outbox.cursors import SinkRow
from orchclient.reporting import Delivered
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.escalation import only_escalated
from orchclient.sinks.slack import SlackSink
from orchclient.testing import DiscordDouble, Fault, SlackDouble
from orchclient.testing.services import discord_error, discord_too_fast
from tests.conftest import MakeClient

SOON_S = 20.0
OFTEN = NoiseRules(speaks_every_s=0.0)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """What a test started has ended before the next one begins: others count open files."""
    yield
    gc.collect()
    assert until(lambda: not any(each.name.startswith(("orchclient-", "receiver-")) for each in threading.enumerate()))


def discord(service: DiscordDouble, rules: NoiseRules = OFTEN, **settings: Any) -> DiscordSink:
    return DiscordSink(Secret(service.webhook_url), rules=rules, **settings)


def slack(service: SlackDouble, rules: NoiseRules = OFTEN) -> SlackSink:
    return SlackSink(Secret(service.webhook_url), rules=rules)


def books(client: OrchestratorClient) -> tuple[int, int, int]:
    """Delivered, pending and dead; with expired they are what was recorded since the sink came."""

    def read(con: sqlite3.Connection) -> tuple[SinkRow, int, int]:
        (row,) = cursors.sinks(con)
        parked = con.execute("SELECT count(*) FROM work WHERE state = 'parked'").fetchone()[0]
        owed = con.execute("SELECT count(*) FROM posts WHERE seq IS NOT NULL AND is_owed").fetchone()[0]
        lanes = con.execute("SELECT coalesce(sum(parked), 0) FROM lanes").fetchone()[0]
        assert row.parked == parked == owed + lanes
        return row, row.pending(journal.last_seq(con)), journal.last_seq(con)

    sink, pending, last_seq = client._station.query(read)
    assert sink.delivered + pending + sink.dead + sink.expired == last_seq - sink.start_seq
    assert min(sink.delivered, pending, sink.dead, sink.expired) >= 0
    return sink.delivered, pending, sink.dead


def until(done: Callable[[], bool]) -> bool:
    ends = time.monotonic() + SOON_S
    while not done():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def texts(service: DiscordDouble | SlackDouble) -> list[str]:
    return [shown.text.replace("\\", "") for shown in service.shown]


def test_a_task_has_one_message_that_is_edited_in_place(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        for percent in (10, 50, 90):
            client.update_task_status("task-1", "in_progress", progress_percentage=percent)
            assert client.flush(SOON_S)
        assert len(service.shown) == 1
        assert "90 %" in texts(service)[0]
        assert len(service.shown[0].edited_s) >= 1
        assert books(client) == (3, 0, 0)


def test_progress_waits_for_its_turn_and_what_asks_for_a_person_does_not(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service, NoiseRules(speaks_every_s=3600))])
        client.update_task_status("task-1", "in_progress", progress_percentage=1)
        assert client.flush(SOON_S)
        for percent in range(2, 20):
            client.update_task_status("task-1", "in_progress", progress_percentage=percent)
        client.request_clarification("task-1", ["Which one?"])
        flushed = client.flush(SOON_S)
        assert flushed  # what waits for its turn is not due
        assert (flushed.pending, flushed.held, flushed.due) == (1, 1, 0)
        assert client._station.flush(SOON_S, task="task-1").held == 1
        assert client._station.flush(SOON_S, task="another") == evolve(
            flushed, destinations={"discord": Delivered(0, 0, 0, "delivering")}, seconds=ANY
        )
        assert [shown.edited_s for shown in service.shown] == [[], []]
        assert "Which one?" in texts(service)[1]
        assert books(client) == (19, 1, 0)


def test_a_backlog_after_an_outage_is_one_message_per_task_with_a_count(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        offline = make_client(sinks=[discord(service)], mode="offline")
        first = make_client(sinks=[discord(service)])
        first.update_task_status("t0", "assigned")
        assert first.flush(SOON_S)
        first.close()
        for number in range(600):
            offline.update_task_status(f"t{number % 3}", "in_progress", progress_percentage=number / 6)
        offline.close()
        client = make_client(sinks=[discord(service)])
        assert client.flush(SOON_S)
        assert len(service.shown) == 3
        assert "The newest of 200 updates" in texts(service)[1] + texts(service)[2]
        assert books(client) == (601, 0, 0)


def test_an_error_that_comes_again_is_counted_in_its_message(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        for _ in range(3):
            client.escalate_error("t", "flaky", "down again", 1, fatal=False, dedup_key="db")
            assert client.flush(SOON_S)
        assert len(service.shown) == 1
        assert "(3 times)" in texts(service)[0]


def test_a_question_that_is_withdrawn_is_struck_where_it_was_asked(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service, public_url="https://answers.example")])
        asked = client.request_clarification("t", ["Which one?"])
        assert client.flush(SOON_S)
        assert f"https://answers.example/q/{asked.id}" in texts(service)[0]
        asked.withdraw("found it")
        assert client.flush(SOON_S)
        assert len(service.shown) == 1
        assert "nothing is needed any more" in texts(service)[0]


def test_a_completed_task_is_not_shown_as_one_at_work(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        client.update_task_status("t", "in_progress", progress_percentage=98)
        assert client.flush(SOON_S)
        client.report_completion("t", None, {"tests_passed": 3})
        assert client.flush(SOON_S)
        assert until(lambda: all("completed t" in text for text in texts(service)))
        assert len(service.shown) == 2
        assert books(client) == (2, 0, 0)


def test_a_message_that_a_person_deleted_is_posted_anew(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        client.update_task_status("t", "in_progress", progress_percentage=1)
        assert client.flush(SOON_S)
        service.delete(service.shown[0])
        client.update_task_status("t", "in_progress", progress_percentage=2)
        client.flush(SOON_S)
        assert until(lambda: any("2 %" in text for text in texts(service)))
        assert until(lambda: books(client) == (2, 0, 0))


def test_a_refused_rendering_is_told_as_plain_text(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        service.plan(discord_error(400, 50035, "Invalid Form Body"))
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "odd", "markup", 1)
        assert client.flush(SOON_S)
        assert "markup" in service.shown[0].payload["content"]
        assert books(client) == (1, 0, 0)


def test_what_is_refused_twice_is_a_dead_letter_that_can_be_retried(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        service.plan(*[discord_error(400, 50035, "Invalid Form Body")] * 2)
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "odd", "again please", 1)
        client.flush(SOON_S)
        assert until(lambda: books(client) == (0, 0, 1))
        _retry(client)
        assert until(lambda: books(client) == (1, 0, 0))
        assert "again please" in texts(service)[0]


def _retry(client: OrchestratorClient) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchclient", "--db", client.health().path, "retry", "--all"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr + done.stdout


def test_a_post_whose_answer_is_lost_is_not_repeated_and_told_as_ambiguous(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        service.plan(Fault.lose_reply())
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "odd", "once", 1)
        client.flush(SOON_S)
        assert until(lambda: books(client) == (0, 0, 1))
        client.escalate_error("t", "other", "later", 1)
        assert until(lambda: books(client) == (1, 0, 1))
        assert ["once" in text for text in texts(service)] == [True, False]


def test_a_critical_post_whose_answer_is_lost_is_repeated_and_marked(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        service.plan(Fault.lose_reply())
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "database_connection", "down", 1)
        assert until(lambda: books(client) == (1, 0, 0))
        assert ["(possible repeat)" in text for text in texts(service)] == [False, True]


def test_an_edit_whose_answer_is_lost_is_repeated(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        client.update_task_status("t", "in_progress", progress_percentage=1)
        assert client.flush(SOON_S)
        service.plan(Fault.lose_reply())
        client.update_task_status("t", "in_progress", progress_percentage=2)
        assert until(lambda: books(client) == (2, 0, 0))
        assert len(service.shown) == 1


@pytest.mark.parametrize("reply", [discord_error(401, 50027, "Invalid Webhook Token"), discord_error(404, 10015, "x")])
def test_a_dead_webhook_stops_the_destination_and_keeps_everything(make_client: MakeClient, reply: HttpReply) -> None:
    with DiscordDouble() as service:
        service.always(reply)
        client = make_client(sinks=[discord(service)])
        client.update_task_status("t", "in_progress")
        client.flush(SOON_S)
        (sink,) = client.health().sinks
        assert (sink.state, sink.pending) == ("disabled", 1)
        assert "ORCHCLIENT_DISCORD_WEBHOOK_URL" in sink.reason
        assert len(service.seen) == 1
        service.always(None)
        client.close()
        mended = make_client(sinks=[DiscordSink(Secret(service.webhook_url + "?x=1"), rules=OFTEN)])
        assert mended.flush(SOON_S)
        assert books(mended) == (1, 0, 0)


@pytest.mark.parametrize("reply", [HttpReply(500), HttpReply(502), HttpReply(503), None])
def test_an_outage_costs_no_message(make_client: MakeClient, reply: HttpReply | None) -> None:
    with DiscordDouble() as service:
        service.always(reply)
        if reply is None:
            service.stop()
        client = make_client(sinks=[discord(service)])
        for number in range(3):
            client.escalate_error("t", "odd", f"number {number}", 1)
            client.flush(SOON_S)
        assert books(client) == (0, 3, 0)
        service.always(None)
        if reply is None:
            service.start()
        assert until(lambda: (client.flush(SOON_S), books(client))[1] == (3, 0, 0))
        assert len(service.shown) == 3


def test_a_429_is_waited_for(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        service.plan(discord_too_fast(0.3))
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "odd", "x", 1)
        client.flush(SOON_S)
        assert until(lambda: books(client) == (1, 0, 0))
        first, second = service.seen
        assert second.at_s - first.at_s >= 0.3


def two_channels(service: DiscordDouble) -> list[DiscordSink]:
    other = DiscordSink(Secret(service.other_webhook_url), rules=OFTEN, name="other")
    return [discord(service), other]


def asked_at(service: DiscordDouble, path: str) -> list[float]:
    with service.changed:
        return [each.at_s for each in service.seen if each.path.startswith(path)]


@pytest.mark.parametrize("is_global", [True, False])
def test_a_global_429_holds_every_webhook_of_discord_and_another_one_only_its_own(
    make_client: MakeClient, is_global: bool
) -> None:
    wait_s = 1.2 if is_global else 60.0
    with DiscordDouble() as service:
        client = make_client(sinks=two_channels(service)[:1])
        service.plan(discord_too_fast(wait_s, is_global=is_global))
        client.escalate_error("t", "odd", "x", 1)
        assert until(lambda: client.health().sinks[0].state == "throttled")
        client.add_sink(two_channels(service)[1])
        client.escalate_error("t", "odd", "y", 1)
        assert service.wait_for(lambda: asked_at(service, service.other_path) != [])
        waited_s = asked_at(service, service.other_path)[0] - service.seen[0].at_s
        assert (waited_s >= wait_s) is is_global
        assert service.count(429) == 1


def test_who_is_elected_next_waits_for_a_global_429_too(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        first, second = two_channels(service)
        client = make_client(sinks=[first])
        service.plan(discord_too_fast(1.2, is_global=True))
        client.escalate_error("t", "odd", "x", 1)
        assert until(lambda: client.health().sinks[0].state == "throttled")
        client.close(0)
        later = make_client(sinks=[second])
        later.escalate_error("t", "odd", "y", 1)
        assert until(lambda: any("waits with discord" in sink.reason for sink in later.health().sinks))
        assert until(lambda: len(service.shown) == 1)
        assert asked_at(service, service.other_path)[0] - service.seen[0].at_s >= 1.2


def test_quiet_hours_hold_what_is_not_urgent_and_end_with_one_digest(make_client: MakeClient) -> None:
    class Night:
        ends: int | None = int((time.time() + 3600) * 1e6)

        def ends_us(self, now_us: int) -> int | None:
            return self.ends

    night: Any = Night()
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service, NoiseRules(0.0, quiet=night))])
        client.escalate_error("t1", "odd", "small", 0, fatal=False)
        client.request_clarification("t2", ["Which?"], NotificationPriority.MEDIUM)
        client.escalate_error("t3", "database_connection", "big", 0, fatal=False)
        assert client.flush(SOON_S).held == 2
        assert books(client) == (1, 2, 0)
        assert "big" in texts(service)[0]
        with client._station._outbox.transaction() as con:  # the night passes
            con.execute("UPDATE posts SET due_us = 0")
        night.ends = None
        client.escalate_error("t4", "database_connection", "wakes the thread", 0, fatal=False)
        assert until(lambda: books(client) == (4, 0, 0))
        assert len(service.shown) == 3
        assert "While it was quiet: 2 messages" in "".join(texts(service))


def test_slack_gets_milestones_and_one_message_a_second(make_client: MakeClient) -> None:
    with SlackDouble(burst=1) as service:
        client = make_client(sinks=[slack(service, NoiseRules())])
        for number in range(100):
            client.update_task_status(f"t{number % 2}", "in_progress", progress_percentage=number)
        client.escalate_error("t0", "odd", "look", 1)
        assert until(lambda: len(service.shown) >= 2)
        client.flush(SOON_S)
        assert until(lambda: any("look" in text for text in texts(service)))
        assert service.count(429) == 0
        assert len(service.shown) <= 5


def test_a_flood_of_progress_floods_nobody_and_delays_no_critical_error(make_client: MakeClient) -> None:
    """1,000 updates of ten tasks, and critical errors among them: the bucket is Discord's, the rules are the usual."""
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service, NoiseRules())])
        recorded: dict[str, float] = {}
        for number in range(1000):
            client.update_task_status(f"task-{number % 10}", "in_progress", progress_percentage=number / 10)
            if number % 100 == 50:
                told = client.escalate_error("task-0", "security_violation", f"alarm {number} here", 0, fatal=False)
                recorded[f"alarm {number} here"] = time.monotonic()
                assert told
        assert until(lambda: all(any(alarm in text for text in texts(service)) for alarm in recorded))
        assert until(lambda: sum("is in progress" in text for text in texts(service)) == 10)
        assert service.count(429) == 0
        assert len(service.shown) == 20
        for alarm, at_s in recorded.items():
            shown_s = next(shown.posted_s for shown in service.shown if alarm in shown.text)
            others = [each for each in service.seen if at_s < each.at_s < shown_s and b"alarm" not in each.body]
            assert len(others) <= 2, f"{alarm} waited for what is less urgent"  # what was on its way, and its answer
        client.flush(0.1)
        delivered, pending, dead = books(client)
        assert (delivered + pending, dead) == (1010, 0)
        assert pending <= 10


def test_an_agent_that_records_without_a_pause_keeps_nothing_from_being_told(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        enough = threading.Event()

        def record() -> None:
            while not enough.is_set():
                client.update_task_status("busy", "in_progress", progress_percentage=1)

        agents = [threading.Thread(target=record) for _ in range(2)]
        for agent in agents:
            agent.start()
        try:
            client.escalate_error("t", "database_connection", "while it is busy", 0, fatal=False)
            assert service.wait_for(lambda: any("while it is busy" in shown.text for shown in service.shown), SOON_S)
        finally:
            enough.set()
            for agent in agents:
                agent.join()


def test_files_that_are_removed_under_a_chat_lose_no_message(make_client: MakeClient, outbox_path: Path) -> None:
    with DiscordDouble() as service:
        service.always(HttpReply(503))
        client = make_client(sinks=[discord(service)])
        client.escalate_error("t", "odd", "before", 1)
        client.flush(SOON_S)
        lose(outbox_path)
        service.always(None)
        client.escalate_error("t", "odd", "after", 1)
        assert until(lambda: all(any(word in text for text in texts(service)) for word in ("before", "after")))


def lose(outbox_path: Path) -> None:
    """The files go under a live process, as with rm."""
    for name in outbox_path.parent.glob(f"{outbox_path.name}*"):
        if name.name == outbox_path.name or name.name.endswith(("-wal", "-shm")):
            name.unlink()


class Behind(DiscordSink):
    """Another destination that has got nothing yet, so that everything is copied out of lost files."""

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        return Told(Verdict(Action.BACK_OFF, "behind", 3600.0))


def test_after_files_are_lost_people_read_on_in_the_messages_that_they_know(
    make_client: MakeClient, outbox_path: Path
) -> None:
    with DiscordDouble(limit=100) as service, DiscordDouble() as nowhere:
        behind = Behind(Secret(nowhere.webhook_url), rules=OFTEN, name="behind")
        client = make_client(sinks=[discord(service), behind])
        for percent in (10, 20):
            client.update_task_status("t", "in_progress", progress_percentage=percent)
        for _ in range(2):
            client.escalate_error("t", "flaky", "down", 1, fatal=False, dedup_key="db")
        asked = client.request_clarification("t", ["Which?"])
        client._station.flush(SOON_S, ["discord"])
        assert until(lambda: len(service.shown) == 3)
        assert until(lambda: all("20 %" in text or "2 times" in text or "Which" in text for text in texts(service)))
        lose(outbox_path)
        client.update_task_status("t", "in_progress", progress_percentage=30)
        client.escalate_error("t", "flaky", "down", 1, fatal=False, dedup_key="db")
        asked.withdraw("found it")
        assert until(lambda: ["30 %" in text or "withdrew" in text for text in texts(service)].count(True) == 2)
        client._station.flush(SOON_S, ["discord"])
        assert len(service.messages) == 3
        assert any("(3 times)" in text for text in texts(service))
        assert not any("possible repeat" in text for text in texts(service))


def test_after_files_are_lost_a_chat_without_edits_is_told_nothing_twice(
    make_client: MakeClient, outbox_path: Path
) -> None:
    with SlackDouble(second_s=0.0) as service, DiscordDouble() as nowhere:
        behind = Behind(Secret(nowhere.webhook_url), rules=OFTEN, name="behind")
        client = make_client(sinks=[slack(service), behind])
        client.update_task_status("t", "in_progress", progress_percentage=10)
        client.update_task_status("t", "in_progress", progress_percentage=20)
        client.request_clarification("t", ["Which?"])
        assert until(lambda: len(service.shown) >= 2 and client.health().sinks[1].pending == 0)
        before = len(service.shown)
        lose(outbox_path)
        client.escalate_error("t", "odd", "after", 1)
        assert until(lambda: any("after" in text for text in texts(service)))
        client._station.flush(SOON_S, ["slack"])
        assert ["after" in text for text in texts(service)] == [False] * before + [True]


@pytest.mark.parametrize("is_older", [False, True])
def test_a_post_that_was_under_way_when_files_were_lost_is_marked_when_it_comes_again(
    make_client: MakeClient, tmp_path: Path, is_older: bool
) -> None:
    with DiscordDouble() as service:
        service.always(HttpReply(503))
        lost = make_client(outbox=tmp_path / "lost.db", sinks=[discord(service)])
        lost.escalate_error("t", "odd", "before", 1, fatal=False)
        lost.flush(SOON_S)
        lost.close(0)
    with closing(sqlite3.connect(tmp_path / "lost.db")) as con, con:
        con.execute("UPDATE posts SET claimed_us = 1")  # as a process leaves it that dies while it posts
        if is_older:
            con.execute("ALTER TABLE posts DROP COLUMN told_id")  # files that were set aside by an older orchclient
    client = make_client(sinks=[discord(service)], background=False)
    with closing(sqlite3.connect(tmp_path / "lost.db")) as con:
        client._station.write(lambda here: posts.take_over(con, here))
    columns = "seq, is_owed, count, total, claimed_us, is_repeat, message_id"
    rows = client._station.query(lambda here: here.execute(f"SELECT {columns} FROM posts").fetchall())
    assert rows == [(None, 0, 0, 0, None, 1, "")]


def test_more_urgent_messages_go_first(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        early = make_client(sinks=[discord(service)])
        early.update_task_status("first", "assigned")
        assert early.flush(SOON_S)
        early.close()
        offline = make_client(mode="offline")
        offline.update_task_status("a", "in_progress")
        offline.request_clarification("b", ["Which?"])
        offline.escalate_error("c", "odd", "x", 5)
        offline.escalate_error("d", "database_connection", "x", 0)
        offline.close()
        client = make_client(sinks=[discord(service)])
        assert client.flush(SOON_S)
        told = texts(service)[1:]
        tasks = [next(each for each in "abcd" if re.search(rf" {each}(:| is| failed|,)", text)) for text in told]
        assert tasks == ["d", "c", "b", "a"]


def test_the_settings_of_the_environment_tell_people(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with DiscordDouble() as one, SlackDouble() as two:
        monkeypatch.setenv("ORCHCLIENT_DISCORD_WEBHOOK_URL", one.webhook_url)
        monkeypatch.setenv("ORCHCLIENT_SLACK_WEBHOOK_URL", two.webhook_url)
        monkeypatch.setenv("ORCHCLIENT_PUBLIC_URL", "https://answers.example")
        client = make_client()
        client.request_clarification("t", ["Which?"], context={"where": f"see {one.webhook_url}"})
        assert client.flush(SOON_S)
        for service in (one, two):
            (text,) = texts(service)
            assert "https://answers.example/q/" in text
            assert "tttttttttt" not in text
        assert "tttttttttt" not in repr(client.health())


def test_a_destination_for_escalation_is_told_escalated_reminders_only(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[only_escalated(discord(service))])
        client.escalate_error("t", "database_connection", "down", 1)
        assert client.flush(SOON_S)
        assert service.seen == []
        assert books(client) == (1, 0, 0)


def reminded_of(about: str, type_: str) -> Event:
    """A third reminder, which is for destinations of escalation too."""
    waiting = Waiting(about, type_, "t", "agent-1", "critical", 0, 3, 3600 * 10**6, None, "{}")
    return waiting.reminder(uuid7(time.time_ns() // 10**6, os.urandom(10)), time.time_ns() // 1000)


def test_who_was_called_by_an_escalated_reminder_is_told_when_it_is_over(make_client: MakeClient) -> None:
    with DiscordDouble(limit=100) as service:
        client = make_client(sinks=[only_escalated(discord(service))])
        asked = client.request_clarification("t", ["Which?"], "critical")
        failed = client.escalate_error("t", "database_connection", "down", 1, dedup_key="db")
        other = client.request_clarification("t", ["Another?"], "critical")
        for about, type_ in ((asked.id, "clarification.requested.v1"), (failed.event_id, "error.escalated.v1")):
            Reminding(client._station._outbox, SystemClock(), Schedule()).look()  # what is open is known
            client._station.record(reminded_of(about, type_), None, False)
        assert client.flush(SOON_S)
        asked.withdraw("found it")
        other.withdraw("of which nobody was reminded")
        client.resolve_error("t", "db")
        assert client.flush(SOON_S)
        said = texts(service)
        assert [bool(re.search(word, text)) for word, text in zip(WORDS, said, strict=True)] == [True] * 4
        assert books(client) == (8, 0, 0)


WORDS = ("has waited 1 h for an answer", "needed help with t", "withdrew its question", "the error db of t is over")


def test_no_thread_is_left(make_client: MakeClient) -> None:
    with DiscordDouble() as service:
        client = make_client(sinks=[discord(service)])
        client.update_task_status("t", "in_progress")
        client.close()
        assert until(lambda: not any(thread.name == "orchclient-discord" for thread in threading.enumerate()))
