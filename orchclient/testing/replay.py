"""Recordings in tests: delivered to a receiver through the real flusher, or held against what an agent records now."""

from __future__ import annotations

import io
import json
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from orchclient import __version__, recordings
from orchclient.client import OrchestratorClient
from orchclient.core.errors import InvalidRecording
from orchclient.core.jsontext import encode
from orchclient.core.recording import Header, redacted, stored_event
from orchclient.core.redaction import Redactor
from orchclient.core.timestamps import microseconds_of
from orchclient.outbox import carrying
from orchclient.outbox.carrying import Arriving, Slice
from orchclient.testing.clock import ManualClock
from orchclient.testing.differences import MOST, differences, normalised
from orchclient.testing.expectations import is_heartbeat
from orchclient.testing.receiver import Receiver
from orchclient.testing.recorded import Recorded

if TYPE_CHECKING:
    from orchclient.testing.recorded import AnyClient

Event = dict[str, Any]
Mode = Literal["none", "once", "rewrite"]

SOURCE = "urn:uuid:00000000-0000-4000-8000-000000000000"
"""In place of the outbox in a recording that a test wrote: the same in every run, so that a diff shows what changed."""

NOTHING = (
    "Nothing was recorded. Has the agent the outbox of the test: orch_client, or a client that it makes in the test?"
)

BACKOFF_S = 61.0
"""Longer than the longest back-off."""


@frozen
class Delivered:
    """What became of a recording at a receiver."""

    sent: Sequence[Event] = field(repr=False)
    received: Sequence[Event] = field(repr=False)
    pending: int
    dead: int
    duplicates: int

    def assert_all_delivered(self) -> None:
        """Every event of the recording arrived. Raises ``AssertionError`` that names those that did not."""
        arrived = {event["id"] for event in self.received}
        missing = [
            f"  event {place} ({event['type']} of {event['subject']!r})"
            for place, event in enumerate(self.sent, 1)
            if event["id"] not in arrived
        ]
        if missing:
            head = (
                f"{len(missing)} of {len(self.sent)} events did not arrive ({self.pending} pending, {self.dead} dead):"
            )
            raise AssertionError("\n".join([head, *missing[:MOST]]))

    def assert_order_per_task(self) -> None:
        """Events of a task arrived in the order in which they were recorded. Raises ``AssertionError``."""
        places = {event["id"]: place for place, event in enumerate(self.sent, 1)}
        last: dict[str, int] = {}
        for event in self.received:
            place = places.get(event["id"], 0)
            before = last.get(event["subject"], 0)
            if place < before:
                named = f"event {place} ({event['type']} of {event['subject']!r})"
                raise AssertionError(f"{named} arrived after event {before}")
            last[event["subject"]] = place


class Replay:
    """Recordings of one test. Without a name, the one that is named after the test.

        with replay.compare("review.jsonl", client=client):
            my_agent(client)

    ``mode``: ``none`` compares and writes nothing, ``once`` writes what is missing, ``rewrite`` writes all anew.
    """

    def __init__(
        self,
        directory: Path,
        name: str = "recording.jsonl",
        *,
        mode: Mode = "none",
        client: Callable[[], OrchestratorClient] | None = None,
        names: Mapping[str, str] | None = None,
        workspace: Path | None = None,
    ) -> None:
        self._directory = directory
        self._name = name
        self._mode = mode
        self._client = client
        self._names = {name: shown for name, shown in {**(names or {}), socket.gethostname(): "<host>"}.items() if name}
        self._workspace = workspace
        self._numbers, self._blocks = count(1), count(1)
        self._written: set[Path] = set()

    def path(self, name: str | None = None) -> Path:
        """Where a recording is."""
        return self._directory / (name or self._name)

    def events(self, name: str | None = None) -> list[Event]:
        """The events of a recording.

        Raises ``AssertionError`` when there is none, ``InvalidRecording`` for one that is broken or holds a secret.
        """
        __tracebackhide__ = True
        return self._events_at(self.path(name))

    def _events_at(self, path: Path) -> list[Event]:
        __tracebackhide__ = True
        if not path.is_file():
            raise AssertionError(f"there is no recording {path}. Write it: pytest --orch-record=once")
        with path.open("rb") as file:
            try:
                return _checked(file)
            except InvalidRecording as error:
                raise InvalidRecording(error.line, f"{error.problem} ({path})") from None

    # --- deliver --------------------------------------------------------------------------------------------------

    def deliver(
        self, name: str | None = None, *, to: Receiver, timeout: float = 30.0, token: str | None = None
    ) -> Delivered:
        """Send a recording to a receiver, through an outbox and the flusher as in earnest.

        What goes wrong is the receiver's ``plan``; back-offs pass at once, so that an outage costs no time. After
        ``timeout`` seconds what is left counts as pending. Raises as ``events``.
        """
        sent, seen_before, clock = self.events(name), to.repeats, ManualClock()
        until = time.monotonic() + timeout
        client = OrchestratorClient(
            "replay", outbox=self._new_outbox(), url=to.url, token=token, background=False, clock=clock
        )
        try:
            _take_in(client, sent)
            while client.flush(max(until - time.monotonic(), 0.0)).pending and time.monotonic() < until:
                clock.advance(BACKOFF_S)
            (sink,) = client._station.report().sinks
        finally:
            client.close(0)
        wanted = {event["id"] for event in sent}
        repeats = Counter(to.repeats) - Counter(seen_before)
        return Delivered(
            sent,
            [event for event in to.events if event["id"] in wanted],
            sink.pending,
            sink.dead,
            sum(repeats[each] for each in wanted),
        )

    def _new_outbox(self) -> Path:
        if self._workspace is None:
            self._workspace = Path(tempfile.mkdtemp(prefix="orchclient-replay-"))
        return self._workspace / f"replay-{next(self._numbers)}.db"

    # --- compare --------------------------------------------------------------------------------------------------

    def __call__(
        self, name: str | None = None, *, client: AnyClient | None = None, ignore: str | Sequence[str] = ()
    ) -> AbstractContextManager[Recorded]:
        """The same as ``compare``."""
        return self.compare(name, client=client, ignore=ignore)

    def compare(
        self, name: str | None = None, *, client: AnyClient | None = None, ignore: str | Sequence[str] = ()
    ) -> AbstractContextManager[Recorded]:
        """Hold what is recorded in the block against a recording, or write that, as the mode says.

        ``client`` is one of those that use the outbox, an asynchronous one too; what others record into it counts as
        well. Ids, times, sources, names of the host and paths of the run are put aside. ``ignore`` puts a field
        more aside, or several, such as ``data.current_step``. A second block without a name has a recording of its own.

        Raises ``AssertionError``: at once when there is no recording to compare with, at the end of the block one that
        names each event and field that differs. Raises ``InvalidRecording`` for one that is broken or holds a secret.
        """
        if client is None and self._client is None:
            raise TypeError("compare needs the client whose events are compared: client=...")
        put_aside = [ignore] if isinstance(ignore, str) else ignore
        return _Comparison(self, self.path(name or self._next_name()), client or self._client, put_aside)

    def _next_name(self) -> str:
        number = next(self._blocks)
        stem, ending = os.path.splitext(self._name)
        return self._name if number == 1 else f"{stem}.{number}{ending}"

    def _writes(self, path: Path) -> bool:
        """Whether a block writes its recording; one that this test wrote already is compared with."""
        if path in self._written:
            return False
        return self._mode == "rewrite" or (self._mode == "once" and not path.exists())

    def _write(self, path: Path, events: Sequence[Event], redactor: Redactor) -> None:
        _write(path, events, redactor)
        self._written.add(path)

    def _check(self, expected: Sequence[Event], got: Sequence[Event], path: Path, ignore: Sequence[str]) -> None:
        __tracebackhide__ = True
        expected = [event for event in expected if not is_heartbeat(event)]  # of an export; the run's are left out
        found = differences(normalised(expected, self._names), normalised(got, self._names), ignore)
        if found:
            shown = [f"  {line}" for line in found[:MOST]]
            shown += [f"  ... and {len(found) - MOST} more"] if len(found) > MOST else []
            shown += [] if got else [NOTHING]
            head = f"the run differs from {path} in {len(found)} place{'' if len(found) == 1 else 's'}:"
            raise AssertionError("\n".join([head, *shown, "If that is as it should be: pytest --orch-record=rewrite"]))


