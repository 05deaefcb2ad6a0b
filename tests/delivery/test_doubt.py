"""A service that takes requests and never answers: how much is risked, hour by hour, on a clock that the test moves."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import pytest

from orchclient.core.doubt import Doubt
from orchclient.core.envelope import body_text, lane_of
from orchclient.core.events import Event
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.ids import uuid7
from orchclient.core.jsontext import members_text
from orchclient.core.noise import NoiseRules
from orchclient.core.secret import Secret
from orchclient.delivery.teller import Teller
from orchclient.outbox import cursors, leadership
from orchclient.outbox.cursors import SinkRow
from orchclient.outbox.leadership import Holder
from orchclient.outbox.outbox import Outbox
from orchclient.outbox.store import Origin
from orchclient.sinks.discord import DiscordSink
from orchclient.sinks.sink import ChatSink
from orchclient.sinks.slack import SlackSink
from orchclient.sinks.slack_bot import SlackBotSink
from tests.delivery.doubles import StillClock

HANGS = NoReply("timeout", "no answer in 10 s")
HOUR_S = 3600.0
OK = {
    "discord": HttpReply(200, {}, b'{"id": "1"}'),
    "webhook": HttpReply(200, {}, b"ok"),
    "bot": HttpReply(200, {}, b'{"ok": true, "channel": "C0123456789", "ts": "1.2"}'),
}
RULES = NoiseRules(0.0)
SINKS: dict[str, Callable[[], ChatSink]] = {
    "discord": lambda: DiscordSink(
        Secret("https://discord.com/api/webhooks/123456789012345678/" + "t" * 68), rules=RULES
    ),
    "webhook": lambda: SlackSink(Secret("https://hooks.slack.com/services/T0/B0/" + "x" * 24), rules=RULES),
    "bot": lambda: SlackBotSink(lambda: Secret("xoxb-1234567890-abcdefghijkl"), "C0123456789", rules=RULES),
}


def is_probe(request: HttpRequest) -> bool:
    return request.method == "GET" or request.url.endswith("auth.test") or json.loads(request.body) == {"text": ""}


class Service:
    """Answers as it is told to, and counts what is asked and what is posted."""

    def __init__(self, answer: Callable[[HttpRequest], HttpOutcome]) -> None:
        self.answer = answer
        self.probes = 0
        self.posts: list[bytes] = []

    def send(self, request: HttpRequest, *, deadline_s: float) -> HttpOutcome:
        if is_probe(request):
            self.probes += 1
        else:
            self.posts.append(request.body)
        return self.answer(request)

    def close(self) -> None:
        pass


class Bench:
    """A teller on a real outbox, with a clock and a service of the test's."""

    def __init__(self, path: Path, sink: ChatSink, service: Service) -> None:
        self.clock, self.sink, self.service = StillClock(), sink, service
        self.outbox = Outbox(Origin(path, lambda: str(uuid.uuid4()), self.clock.now_us))
        self.outbox.write(lambda con: cursors.add_sink(con, sink.name, "chat", "x", 0, from_beginning=True))
        self.teller = self.elected()

    def elected(self) -> Teller:
        holder = Holder(1, "host", "agent", 0)
        epoch = self.outbox.write(lambda con: leadership.begin_epoch(con, self.sink.name, holder))
        teller = Teller(self.outbox, self.sink, self.service, self.clock, epoch)
        teller.resume(self.row)
        return teller

    def record(self, count: int, priority: str = "medium") -> None:
        for number in range(count):
            us = self.clock.now_us()
            id_ = uuid7(us // 1000, self.clock.randomness())
            said = {"error_type": "odd", "error_message": f"number {number}", "priority": priority}
            body = body_text(id_, "error.escalated.v1", lane_of("t", "agent"), priority, us, members_text(said))
            self.outbox.record(
                Event(id_, "t", "agent", "error.escalated.v1", priority, us, crc32(body.encode()), body), None, False
            )

    def let_pass(self, seconds: float) -> None:
        """Turn as a runner does, until so much time has passed or there is nothing more to do."""
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            wait_s = self.teller.turn()
            if wait_s is None:
                return
            self.clock.pass_s(max(wait_s, 0.001))

    @property
    def row(self) -> SinkRow:
        row = self.outbox.query(lambda con: cursors.sink(con, self.sink.name))
        assert row is not None
        return row


MakeBench = Callable[[str, Callable[[HttpRequest], HttpOutcome]], Bench]


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[MakeBench]:
    made: list[Bench] = []

    def make(kind: str, answer: Callable[[HttpRequest], HttpOutcome]) -> Bench:
        made.append(Bench(tmp_path / f"{len(made)}.db", SINKS[kind](), Service(answer)))
        return made[-1]

    yield make
    for bench in made:
        bench.outbox.close()


@pytest.mark.parametrize("kind", SINKS)
def test_a_service_that_never_answers_costs_few_messages_and_then_gets_the_rest(
    make_bench: MakeBench, kind: str
) -> None:
    bench = make_bench(kind, lambda request: HANGS)
    bench.record(300)
    bench.let_pass(HOUR_S)
    assert 1 <= bench.row.dead <= 4  # one, and one for each half an hour: the probe may be what is wrong
    assert len(bench.service.posts) == bench.row.dead
    assert bench.service.probes >= 40
    dead, bench.service.answer = bench.row.dead, lambda request: OK[kind]
    bench.let_pass(2 * HOUR_S)
    assert (bench.row.dead, bench.row.parked, bench.row.delivered) == (dead, 0, 300 - dead)


@pytest.mark.parametrize("kind", SINKS)
def test_a_service_that_answers_questions_but_no_post_costs_one_message_an_hour_in_the_end(
    make_bench: MakeBench, kind: str
) -> None:
    bench = make_bench(kind, lambda request: OK[kind] if is_probe(request) else HANGS)
    bench.record(300)
    bench.let_pass(HOUR_S)
    assert bench.row.dead <= 8
    before = bench.row.dead
    bench.let_pass(24 * HOUR_S)
    assert bench.row.dead - before <= 27
    assert "it may have arrived" in bench.row.reason


def test_what_is_critical_is_not_repeated_into_the_void(make_bench: MakeBench) -> None:
    bench = make_bench("discord", lambda request: HANGS)
    bench.record(1, "critical")
    bench.let_pass(HOUR_S)
    assert 2 <= len(bench.service.posts) <= 4
    assert all(b"possible repeat" in post for post in bench.service.posts[1:])
    assert (bench.row.dead, bench.row.parked) == (0, 1)


def test_who_comes_after_a_process_that_ended_in_trouble_asks_first(make_bench: MakeBench) -> None:
    bench = make_bench("discord", lambda request: HANGS)
    bench.record(5)
    bench.let_pass(1)
    assert bench.row.dead == 1
    for _ in range(10):
        bench.teller = bench.elected()
        bench.let_pass(1)
    assert (bench.row.dead, len(bench.service.posts)) == (1, 1)


def test_a_probe_that_is_refused_stops_the_destination_as_a_message_would(make_bench: MakeBench) -> None:
    gone = HttpReply(404, {}, b'{"message": "Unknown Webhook", "code": 10015}')
    bench = make_bench("discord", lambda request: gone if is_probe(request) else HANGS)
    bench.record(5)
    bench.let_pass(60)
    assert (bench.row.state.value, bench.row.dead, bench.row.parked) == ("disabled", 1, 4)
    assert "make a new webhook" in bench.row.reason


def test_without_trouble_nothing_is_asked(make_bench: MakeBench) -> None:
    bench = make_bench("discord", lambda request: OK["discord"])
    bench.record(5)
    bench.let_pass(60)
    assert (bench.service.probes, bench.row.delivered) == (0, 5)


def test_a_teller_that_never_asks_loses_one_message_after_another(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the counts above would be without probes and without a pause."""
    monkeypatch.setattr(Doubt, "after_lost_post", lambda self: self)
    bench = make_bench("discord", lambda request: HANGS)
    bench.record(300)
    bench.let_pass(HOUR_S)
    assert bench.row.dead > 40
