"""An agent tells orchestrators that it lives while there is something to say: seldom, once, and never in an outage."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient import ConfigError, OrchestratorClient, config
from orchclient.core.heartbeat import LONGEST_AGE_S, Standing, heartbeat_event, worst
from orchclient.core.http import NoReply
from orchclient.core.settled import Settled
from orchclient.delivery.beating import Beating
from orchclient.delivery.settlement import Selection
from orchclient.outbox import cursors, heartbeats, journal
from orchclient.outbox.cursors import SinkState
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing import ManualClock, Receiver
from orchclient.testing.recorded import Recorded
from orchclient.testing.replay import Replay
from tests.cli.inside import Inside
from tests.conftest import MakeClient
from tests.delivery.doubles import results
from tests.delivery.test_worker import Bench
from tests.docs.test_examples import envelope_validator
from tests.test_client import stored

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
SINK = "orchestrator"
WAIT_S = 20.0
DOWN = NoReply("connect", "refused")


class Heart(Bench):
    """A worker and the looks of whoever keeps house, on a clock of the test's; nothing runs by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.beating = self.process()

    def process(self, agent: str = "agent") -> Beating:
        return Beating(self.outbox, self.clock, agent, MINUTE)

    def live(self, minutes: int, *answers: Any) -> int:
        """Minutes pass while somebody keeps house and delivers; how many heartbeats were recorded."""
        count = 0
        for _ in range(minutes):
            self.clock.pass_s(MINUTE)
            count += self.beating.beat([SINK])
            self.answer(*answers)
            self.turns()
        return count

    def say(self, status: str, task: str = "t") -> None:
        """What an agent says of a task, delivered."""
        self.record(1, task=task)
        self.outbox._known.statuses[task] = status
        self.turns()

    @property
    def recorded(self) -> list[dict[str, Any]]:
        return [event for event in stored(self.path) if event["type"].endswith("heartbeat.v1")]

    @property
    def told(self) -> list[dict[str, Any]]:
        """What each heartbeat says of the outbox."""
        return [event["data"]["outbox"] for event in self.recorded]

    @property
    def waiting(self) -> int:
        """Heartbeats that the destination has not got."""
        states = self.states().items()
        kinds = {entry.seq: entry.type for entry in self.outbox.query(self._entries)}
        return sum(state in ("pending", "parked") and "heartbeat" in kinds[seq] for seq, state in states)

    @staticmethod
    def _entries(con: Any) -> list[journal.Entry]:
        return list(journal.read_range(con, 0, journal.MAX_SEQ))

    def states(self) -> dict[int, str]:
        from orchclient.outbox import listing

        found: list[Any] = self.outbox.query(lambda con: listing.events(con, limit=9999, states=listing.STATES))
        return {each.entry.seq: each.state for each in found}


@pytest.fixture
def heart(outbox_path: Path) -> Iterator[Heart]:
    made = Heart(outbox_path)
    yield made
    made.outbox.close()


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["in_progress", "testing", "clarification_needed"])
def test_an_agent_that_works_and_says_nothing_is_heard_of_every_minute(heart: Heart, status: str) -> None:
    heart.say(status)
    assert heart.live(30) == 30
    assert heart.told[-1] == {"pending": 0, "dead": 0, "oldest_age_s": 0.0}


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "review_ready", "pending"])
def test_an_agent_with_nothing_under_way_is_silent_for_days(heart: Heart, status: str) -> None:
    heart.say(status)
    heart.live(2)
    recorded, sent = len(heart.recorded), len(heart.transport.requests)
    assert recorded == 1  # how it was left
    assert heart.live(2 * 24 * 60) == 0
    assert len(heart.transport.requests) == sent
    heart.say(status)
    assert heart.live(5) == 1


def test_the_last_one_of_an_agent_tells_how_its_outbox_was_left(heart: Heart) -> None:
    heart.say("completed")
    heart.record(1, 2, 3)
    heart.outbox._known.statuses["t"] = "completed"
    heart.clock.pass_s(MINUTE)
    assert heart.beating.beat([SINK])
    assert heart.told == [{"pending": 3, "dead": 0, "oldest_age_s": 60.0}]
    heart.turns()
    assert heart.live(60) == 1
    assert heart.told[-1] == {"pending": 0, "dead": 0, "oldest_age_s": 0.0}


