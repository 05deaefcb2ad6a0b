"""What is critical and open is notified again, once for each number, whatever clocks, restarts and processes do."""

from __future__ import annotations

import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from orchclient import ConfigError, OrchestratorClient, config
from orchclient.core.judging import RequestState
from orchclient.core.reminders import Passing, said_of
from orchclient.core.schedule import NEVER, Schedule
from orchclient.core.timestamps import instant
from orchclient.delivery.reminding import Reminding
from orchclient.destinations import named_for_escalation
from orchclient.outbox import gaps, reminders, requests
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from orchclient.sinks.escalation import only_escalated
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.testing import Receiver
from tests.conftest import MakeClient
from tests.delivery.doubles import StillClock, results
from tests.delivery.test_worker import Bench
from tests.docs.test_examples import envelope_validator
from tests.test_client import stored

MINUTE, HOUR = 60.0, 3600.0


class House:
    """An agent on a clock of the test's, and the looks of whoever keeps house; nothing runs by itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = StillClock()
        self.client = OrchestratorClient("agent", outbox=path, background=False, clock=self.clock)
        self.outbox = Outbox(Origin(path, lambda: str(uuid.uuid4()), self.clock.now_us))
        self.reminding = self.process()

    def process(self, schedule: Schedule = Schedule()) -> Reminding:  # noqa: B008
        return Reminding(self.outbox, self.clock, schedule)

    def pass_s(self, seconds: float, look_every_s: float = 5 * MINUTE) -> None:
        """Time passes while somebody keeps house."""
        while seconds > 0:
            step = min(seconds, look_every_s)
            self.clock.pass_s(step)
            seconds -= step
            self.reminding.look()

    def ask(self, priority: str = "critical", **options: Any) -> Any:
        return self.client.request_clarification("t", "Delete the database?", priority, {"db": "x"}, **options)

    def fail(self, error_type: str = "security_violation", key: str | None = None) -> Any:
        return self.client.escalate_error("t", error_type, "no entry", dedup_key=key, fatal=False)

    @property
    def reminded(self) -> list[dict[str, Any]]:
        return [event["data"] for event in stored(self.path) if event["type"].endswith("reminder.v1")]

    @property
    def numbers(self) -> list[tuple[int, int]]:
        """Number and minutes waited of each reminder."""
        return [(data["number"], data["waited_s"] // 60) for data in self.reminded]


@pytest.fixture
def house(outbox_path: Path) -> Iterator[House]:
    house = House(outbox_path)
    yield house
    house.outbox.close()
    house.client.close(0)


# --- when ---------------------------------------------------------------------------------------------------------


def test_a_critical_question_is_notified_again_after_15_minutes_an_hour_and_every_four(house: House) -> None:
    house.ask()
    house.pass_s(14 * HOUR)
    assert house.numbers == [(1, 15), (2, 60), (3, 300), (4, 540), (5, 780)]
    assert [data["escalated"] for data in house.reminded] == [False, False, True, True, True]


def test_a_critical_error_is_notified_again_as_one_incident(house: House) -> None:
    first = house.fail(key="k")
    house.pass_s(10 * MINUTE)
    house.fail(key="k")
    house.pass_s(HOUR)
    assert house.numbers == [(1, 15), (2, 60)]
    assert {data["about"]["id"] for data in house.reminded} == {first.event_id}


def test_what_is_not_critical_is_not_notified_again(house: House) -> None:
    house.ask("high")
    house.fail("network")
    house.pass_s(24 * HOUR)
    assert house.reminded == []


def test_a_reminder_tells_what_it_is_about_so_that_somebody_can_act(house: House) -> None:
    question = house.ask(options=["yes", "no"])
    house.pass_s(6 * HOUR)
    event = [event for event in stored(house.path) if event["type"].endswith("reminder.v1")][-1]
    assert (event["priority"], event["escalated"], event["agentid"], event["subject"]) == (
        "critical",
        True,
        "agent",
        "t",
    )
    about = event["data"]["about"]
    assert (about["id"], about["type"]) == (question.id, "dev.orchclient.clarification.requested.v1")
    assert about["data"]["questions"][0]["text"] == "Delete the database?"
    assert about["data"]["context"] == {"db": "x"}
    opening = {
        "specversion": "1.0",
        "source": "urn:uuid:8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31",
        "sequence": "0" * 19 + "1",
    }
    assert [error.message for error in envelope_validator().iter_errors(opening | event)] == []


def test_what_a_reminder_repeats_is_bounded() -> None:
    text = said_of(
        {"questions": [{"text": "q" * 50_000}] * 50, "context": {"a": "x" * 500_000}, "error_message": "m" * 9999}
    )
    assert len(text) < 16_384
    assert said_of({"questions": [{"text": "q"}], "traceback": "t"}) == '{"questions": [{"text": "q"}]}'


def test_a_reminder_says_nothing_of_its_task(house: House) -> None:
    house.client.update_task_status("t", "testing", {"a": 1}, 40)
    house.fail()
    before = house.client.task_state("t")
    house.pass_s(HOUR)
    assert len(house.reminded) == 2
    assert house.client.task_state("t") == before


# --- what ends it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["withdrawn", "expired", "resolved", "resolved by key", "completed"])
def test_what_is_over_is_not_notified_again(house: House, how: str) -> None:
    if how in ("withdrawn", "expired"):
        question = house.ask(deadline=instant(house.clock.us) + timedelta(minutes=20))
    else:
        error = house.fail(key="k")
    house.pass_s(16 * MINUTE)
    {
        "withdrawn": lambda: question.withdraw(),
        "expired": lambda: None,
        "resolved": lambda: error.resolve(),
        "resolved by key": lambda: house.client.resolve_error("t", "k"),
        "completed": lambda: house.client.report_completion("t", None, {}),
    }[how]()
    house.pass_s(24 * HOUR)
    assert house.numbers == [(1, 15)]
    assert house.outbox.query(reminders.waiting) == []


@pytest.mark.parametrize("state", [RequestState.ANSWERED, RequestState.DECLINED])
def test_what_people_settled_is_not_notified_again_although_the_agent_has_not_taken_it(
    house: House, state: RequestState
) -> None:
    question, other = house.ask(), house.client.request_clarification("u", "Which?", "critical")
    house.pass_s(16 * MINUTE)
    assert house.outbox.write(lambda con: requests.settle(con, question.id, state, house.clock.us, "{}", "a1"))
    house.pass_s(HOUR)
    told = [(data["about"]["id"], data["number"]) for data in house.reminded]
    assert sorted(told) == sorted([(question.id, 1), (other.id, 1), (other.id, 2)])


def test_an_incident_that_opens_again_is_notified_anew(house: House) -> None:
    house.fail(key="k").resolve()
    house.pass_s(HOUR)
    second = house.fail(key="k")
    house.pass_s(20 * MINUTE)
    assert [(data["number"], data["about"]["id"]) for data in house.reminded] == [(1, second.event_id)]


# --- clocks, sleeps, processes, restarts --------------------------------------------------------------------------


def test_a_long_sleep_leads_to_one_reminder_with_the_time_that_was_waited(house: House) -> None:
    house.ask()
    house.reminding.look()
    house.clock.us += int(30 * HOUR * 1e6)  # the clock that never jumps stands still in a sleep
    for _ in range(5):
        house.reminding.look()
    assert house.numbers == [(1, 30 * 60)]
    house.pass_s(46 * MINUTE)
    assert house.numbers[1:] == [(2, 30 * 60 + 45)]


@pytest.mark.parametrize("jump_s", [10 * 365 * 86_400, -10 * 365 * 86_400])
def test_a_clock_that_jumps_leads_to_one_early_reminder_at_most_and_stops_nothing(house: House, jump_s: int) -> None:
    house.ask()
    house.pass_s(5 * MINUTE)
    house.clock.us += jump_s * 1_000_000
    house.pass_s(5 * MINUTE)
    assert len(house.reminded) == (1 if jump_s > 0 else 0)
    house.clock.us -= jump_s * 1_000_000
    house.pass_s(6 * HOUR)
    assert len(house.reminded) in ((3, 4) if jump_s > 0 else (3,))
    assert [data["number"] for data in house.reminded] == list(range(1, len(house.reminded) + 1))


def test_a_restart_goes_on_with_the_next_number(house: House) -> None:
    house.ask()
    house.pass_s(20 * MINUTE)
    house.reminding = house.process()
    house.clock.pass_s(50 * MINUTE)
    house.reminding.look()
    assert [number for number, _ in house.numbers] == [1, 2]


def test_two_processes_that_look_at_once_give_one_reminder(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ask()
    house.pass_s(14 * MINUTE)
    other = house.process()
    house.clock.pass_s(2 * MINUTE)
    asked = Outbox.query

    def slow(self: Outbox, question: Any) -> Any:
        answer = asked(self, question)
        monkeypatch.setattr(Outbox, "query", asked)
        other.look()  # between the question of the one and what it writes
        return answer

    monkeypatch.setattr(Outbox, "query", slow)
    house.reminding.look()
    assert [number for number, _ in house.numbers] == [1]


def test_what_was_asked_before_anybody_kept_house_has_waited_since_then(house: House) -> None:
    house.ask()
    house.clock.pass_s(2 * HOUR)
    house.reminding.look()
    assert house.numbers == [(1, 120)]


def test_it_survives_the_loss_of_the_files(house: House) -> None:
    house.ask()
    house.pass_s(20 * MINUTE)
    house.path.unlink()
    house.client.update_task_status("t", "testing")
    house.outbox.close()
    house.outbox = Outbox(Origin(house.path, lambda: str(uuid.uuid4()), house.clock.now_us))
    house.reminding = house.process()
    house.pass_s(HOUR)
    assert [number for number, _ in house.numbers] == [1, 2]


def test_nothing_is_written_while_nothing_critical_happens(house: House) -> None:
    for n in range(50):
        house.client.update_task_status("t", "in_progress", progress_percentage=n)
    house.reminding.look()
    before = house.outbox.query(reminders.note)
    house.pass_s(HOUR)
    assert house.outbox.query(reminders.note) == before


def test_a_long_journal_is_read_in_steps_and_its_place_is_noted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reminders, "STEP", 10)
    monkeypatch.setattr(reminders, "FAR", 40)
    for n in range(100):
        house.client.update_task_status("t", "in_progress", progress_percentage=n)
    house.ask()
    house.reminding.look()
    assert house.outbox.query(reminders.note).seq == 101
    assert len(house.outbox.query(reminders.waiting)) == 1


# --- a property, and a planted bug that it finds ------------------------------------------------------------------


@define
class Model:
    """What must be: numbers without a gap and never two of one, each at least its wait after the one before."""

    passed_s: float = 0.0
    open_since: dict[str, float] = field(factory=dict)
    last: dict[str, tuple[int, float]] = field(factory=dict)

    def look(self, new: list[dict[str, Any]]) -> None:
        for data in new:
            about, number = data["about"]["id"], data["number"]
            before, at_s = self.last.get(about, (0, self.open_since[about]))
            assert number == before + 1, "a number twice, or left out"
            steps = [15 * MINUTE, 45 * MINUTE]
            least_s = steps[number - 1] if number <= 2 else 4 * HOUR
            assert self.passed_s - at_s >= least_s - 1, "a burst"
            self.last[about] = number, self.passed_s
        assert len({data["about"]["id"] for data in new}) == len(new), "two at one look"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([1.0, 60.0, 800.0, 3000.0, 20_000.0])),
        st.tuples(st.just("sleep"), st.sampled_from([60.0, 5000.0, 100_000.0])),
        st.tuples(st.just("back"), st.sampled_from([10.0, 4000.0, 90_000.0])),
        st.tuples(st.sampled_from(["ask", "fail", "restart", "other", "settle"]), st.just(0.0)),
    ),
    min_size=4,
    max_size=30,
)


def play(path: Path, steps: list[tuple[str, float]]) -> None:
    """Any history: time passes with and without anybody awake, clocks are set back, processes come and take turns."""
    house, model, seen = House(path), Model(), 0
    handles: list[Any] = []
    others = [house.reminding, house.process()]
    dice = random.Random(len(steps))
    try:
        for step, value in steps:
            match step:
                case "pass":
                    house.clock.pass_s(value)
                    model.passed_s += value
                case "sleep":
                    house.clock.us += int(value * 1e6)
                    model.passed_s += value
                case "back":
                    house.clock.us -= int(value * 1e6)
                case "restart":
                    others[dice.randrange(2)] = house.process()
                case "settle" if handles:
                    handle = handles.pop()
                    handle.resolve() if hasattr(handle, "resolve") else handle.withdraw()
                case "ask" | "fail":
                    handles.append(house.ask() if step == "ask" else house.fail())
                    model.open_since.setdefault(handles[-1].receipt.event_id, model.passed_s)  # asked again: the same
            others[dice.randrange(2)].look()
            told = house.reminded
            model.look(told[seen:])
            seen = len(told)
    finally:
        house.outbox.close()
        house.client.close(0)


@given(steps=STEPS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_reminders_keep_their_numbers_and_waits_in_any_history(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, float]]
) -> None:
    play(tmp_path_factory.mktemp("history") / "outbox.db", steps)


def by_dates_alone(patch: pytest.MonkeyPatch) -> None:
    """Each missed threshold counts by itself: a sleep brings them all at once."""
    patch.setattr(
        "orchclient.core.reminders.Waiting.is_due",
        lambda self, passed_us, schedule: (
            (passed_us - self.since_us) / 1e6 >= (15 * MINUTE, HOUR, 5 * HOUR)[min(self.number, 2)]
        ),
    )


def counted_without_comparing(patch: pytest.MonkeyPatch) -> None:
    """A restart forgets which number was the last."""
    patch.setattr("orchclient.core.reminders.Waiting.reminded", lambda self, passed_us: evolved(self, passed_us))


def evolved(waiting: Any, passed_us: int) -> Any:
    from attrs import evolve

    return evolve(waiting, last_us=passed_us, number=max(waiting.number, 1))


@pytest.mark.parametrize("planted", [by_dates_alone, counted_without_comparing])
def test_a_planted_bug_is_found(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, planted: Any
) -> None:
    planted(monkeypatch)
    directory = tmp_path_factory.mktemp("planted")
    dice = random.Random(1)
    kinds = ["pass", "pass", "sleep", "ask", "fail", "restart", "back"]

    def search() -> None:
        for number in range(60):
            history = [(dice.choice(kinds), dice.choice([60.0, 3000.0, 100_000.0])) for _ in range(25)]
            play(directory / f"{number}.db", history)

    with pytest.raises(AssertionError, match=r"twice|burst|two at"):
        search()


# --- delivered, or not any more -----------------------------------------------------------------------------------


@pytest.fixture
def bench(outbox_path: Path) -> Iterator[Bench]:
    made = Bench(outbox_path)
    yield made
    made.outbox.close()


def reminded(bench: Bench, client: OrchestratorClient) -> Any:
    """A critical error, and two reminders of it."""
    error = client.escalate_error("t", "security_violation", "no entry", fatal=False)
    reminding = Reminding(bench.outbox, bench.clock, Schedule())
    for _ in range(2):
        reminding.look()
        bench.clock.pass_s(50 * MINUTE)
        reminding.look()
    return error, reminding


def sent_types(bench: Bench) -> list[str]:
    return [event["type"].removeprefix("dev.orchclient.") for batch in bench.transport.batches for event in batch]


@pytest.fixture
def agent(bench: Bench, make_client: MakeClient) -> OrchestratorClient:
    return make_client("agent", background=False, clock=bench.clock)


def test_a_reminder_of_what_is_over_is_not_sent_any_more_and_is_itemised(
    bench: Bench, agent: OrchestratorClient
) -> None:
    error, reminding = reminded(bench, agent)
    error.resolve()
    reminding.look()
    bench.turns()
    assert sent_types(bench) == ["error.escalated.v1", "error.resolved.v1", "gap.v1"]
    assert bench.transport.gaps[0] | {"task_id": "t"} == {
        "task_id": "t",
        "from": 2,
        "to": 3,
        "reason": "folded",
        "count": 2,
    }
    (expired,) = bench.outbox.query(lambda con: list(gaps.expired(con)))
    assert (expired.first_seq, expired.last_seq, expired.reason.value) == (2, 3, "folded")
    row = bench.row
    assert (row.delivered, row.expired, bench.pending, row.dead) == (3, 2, 0, 0)


def test_a_reminder_of_what_is_open_is_sent(bench: Bench, agent: OrchestratorClient) -> None:
    reminded(bench, agent)
    bench.turns()
    assert sent_types(bench) == ["error.escalated.v1", "reminder.v1", "reminder.v1"]
    assert (bench.row.delivered, bench.row.expired, bench.pending) == (3, 0, 0)


def test_a_reminder_at_the_desk_is_folded_there(bench: Bench, agent: OrchestratorClient) -> None:
    error, reminding = reminded(bench, agent)
    bench.answer(results(t="retry"))
    bench.turns(1)
    assert bench.row.parked == 3
    error.resolve()
    reminding.look()
    bench.clock.pass_s(100)
    bench.turns()
    row = bench.row
    assert (row.parked, row.expired, bench.pending, row.delivered) == (0, 2, 0, 3)
    assert sent_types(bench)[3:] == ["error.escalated.v1", "error.resolved.v1", "gap.v1"]


# --- destinations named for escalation ----------------------------------------------------------------------------


def test_a_destination_for_escalation_gets_the_third_reminder_and_nothing_else(
    bench: Bench, agent: OrchestratorClient
) -> None:
    sink = OrchestratorSink("http://127.0.0.1:9", lambda: None)
    sink.checks_sequence = False
    bench.sink = only_escalated(sink)  # type: ignore[assignment]
    bench.worker = bench.elected()
    _, reminding = reminded(bench, agent)
    bench.turns()
    assert bench.transport.requests == []
    bench.clock.pass_s(5 * HOUR)
    reminding.look()
    bench.turns()
    ((event,),) = bench.transport.batches
    assert (event["data"]["number"], event["escalated"]) == (3, True)
    assert event["data"]["about"]["data"]["error_message"] == "no entry"
    assert (bench.row.delivered, bench.pending) == (4, 0)


def test_destinations_are_named_by_keyword_or_in_their_table_and_wrong_names_are_told(
    make_client: MakeClient, tmp_path: Path
) -> None:
    sink = OrchestratorSink("https://x.example", lambda: None)
    with pytest.raises(ConfigError, match="looks for missing sequences"):
        named_for_escalation([sink], ["orchestrator"])
    with pytest.raises(ConfigError, match="no destination pager: there are orchestrator"):
        named_for_escalation([sink], ["pager"])
    with pytest.raises(ConfigError, match="pager"):
        make_client(escalation=["pager"], sinks=[])
    with pytest.raises(ConfigError, match="looks for missing sequences"):
        make_client(sinks=[sink], escalation=["orchestrator"])


# --- a whole client -----------------------------------------------------------------------------------------------


def test_a_client_reminds_by_itself_and_stops_when_it_is_resolved(
    make_client: MakeClient, receiver: Receiver, outbox_path: Path
) -> None:
    clock = StillClock()
    client = make_client(url=receiver.url, clock=clock)
    error = client.escalate_error("t", "security_violation", "no entry", fatal=False)
    assert receiver.wait_for(1, 20)
    assert wait_until(lambda: bool(waiting_in(outbox_path)))
    clock.pass_s(16 * MINUTE)
    assert receiver.wait_for(2, 20)
    reminder = receiver.events[1]
    assert (reminder["type"], reminder["data"]["number"]) == ("dev.orchclient.reminder.v1", 1)
    error.resolve()
    clock.pass_s(6)
    assert wait_until(lambda: not waiting_in(outbox_path))


def waiting_in(path: Path) -> list[Any]:
    con = sqlite3.connect(path)
    try:
        return con.execute("SELECT about FROM reminders").fetchall()
    finally:
        con.close()


def wait_until(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


# --- the setting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("off", NEVER),
        ("15m,1h,4h", Schedule()),
        ("1h", Schedule((), HOUR)),
        ("10m, 30m, 1d", Schedule((600.0, 1800.0), 86_400.0)),
    ],
)
def test_the_schedule_is_a_setting(text: str, schedule: Schedule) -> None:
    assert config.load({}, reminders=text).reminders == schedule


@pytest.mark.parametrize("text", ["never", "1h,15m,4h", "0", "15m,,4h"])
def test_a_schedule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="reminders"):
        config.load({}, reminders=text)


def test_switched_off_nobody_is_reminded(house: House) -> None:
    house.reminding = house.process(NEVER)
    house.ask()
    house.pass_s(24 * HOUR)
    assert house.reminded == []


def test_time_between_two_looks_is_believed_by_whoever_can_tell() -> None:
    first = Passing().looked(1_000_000, None)
    assert first.passed_us == 0
    assert first.looked(3_000_000, None).passed_us == 2_000_000
    assert first.looked(0, None).passed_us == 0
    assert first.looked(0, 5_000_000).passed_us == 5_000_000
    assert first.looked(10**18, None).passed_us == 7 * 86_400 * 1_000_000