class _Comparison(AbstractContextManager[Recorded]):
    """One block of a test. Its frames stay out of a failing test's traceback: what is wrong is not here."""

    def __init__(
        self, replay: Replay, path: Path, client: AnyClient | Callable[[], AnyClient] | None, ignore: Sequence[str]
    ) -> None:
        self._replay, self._path, self._client, self._ignore = replay, path, client, ignore
        self._expected: list[Event] | None = None

    def __enter__(self) -> Recorded:
        __tracebackhide__ = True
        if not self._replay._writes(self._path):
            self._expected = self._replay._events_at(self._path)
        client: Any = self._client() if callable(self._client) else self._client
        self._recorded = Recorded(client)
        self._begins = self._recorded.last_seq
        return self._recorded

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        __tracebackhide__ = True
        if kind is not None:
            return
        got = self._recorded.events(after_seq=self._begins)
        if self._expected is None:
            if not got:
                raise AssertionError(f"there is nothing to write to {self._path}. {NOTHING}")
            self._replay._write(self._path, got, self._recorded._redactor)
        else:
            self._replay._check(self._expected, got, self._path, self._ignore)


def _checked(file: IO[bytes]) -> list[Event]:
    """The events of a recording that is whole and holds no secret."""
    _, events = recordings.events_of(file)
    for place, event in enumerate(events, 1):
        if json.loads(redacted(encode(event), Redactor())) != event:
            raise InvalidRecording(place + 1, "holds what looks like a secret: take it out, and make it unusable")
    return list(events)


def _write(path: Path, events: Sequence[Event], redactor: Redactor) -> None:
    """The same bytes whenever a run says the same by the same clock."""
    plain = [
        json.loads(redacted(json.dumps({**event, "source": SOURCE, "sequence": f"{place:020d}"}), redactor))
        for place, event in enumerate(events, 1)
    ]
    recorded_at = plain[-1]["time"] if plain else ""
    text = recordings.recording_text(Header(SOURCE, 1, len(plain), len(plain), recorded_at, __version__), plain)
    _, checked = recordings.events_of(io.BytesIO(text.encode()))
    assert len(checked) == len(plain)  # what is written can be read
    path.parent.mkdir(parents=True, exist_ok=True)
    with recordings.private_file(path) as file:
        file.write(text.encode())
    os.chmod(path, 0o644)  # it goes into a repository


def _take_in(client: OrchestratorClient, events: Sequence[Event]) -> None:
    """Into the client's empty outbox, at places without a hole: a recording may be a selection."""
    station: Any = client._station
    source = station.new_source()  # a receiver that gets several recordings takes each for another outbox
    arriving = [
        Arriving(place + 1, source, place, stored_event(event, _us(event))) for place, event in enumerate(events, 1)
    ]
    for start in range(0, len(arriving), carrying.SLICE):
        part = Slice(start + 1, arriving[start : start + carrying.SLICE])
        station.take_in(lambda con: carrying.take_in(con, part, station.new_source, 0))  # noqa: B023


def _us(event: Event) -> int:
    return microseconds_of(event["time"]) or 0