def test_other_processes_of_the_host_are_something_to_tell_of(heart: Heart) -> None:
    heart.say("completed")
    heart.live(3)
    other = Outbox(Origin(heart.path, lambda: str(uuid.uuid4()), heart.clock.now_us))
    bench, heart.outbox = heart.outbox, other
    heart.record(2)
    heart.outbox = bench
    other.close()
    heart.turns()
    assert heart.live(10) == 1


def test_nothing_is_said_before_anything_was_delivered(heart: Heart) -> None:
    heart.record(1)
    heart.clock.pass_s(HOUR)
    assert not heart.beating.beat([SINK])
    assert not heart.beating.beat([])
    assert not heart.beating.beat(["unknown"])


def test_in_an_outage_none_is_recorded_and_one_waits_at_most(heart: Heart) -> None:
    heart.say("in_progress")
    heart.clock.pass_s(MINUTE)
    assert heart.beating.beat([SINK])  # the network is gone, and nobody knows
    for _ in range(24 * 60):
        heart.answer(DOWN)
        heart.turns()
        heart.clock.pass_s(MINUTE)
        assert not heart.beating.beat([SINK])
    assert (heart.waiting, heart.pending, heart.row.state) == (1, 1, SinkState.WAITING)
    heart.answer()
    heart.turns()
    assert heart.live(3) == 3


def test_one_that_waits_at_the_desk_is_followed_by_none(heart: Heart) -> None:
    heart.say("in_progress")
    assert heart.live(10, *[results(agent="retry")] * 9) == 1
    assert heart.waiting == 1
    heart.answer()
    heart.clock.pass_s(2 * MINUTE)
    heart.turns()
    assert heart.live(3) == 3


def test_a_receiver_that_refuses_one_is_given_no_other(heart: Heart) -> None:
    heart.say("in_progress")
    assert heart.live(DAY_OF_MINUTES, results(agent="rejected")) == 1
    assert heart.row.dead == 1


DAY_OF_MINUTES = 24 * 60


@pytest.mark.parametrize("jump_s", [10 * 365 * DAY, -10 * 365 * DAY])
def test_a_clock_that_jumps_stops_nothing(heart: Heart, jump_s: float) -> None:
    heart.say("in_progress")
    heart.live(3)
    heart.clock.us += int(jump_s * 1e6)
    assert heart.live(5) == 5
    assert all(said["oldest_age_s"] >= 0 for said in heart.told)


def test_two_processes_that_look_at_once_give_one(heart: Heart, monkeypatch: pytest.MonkeyPatch) -> None:
    heart.say("in_progress")
    heart.clock.pass_s(MINUTE)
    other, asked = heart.process("other"), Outbox.query

    def slow(self: Outbox, question: Any) -> Any:
        answer = asked(self, question)
        monkeypatch.setattr(Outbox, "query", asked)
        assert other.beat([SINK])  # between the question of the one and what it writes
        return answer

    monkeypatch.setattr(Outbox, "query", slow)
    assert not heart.beating.beat([SINK])
    heart.turns()
    heart.clock.pass_s(MINUTE / 3)
    assert not heart.beating.beat([SINK])
    assert [event["agentid"] for event in heart.recorded] == ["other"]


def test_a_restart_goes_on_where_the_last_process_stopped(heart: Heart) -> None:
    heart.say("completed")
    heart.live(5)
    heart.outbox._known.forget()
    heart.beating = heart.process()
    assert heart.live(10) == 0


def test_files_that_were_replaced_know_of_no_heartbeat(heart: Heart) -> None:
    heart.say("in_progress")
    heart.live(2)
    heart.path.unlink()
    heart.say("in_progress")  # salvages what the lost files held
    heart.outbox.write(lambda con: cursors.add_sink(con, SINK, SINK, "x", 0, from_beginning=True))
    heart.worker = heart.elected()
    heart.turns()
    assert heart.live(3) == 3


