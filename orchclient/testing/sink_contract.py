"""What every destination must keep, as tests to run over your own: subclass a suite, and pytest does the rest.

    class TestAuditSink(DirectSinkContract):
        def make_sink(self):
            return AuditSink(Path(tempfile.mkdtemp()) / "audit.jsonl")

        def arrived(self, sink):
            return [json.loads(line)["id"] for line in sink.path.read_text().splitlines()]

The suites know the protocol of ``orchclient.sinks.sink`` and nothing of pytest; ours run over our own destinations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from orchclient.core.batch import Batch
from orchclient.core.event_message import message_of
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.limits import BATCH_EVENTS
from orchclient.core.message import Message
from orchclient.core.policy import Action, Fate, Verdict, complete
from orchclient.core.telling import Remedy
from orchclient.sinks.sink import AnySink, ChatSink, DirectSink, Selective, Sink

NOW_US = 1_800_000_000_000_000
DEADLINE_S = 5.0
NEVER_SETTLES = ("connect", "tls", "timeout", "broken", "protocol", "too_large")
BODIES: tuple[bytes, ...] = (
    b"",
    b"ok",
    b"null",
    b"[]",
    b"{",
    b'{"results": null}',
    b'{"results": []}',
    b'{"results": [{"id": 7}, null, {"id": "stranger", "status": "accepted"}]}',
    b'{"results": {"id": "x"}}',
    b"\xff\xfe\x00",
    b"[" * 10_000,
    b"<!doctype html><title>Hotel Wi-Fi</title>",
    b'{"code": 50027, "message": "Invalid Webhook Token"}',
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"retry-after": "99999999999"},
    {"retry-after": "\u0661"},
    {"content-type": "x"},
)


def _left_out(suite: type, method: str) -> NotImplementedError:
    return NotImplementedError(f"{suite.__name__} needs a {method}() of its own: {getattr(suite, method).__doc__}")


def batch_of(count: int, text: str = "a step") -> Batch:
    """A batch of progress updates as the flusher hands them over."""
    ids = [f"01a207af-1842-726b-b2a7-{number:012x}" for number in range(count)]
    return Batch.of_texts(ids, [_event(id_, number + 1, text) for number, id_ in enumerate(ids)])


def _event(id_: str, seq: int, text: str) -> str:
    return json.dumps(
        {
            "specversion": "1.0",
            "source": "urn:uuid:8f14e45f-ceea-467f-a0e6-4b0f1f4d2a31",
            "sequence": f"{seq:020d}",
            "id": id_,
            "type": "dev.orchclient.task.status.v1",
            "subject": "task-1",
            "partitionkey": "task-1",
            "agentid": "agent",
            "time": "2026-11-23T09:14:05.250413Z",
            "priority": "low",
            "dataschema": "https://orchclient.dev/schemas/task.status.v1.json",
            "data": {"task_id": "task-1", "status": "testing", "current_step": text},
        }
    )


class DestinationContract:
    """What holds for all kinds. ``make_sink`` gives a new one, of the same configuration, each time."""

    secrets: Sequence[str] = ()
    """Texts that the configuration holds and that must not show."""

    def make_sink(self) -> AnySink:
        """The destination under test."""
        raise _left_out(type(self), "make_sink")

    def test_it_has_a_name_that_can_be_kept(self) -> None:
        """Of lower-case letters, digits, - and _."""
        sink = self.make_sink()
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", sink.name), sink.name
        assert sink.kind

    def test_its_target_tells_the_configuration_without_its_secrets(self) -> None:
        """The same for the same configuration, since a change of it wakes a destination that was disabled."""
        sink = self.make_sink()
        assert sink.target == self.make_sink().target != ""
        assert not [secret for secret in self.secrets if secret in sink.target]

    def test_it_says_where_it_begins_and_whether_it_looks_for_gaps(self) -> None:
        """Both are known before anything is sent."""
        sink = self.make_sink()
        assert isinstance(sink.from_beginning, bool)
        assert isinstance(sink.checks_sequence, bool)

    def test_it_takes_at_least_one_event_at_once(self) -> None:
        """A limit of none would stand still for ever."""
        limit = self.make_sink().limit()
        assert 1 <= limit.events <= limit.max_events
        assert 1 <= limit.bytes <= limit.max_bytes

    def test_one_that_takes_some_events_only_does_not_look_for_missing_sequences(self) -> None:
        """It would be told of none of them; and its rule answers yes or no, the same each time."""
        sink = self.make_sink()
        if isinstance(sink, Selective):
            assert not sink.checks_sequence
            attributes = {name: value for name, value in json.loads(_event("0", 1, "")).items() if name != "data"}
            assert sink.takes(attributes) is sink.takes(attributes)

    def test_its_repr_shows_no_secret(self) -> None:
        """It stands in tracebacks."""
        text = repr(self.make_sink())
        assert not [secret for secret in self.secrets if secret in text]


class SinkContract(DestinationContract):
    """For dialects of HTTP."""

    def make_sink(self) -> Sink:
        """The destination under test."""
        raise _left_out(type(self), "make_sink")

    def accepting(self, batch: Batch) -> HttpReply:
        """An answer by which the receiver takes everything."""
        raise _left_out(type(self), "accepting")

    def _largest(self, sink: Sink) -> int:
        return min(sink.limit().events, BATCH_EVENTS)

    def test_what_it_sends_can_be_put_on_the_wire(self) -> None:
        """An https URL (http to this machine), headers without control characters, a body of bytes."""
        sink = self.make_sink()
        request = sink.render(batch_of(self._largest(sink), '\u202e@everyone <!channel> \\ " \n \U0001f600'))
        _check_request(request)

    def test_what_is_accepted_is_delivered(self) -> None:
        """All of it."""
        sink = self.make_sink()
        batch = batch_of(self._largest(sink))
        verdict = sink.decide(batch, self.accepting(batch), NOW_US)
        assert verdict.action is Action.SETTLE
        assert {id_: verdict.items[id_].fate for id_ in batch.ids} == dict.fromkeys(batch.ids, Fate.DELIVERED)

    def test_without_an_answer_nothing_is_settled(self) -> None:
        """Whether it arrived is not known, so it is sent again."""
        sink = self.make_sink()
        for reason in NEVER_SETTLES:
            verdict = sink.decide(batch_of(1), NoReply(reason), NOW_US)
            assert verdict.action is Action.BACK_OFF, reason

    def test_an_outage_costs_no_event(self) -> None:
        """A receiver in trouble, however it says so, makes no dead letters."""
        sink = self.make_sink()
        for status in (408, 425, 429, 500, 502, 503, 504):
            verdict = sink.decide(batch_of(1), HttpReply(status), NOW_US)
            assert verdict.action is Action.BACK_OFF, status
            assert 0 <= verdict.retry_after_s <= 3600

    def test_refused_credentials_stop_it_and_keep_everything(self) -> None:
        """A person has to mend them; the events wait."""
        sink = self.make_sink()
        for status in (401, 403):
            assert sink.decide(batch_of(1), HttpReply(status), NOW_US).action in (Action.PAUSE, Action.DISABLE), status

    def test_no_redirect_counts_as_delivered(self) -> None:
        """It may lead anywhere."""
        sink = self.make_sink()
        for status in (301, 302, 303, 307, 308):
            assert sink.decide(batch_of(1), HttpReply(status), NOW_US).action is not Action.SETTLE, status

    def test_no_answer_at_all_can_hurt(self) -> None:
        """Whatever comes: a verdict, about the events that were sent, in words that can be printed."""
        sink = self.make_sink()
        batch = batch_of(min(3, self._largest(sink)))
        for outcome in _everything():
            verdict = sink.decide(batch, outcome, NOW_US)
            assert isinstance(verdict, Verdict), outcome
            assert set(verdict.items) <= set(batch.ids), f"{outcome}: it settles events that were not sent"
            assert set(complete(verdict, batch.ids).items) <= set(batch.ids)
            assert 0 <= verdict.retry_after_s <= 3600, outcome
            for said in (verdict.reason, *(item.reason for item in verdict.items.values())):
                assert said.isprintable(), outcome
                assert len(said) <= 500, outcome


def _everything() -> Iterator[HttpOutcome]:
    for status in (*range(100, 600), 0, 999):
        yield HttpReply(status, HEADERS[status % len(HEADERS)], BODIES[status % len(BODIES)])
    for status in (200, 202, 204, 400, 404, 429, 503):
        for body in BODIES:
            for headers in HEADERS:
                yield HttpReply(status, headers, body)
    for reason in (*NEVER_SETTLES, "request", "settings"):
        yield NoReply(reason, "in our words")


class ChatSinkContract(DestinationContract):
    """For dialects of messages, which people read."""

    def make_sink(self) -> ChatSink:
        """The destination under test."""
        raise _left_out(type(self), "make_sink")

    def accepting(self, request: HttpRequest) -> HttpReply:
        """An answer by which the service shows what was posted."""
        raise _left_out(type(self), "accepting")

    def test_whatever_it_shows_can_be_put_on_the_wire(self) -> None:
        """Rich and plain: an https URL (http to this machine), headers in ASCII, a body of bytes."""
        for text in _HOSTILE:
            for plain in (False, True):
                _check_request(self.make_sink().post(_message(text), plain=plain))

    def test_what_is_accepted_is_shown(self) -> None:
        """And settled."""
        sink = self.make_sink()
        told = sink.told(self.accepting(sink.post(_message("a step"))), NOW_US)
        assert (told.verdict.action, told.remedy) == (Action.SETTLE, Remedy.NONE)

    def test_a_post_without_an_answer_may_have_arrived(self) -> None:
        """So it is not repeated blindly: people would read it twice. One that was never sent can be repeated."""
        sink = self.make_sink()
        for reason in ("timeout", "broken"):
            told = sink.told(NoReply(reason), NOW_US)
            assert told.verdict.action is not Action.SETTLE, reason
            assert told.remedy is Remedy.IT_MAY_HAVE_ARRIVED, reason
        assert sink.told(NoReply("connect"), NOW_US).remedy is Remedy.NONE

    def test_no_answer_settles_what_nobody_has_seen(self) -> None:
        """Trouble, refusals and redirects."""
        sink = self.make_sink()
        for status in (301, 307, 401, 403, 429, 500, 502, 503):
            assert sink.told(HttpReply(status), NOW_US).verdict.action is not Action.SETTLE, status

    def test_no_answer_at_all_can_hurt_it(self) -> None:
        """Whatever comes: a verdict, in words that can be printed."""
        sink = self.make_sink()
        for outcome in _everything():
            for is_edit in (False, True):
                verdict = sink.told(outcome, NOW_US, is_edit=is_edit).verdict
                assert 0 <= verdict.retry_after_s <= 3600, outcome
                assert verdict.reason.isprintable(), outcome
                assert len(verdict.reason) <= 500, outcome


_HOSTILE = ("a step", '\u202e@everyone <!channel> \\ " \n \U0001f600', "x" * 4_000)


def _message(text: str) -> Message:
    message = message_of(json.loads(_event("01a207af-1842-726b-b2a7-000000000001", 1, text)))
    assert message is not None
    return message


def _check_request(request: HttpRequest) -> None:
    url = urlsplit(request.url)
    assert url.scheme == "https" or url.hostname in ("127.0.0.1", "localhost", "::1")
    assert isinstance(request.body, bytes)
    for name, value in request.headers.items():
        assert f"{name}{value}".isprintable(), f"header {name}"
        assert value.isascii(), f"header {name}"


class DirectSinkContract(DestinationContract):
    """For destinations with a wire of their own."""

    def make_sink(self) -> DirectSink:
        """The destination under test, with a receiver that works."""
        raise _left_out(type(self), "make_sink")

    def arrived(self, sink: DirectSink) -> Sequence[str]:
        """The ids that the receiver holds, each as often as it holds it."""
        raise _left_out(type(self), "arrived")

    def test_what_is_delivered_has_arrived(self) -> None:
        """In order, and all of it."""
        sink = self.make_sink()
        batch = batch_of(min(5, sink.limit().events))
        verdict = sink.deliver(batch, deadline_s=DEADLINE_S)
        assert verdict.action is Action.SETTLE
        assert {id_: verdict.items[id_].fate for id_ in batch.ids} == dict.fromkeys(batch.ids, Fate.DELIVERED)
        assert list(self.arrived(sink)) == list(batch.ids)
        sink.close()

    def test_a_repeat_is_settled_too(self) -> None:
        """The flusher sends again what it does not know to have arrived."""
        sink = self.make_sink()
        batch = batch_of(1)
        for _ in range(2):
            verdict = sink.deliver(batch, deadline_s=DEADLINE_S)
            assert complete(verdict, batch.ids).items[batch.ids[0]].fate is Fate.DELIVERED
        assert set(self.arrived(sink)) == set(batch.ids)
        sink.close()

    def test_it_works_again_after_it_was_closed(self) -> None:
        """An election may be lost and won."""
        sink = self.make_sink()
        sink.close()
        assert sink.deliver(batch_of(1), deadline_s=DEADLINE_S).action is Action.SETTLE
        sink.close()
