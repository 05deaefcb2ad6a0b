"""What a destination must be able to do: a dialect over HTTP (``Sink``), or a wire of its own (``DirectSink``).

A destination speaks; the flusher decides when, acts on the verdict, and keeps the cursor. Nothing here is called by
more than one thread at a time, and never while a transaction is open. What raises counts as an outage: the flusher
backs off, keeps everything and says so in ``status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.http import HttpOutcome, HttpRequest
from orchclient.core.policy import Verdict

if TYPE_CHECKING:  # who tells nobody does not pay for it
    from orchclient.core.message import Message
    from orchclient.core.noise import NoiseRules
    from orchclient.core.source_report import SourceReport
    from orchclient.core.telling import Told
from orchclient.core.polling import Heard


class Destination(Protocol):
    """What every destination has."""

    name: str
    """1 to 64 lower-case letters, digits, ``-`` and ``_``; unique in an outbox, its cursor is kept under it."""

    kind: str
    """The dialect, such as ``orchestrator``."""

    target: str
    """Tells one configuration from another without its secrets, for example a digest of the URL."""

    from_beginning: bool
    """Whether a new destination gets the journal from its beginning, or from now on."""

    checks_sequence: bool
    """Whether its receiver looks for missing sequences, so that it must be told of those that will not come."""

    def limit(self) -> BatchLimit:
        """How much the receiver takes at once; never more than 500 events are given."""


class Sink(Destination, Protocol):
    """A dialect of HTTP: requests out, answers in. The flusher owns the connection and the deadline."""

    def greeting(self) -> HttpRequest | None:
        """A question to ask before the first batch, None for none."""

    def greeted(self, outcome: HttpOutcome, now_us: int) -> Verdict | None:
        """Read the answer to the greeting; None when delivery may begin, else what to do instead."""

    def render(self, batch: Batch) -> HttpRequest:
        """The request that delivers a batch."""

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        """What the answer means for the events of the batch."""


class Closed(Exception):
    """Raised by ``deliver`` when ``close`` ended it: nobody's failure, and nothing is known of the batch."""


class DirectSink(Destination, Protocol):
    """A wire of its own: a database, a queue, a file."""

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        """Hand a batch over within ``deadline_s`` seconds, and say what became of each event.

        May raise ``Closed``. Whatever else it raises is an outage. One that imports much may have a method ``load``,
        which is called before, where a fork waits for its end, and ``forget_inherited`` for a forked child.
        """

    def close(self) -> None:
        """Let go of what is open; ``deliver`` may be called again afterwards.

        Called from another thread to cut a ``deliver`` that takes too long at the end.
        """


@runtime_checkable
class Selective(Protocol):
    """A destination that does not take every event. One without this method takes all."""

    def takes(self, attributes: Mapping[str, Any]) -> bool:
        """Whether an event is for it, by its attributes (docs/wire.md, "The envelope"): ``type``, ``priority`` ...

        Pure, and the same for the same event. What it does not take is settled without being sent and counts as
        delivered. Not for a destination whose receiver looks for missing sequences.
        """


@runtime_checkable
class Checkable(Protocol):
    """A destination with a wire of its own that can be asked whether it would work. For ``orchclient doctor``."""

    def trouble(self, deadline_s: float) -> str:
        """What keeps it from delivering, in words; empty when it could. Changes nothing."""


@runtime_checkable
class Reporting(Protocol):
    """A destination with a wire of its own that knows what it holds. For ``orchclient verify``."""

    def source_report(self, source: str, *, deadline_s: float) -> SourceReport:
        """What is held of an outbox (a UUID). Raises ``OrchClientError``."""