def test_it_costs_no_sync_of_its_own(heart: Heart) -> None:
    heart.say("in_progress")
    heart.outbox.sync()
    assert not heart.outbox.has_unsynced
    heart.clock.pass_s(MINUTE)
    heart.beating.beat([SINK])
    assert heart.outbox.has_unsynced  # the late sync makes it durable together with its delivery


# --- what ---------------------------------------------------------------------------------------------------------


def test_it_is_of_the_agent_and_keeps_the_wire_contract(heart: Heart) -> None:
    heart.say("in_progress")
    heart.live(1)
    sent = heart.transport.batches[-1][-1]
    assert [error.message for error in envelope_validator().iter_errors(sent)] == []
    assert (sent["subject"], sent["partitionkey"], sent["agentid"], sent["priority"]) == (*["agent"] * 3, "low")
    assert sent["data"]["agent_id"] == "agent"


def test_an_age_off_a_clock_that_is_wrong_keeps_the_contract() -> None:
    for age_s in (-5.0, 1e12):
        event = heartbeat_event("a", Standing(1, 0, age_s), "0" * 36, 0)
        assert 0 <= json.loads("{" + event.body)["data"]["outbox"]["oldest_age_s"] <= LONGEST_AGE_S


def test_of_several_orchestrators_it_tells_what_one_of_them_lacks_at_most() -> None:
    assert worst([Standing(3, 0, 1.0), Standing(1, 2, 9.0)]) == Standing(3, 2, 9.0)


def test_of_several_orchestrators_all_must_have_the_last_one(heart: Heart) -> None:
    heart.outbox.write(lambda con: cursors.add_sink(con, "mirror", SINK, "y", 0, from_beginning=True))
    heart.say("in_progress")
    heart.clock.pass_s(MINUTE)
    assert not heart.beating.beat([SINK, "mirror"])  # nothing was delivered there yet
    heart.outbox.write(lambda con: con.execute("UPDATE sinks SET last_success_us = 1 WHERE name = 'mirror'") and None)
    assert heart.beating.beat([SINK, "mirror"])
    assert heart.told[-1]["pending"] == 1
    heart.turns()
    heart.clock.pass_s(MINUTE)
    assert not heart.beating.beat([SINK, "mirror"])


# --- to whom, and who never hears of it ---------------------------------------------------------------------------


class Hook(OrchestratorSink):
    """Whose receiver does not look for missing sequences."""

    checks_sequence = False


def test_who_need_not_have_every_sequence_is_sent_none(heart: Heart) -> None:
    heart.sink = Hook("http://127.0.0.1:9", lambda: None)
    heart.worker = heart.elected()
    heart.say("in_progress")
    assert heart.live(5) == 5  # as if for another destination
    assert all("heartbeat" not in event["type"] for batch in heart.transport.batches for event in batch)
    assert (heart.pending, heart.row.delivered, heart.row.dead) == (0, 6, 0)


def test_what_is_passed_for_two_reasons_is_passed_in_order() -> None:
    rows = [(seq, "t", 0, b"") for seq in range(1, 7)]
    both = Selection(None, "", None, rows[:4], rows[4:]).without({6, 2}).without({5, 1})  # type: ignore[arg-type]
    assert ([row[0] for row in both.passed], both.last_seq) == ([1, 2, 5, 6], 6)


def test_a_real_agent_is_heard_of_after_an_interval_and_not_before(make_client: MakeClient, receiver: Receiver) -> None:
    clock, told = ManualClock(), list[Settled]()
    client = make_client(url=receiver.url, clock=clock, heartbeat="5m", on_delivered=told.append)
    client.update_task_status("t", "in_progress")
    clock.advance("4m")
    assert client.flush(WAIT_S)
    assert len(receiver.events) == 1
    clock.advance("2m")
    assert receiver.wait_for(2, WAIT_S)
    beat = receiver.events[1]
    assert (beat["type"], beat["agentid"]) == ("dev.orchclient.agent.heartbeat.v1", "agent-1")
    clock.advance("5m")
    assert receiver.wait_for(3, WAIT_S)
    client.report_completion("t", None, {})
    client.close(WAIT_S)
    assert [each.type for each in told] == ["task.status.v1", "task.completed.v1"]


@pytest.mark.parametrize("settings_", [{"heartbeat": "off"}, {"background": False}])
def test_who_wants_none_and_who_only_delivers_now_and_then_gives_none(
    make_client: MakeClient, receiver: Receiver, settings_: dict[str, Any]
) -> None:
    clock = ManualClock()
    client = make_client(url=receiver.url, clock=clock, **settings_)
    for hours in range(3):
        client.update_task_status("t", "in_progress", progress_percentage=hours)
        assert client.flush(WAIT_S)
        clock.advance("1h")
    client.close()
    assert len(receiver.events) == 3


def test_reports_of_an_agent_s_work_do_not_tell_of_heartbeats(
    make_client: MakeClient, receiver: Receiver, outbox_path: Path
) -> None:
    clock = ManualClock()
    client = make_client(url=receiver.url, clock=clock)
    client.update_task_status("t", "in_progress")
    assert client.flush(WAIT_S)
    clock.advance("2m")
    assert receiver.wait_for(2, WAIT_S)
    assert client.flush(WAIT_S)
    stats, recorded = client.get_communication_stats(), Recorded(client)
    assert (stats["updates_sent"], stats["delivery"][SINK]["delivered"]) == (1, 2)
    assert [event["subject"] for event in recorded.events()] == ["t"]
    assert len(recorded.events("agent.heartbeat")) == 1
    assert client.task_state("agent-1") is None
    orchclient = Inside(outbox_path)
    status = orchclient.json("status")
    assert (status["recorded"], status["heartbeats"]) == (2, 1)
    assert status["last_recorded_at"] == recorded.events()[0]["time"]
    assert "2 events recorded (1 heartbeat), 2 kept" in orchclient("status").out
    listed = [orchclient.json("list", *more)["events"] for more in ([], HEARTBEATS, DELIVERED)]
    assert [len(events) for events in listed] == [1, 1, 2]


def test_recordings_of_tests_leave_heartbeats_out_on_both_sides(
    make_client: MakeClient, receiver: Receiver, tmp_path: Path
) -> None:
    clock = ManualClock()
    client = make_client(url=receiver.url, clock=clock)

    def work(lasts: str, until: int) -> None:
        client.update_task_status("t", "in_progress")
        assert client.flush(WAIT_S)
        clock.advance(lasts)
        assert receiver.wait_for(until, WAIT_S)

    with Replay(tmp_path, mode="rewrite").compare(client=client):
        work("2m", 2)
    assert [event["subject"] for event in Replay(tmp_path).events()] == ["t"]
    with Replay(tmp_path).compare(client=client):
        work("1s", 3)  # a shorter run
    exported = tmp_path / "exported.jsonl"
    assert Inside(Path(client._station.path)).json("export", "-o", str(exported))["ok"]
    with (
        pytest.raises(AssertionError, match=r"differs .* in 1 place"),  # the second update, and no heartbeat
        Replay(tmp_path).compare("exported.jsonl", client=client),
    ):
        work("2m", 5)


HEARTBEATS, DELIVERED = ["--type", "agent.heartbeat"], ["--state", "delivered"]


# --- the setting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, 60.0), ("90", 90.0), ("5m", 300.0), ("off", 0.0), (False, 0.0), (30, 30.0)]
)
def test_the_setting(value: Any, seconds: float) -> None:
    assert config.load({}, heartbeat=value).heartbeat == seconds


@pytest.mark.parametrize("value", ["0", "500ms", "often", True, [1]])
def test_a_setting_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"heartbeat .*off, or a duration of a second or more such as 60s"):
        config.load({}, heartbeat=value)