class InboxDialect(Protocol):
    """The way back: requests out, pages in. Called by one thread, which is not the one that delivers."""

    longest_wait_s: float
    """How long the receiver holds a poll at most."""

    def greeting(self) -> HttpRequest:
        """A question to ask before the first poll."""

    def greeted(self, outcome: HttpOutcome) -> None:
        """Learn from the answer; what is none teaches nothing."""

    def poll(self, source: str, cursor: str, wait_s: float) -> HttpRequest:
        """The request for the items of an outbox (a UUID) behind a cursor, "" for none yet."""

    def polled(self, outcome: HttpOutcome, now_us: int) -> Heard:
        """The page in the answer, or what is wrong."""

    def acknowledgement(self, source: str, cursor: str) -> HttpRequest:
        """The request that tells that everything up to the cursor is stored."""

    def acknowledged(self, outcome: HttpOutcome, now_us: int) -> Heard:
        """Whether that was heard, or what is wrong."""


class DirectInbox(Protocol):
    """The way back of a destination with a wire of its own. Called by one thread, which is not the delivering one."""

    longest_wait_s: float
    """How long ``page`` waits at most."""

    def page(self, source: str, cursor: str, wait_s: float, cut: Event) -> Heard:
        """The items of an outbox (a UUID) behind a cursor, "" for none yet; waits for some until ``cut`` is set."""

    def acknowledge(self, source: str, cursor: str) -> Heard:
        """Everything up to the cursor is stored."""


class ChatSink(Destination, Protocol):
    """A dialect of messages, for people: it gets no events, a desk plans messages out of them.

    The flusher owns the connection and the deadline.
    """

    can_edit: bool
    """Whether a message that was posted can be changed later."""

    shortest_edit_s: float
    """Seconds between two changes of one message, or between two messages of one task where none can be changed."""

    rules: NoiseRules
    """When it is told what, as the user set it."""

    public_url: str
    """Where people answer; empty for nowhere."""

    shared_limit: str
    """Names a limit of the service that counts several destinations together; empty for none, never a secret."""

    def post(self, message: Message, *, plain: bool = False) -> HttpRequest:
        """The request that shows a message; ``plain``: as simply as possible, since the rich form was refused."""

    def edit(self, message: Message, message_id: str, *, plain: bool = False) -> HttpRequest:
        """The request that puts a message in the place of one that was posted."""

    def told(self, outcome: HttpOutcome, now_us: int, *, is_edit: bool = False) -> Told:
        """What the answer means."""

    def probe(self) -> HttpRequest | None:
        """A request that shows nobody anything: whether there is an answer tells if messages may be sent."""

    def probed(self, outcome: HttpOutcome, now_us: int) -> Told:
        """What the answer to the probe means: settled when messages may be sent, else what to do."""


class Threaded(Protocol):
    """A chat that keeps a thread for each task: the first message of a task is the root, all others stand below it."""

    def reply(self, message: Message, root_id: str, *, plain: bool = False) -> HttpRequest:
        """The request that shows a message in the thread below another one."""


AnySink = Sink | DirectSink | ChatSink


def inbox_of(sink: AnySink) -> InboxDialect | DirectInbox | None:
    """The way back from a destination that has one: its attribute ``inbox``."""
    return getattr(sink, "inbox", None)


def is_called(inbox: InboxDialect | DirectInbox) -> TypeGuard[DirectInbox]:
    """Whether an inbox is asked by calls instead of requests."""
    return hasattr(inbox, "page")


def is_direct(sink: AnySink) -> TypeGuard[DirectSink]:
    """Whether a destination has a wire of its own."""
    return hasattr(sink, "deliver")


def is_chat(sink: AnySink) -> TypeGuard[ChatSink]:
    """Whether a destination is told messages instead of events."""
    return hasattr(sink, "told")


def is_threaded(sink: ChatSink) -> TypeGuard[Threaded]:
    """Whether a chat keeps a thread for each task."""
    return hasattr(sink, "reply")


def speaks_http(sink: AnySink) -> TypeGuard[Sink]:
    """Whether a destination is a dialect of HTTP."""
    return not is_direct(sink) and not is_chat(sink)