def test_it_is_shown_with_the_others(outbox_path: Path) -> None:
    orchclient = Inside(outbox_path)
    shown = orchclient.json("config", "show", ORCHCLIENT_HEARTBEAT="off")["settings"]["heartbeat"]
    assert shown == {"value": "off", "origin": "ORCHCLIENT_HEARTBEAT"}
    assert orchclient.json("config", "show")["settings"]["heartbeat"]["value"] == 60.0
    lines = orchclient("config", "show").out.splitlines()
    assert ["heartbeat", "1m", "default"] in [line.split() for line in lines]


# --- a property, and planted bugs that it finds -------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([10.0, 61.0, 600.0])),
        st.tuples(st.sampled_from(["work", "rest", "down", "up", "retry", "restart", "back"]), st.just(0.0)),
    ),
    min_size=5,
    max_size=40,
)


def play(path: Path, steps: list[tuple[str, float]]) -> None:
    """Any history, with two processes that look by turns: one waits at most, none comes in an outage, or too often."""
    heart, weather, last_s = Heart(path), "up", -MINUTE
    processes = [heart.beating, heart.process()]
    try:
        for number, (step, value) in enumerate(steps):
            match step:
                case "pass":
                    heart.clock.pass_s(value)
                case "work" | "rest":
                    heart.record(1)
                    heart.outbox._known.statuses["t"] = "in_progress" if step == "work" else "completed"
                case "back":
                    heart.clock.us -= int(20 * 1e6)
                    last_s = -MINUTE  # whether another process was quicker is read off the date
                case "restart":
                    heart.worker = heart.elected()
                case _:
                    weather = step
            answer = {"down": DOWN, "retry": results(agent="retry")}.get(weather)
            heart.answer(*[answer] * 50 if answer else [])
            heart.turns()
            before = heart.row
            if processes[number % 2].beat([SINK]):
                assert before.state is SinkState.DELIVERING, "in an outage"
                assert heart.clock.seconds - last_s >= MINUTE / 2, "too often"
                last_s = heart.clock.seconds
            assert heart.waiting <= 1, "two wait"
    finally:
        heart.outbox.close()


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_in_any_history_one_waits_at_most(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]
) -> None:
    play(tmp_path_factory.mktemp("history") / "outbox.db", steps)


def never_looks_whether_the_last_one_arrived(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heartbeats, "_has", lambda con, row, seq: True)


def never_looks_whether_delivery_succeeds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heartbeats, "_succeeds", lambda row: True)


def forgets_when_the_last_one_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("orchclient.core.heartbeat.Beat.is_recent", lambda self, now_us, every_us: False)


@pytest.mark.parametrize(
    "planted",
    [
        never_looks_whether_the_last_one_arrived,
        never_looks_whether_delivery_succeeds,
        forgets_when_the_last_one_was,
    ],
)
def test_a_planted_bug_is_found(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, planted: Any
) -> None:
    planted(monkeypatch)
    directory = tmp_path_factory.mktemp("planted")
    minute = ("pass", 61.0)
    histories = [
        [("work", 0.0), minute, ("pass", 10.0), ("pass", 10.0)],
        [("work", 0.0), minute, ("up", 0.0), ("down", 0.0), ("work", 0.0), minute, minute],
        [("work", 0.0), ("retry", 0.0), minute, minute, minute],
    ]

    def search() -> None:
        for number, history in enumerate(histories):
            play(directory / f"{number}.db", history)

    with pytest.raises(AssertionError, match=r"in an outage|too often|two wait"):
        search()


def test_a_heartbeat_does_not_keep_what_is_a_client_s_from_being_told(
    make_client: MakeClient, receiver: Receiver
) -> None:
    """An agent's own name as the name of a task: its events and heartbeats share a lane, and nothing of the task."""
    clock = ManualClock()
    client: OrchestratorClient = make_client("same", url=receiver.url, clock=clock)
    client.update_task_status("same", "in_progress", {"a": 1}, 40)
    assert client.flush(WAIT_S)
    clock.advance("2m")
    assert receiver.wait_for(2, WAIT_S)
    client.update_task_status("same", "testing")
    assert client.flush(WAIT_S)
    state = client.task_state("same")
    assert state is not None
    assert (state.status, state.progress_percentage, state.attempt) == ("testing", 40, 0)
