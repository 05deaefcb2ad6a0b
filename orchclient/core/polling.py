"""When to ask for the inbox, and what its answers do to that: two pure functions and one table.

Source: docs/wire.md, "The inbox". Instants are monotonic seconds of the caller's clock; jitter comes in as an argument.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import evolve, field, frozen

from orchclient.core.backoff import OUTAGE, probe_delay_s
from orchclient.core.http import HttpOutcome, NoReply
from orchclient.core.inbox_page import Page
from orchclient.core.limits import LONG_POLL_S
from orchclient.core.policy import bounded_wait_s

FLOOR_S = 1.0
"""Between the starts of two polls, unless the first one's page said that there is more."""

SLOW_S = 60.0
"""Between two polls while nothing is open and nobody said that anything waits."""

SHARED_WAIT_S = 2.0
"""How long a poll is held when several sources have something open: the others wait meanwhile."""


class InboxState(StrEnum):
    """How the way back fares, the same words from here to the command line."""

    POLLING = "polling"
    WAITING = "waiting"  # backs off after a failure
    ABSENT = "absent"  # the receiver has no inbox
    PAUSED = "paused"  # the receiver refuses us


@frozen
class Heard:
    """What came of one poll or acknowledgement. ``page`` is there for a poll that went well."""

    state: InboxState
    reason: str = ""
    retry_after_s: float = 0.0
    page: Page | None = field(default=None, repr=False)


_ABSENT = frozenset({404, 405, 410, 501})
_BACK_OFF = frozenset({408, 425, 429})
_BY_CLASS = {2: InboxState.POLLING, 3: InboxState.PAUSED, 4: InboxState.PAUSED}


def state_for(outcome: HttpOutcome) -> InboxState:
    """The row of the table "Answer to a poll or an acknowledgement"; a status that is none is trouble over there."""
    if isinstance(outcome, NoReply):
        # A request that cannot be put on the wire will not be better in a second: somebody has to mend the settings.
        return InboxState.PAUSED if outcome.reason == "request" else InboxState.WAITING
    if outcome.status in _ABSENT:
        return InboxState.ABSENT
    if outcome.status in _BACK_OFF:
        return InboxState.WAITING
    return _BY_CLASS.get(outcome.status // 100, InboxState.WAITING)


@frozen
class Pace:
    """Where the polling of one inbox stands."""

    state: InboxState = InboxState.POLLING
    reason: str = ""
    failures: int = 0  # in a row, of the kind that the state tells
    not_before_s: float = 0.0
    started_s: float | None = None  # the last poll
    has_more: bool = False
    is_hinted: bool = False  # a reply to a batch said that items wait
    is_throttled: bool = False  # the receiver said when to come back

    def starting(self, now_s: float) -> Pace:
        """A poll starts: what was hinted before it is asked for by it."""
        return evolve(self, started_s=now_s, is_hinted=False)

    def hinted(self) -> Pace:
        """Items wait, a reply to a batch said."""
        return evolve(self, is_hinted=True)

    def hurried(self) -> Pace:
        """Somebody asks to try now; what the receiver throttled stays so."""
        if self.is_throttled or self.state is InboxState.POLLING:
            return self
        return evolve(self, not_before_s=0.0, is_hinted=True)

    def after(self, heard: Heard, now_s: float, jitter: float) -> Pace:
        """The pace after a poll, or an acknowledgement."""
        if heard.state is InboxState.POLLING:
            has_more = heard.page is not None and heard.page.has_more
            return evolve(
                self,
                state=heard.state,
                reason="",
                failures=0,
                not_before_s=now_s,
                has_more=has_more,
                is_throttled=False,
            )
        failures = self.failures + 1 if heard.state is self.state else 1
        floor_s = bounded_wait_s(heard.retry_after_s)
        is_outage = heard.state is InboxState.WAITING
        delay_s = OUTAGE.delay_s(failures, jitter, floor_s) if is_outage else probe_delay_s(failures, jitter)
        return evolve(
            self,
            state=heard.state,
            reason=heard.reason,
            failures=failures,
            not_before_s=now_s + delay_s,
            has_more=False,
            is_throttled=floor_s > 0,
            is_hinted=self.is_hinted or is_outage,  # what was asked for has not come
        )


@frozen
class NextPoll:
    """When to poll, in seconds from now, and for how long the receiver may hold it."""

    in_s: float
    wait_s: float


def next_poll(pace: Pace, now_s: float, open_sources: int, longest_wait_s: float = LONG_POLL_S) -> NextPoll:
    """The next poll of an inbox, as things stand now: long while something is open, now and then otherwise.

    ``open_sources`` counts the sources under which something that is open was asked.
    """
    if pace.has_more:
        return NextPoll(max(pace.not_before_s - now_s, 0.0), 0.0)
    every_s = FLOOR_S if open_sources or pace.is_hinted else SLOW_S
    due_s = max(pace.not_before_s, now_s if pace.started_s is None else pace.started_s + every_s)
    return NextPoll(max(due_s - now_s, 0.0), _held_s(open_sources, longest_wait_s))


def _held_s(open_sources: int, longest_wait_s: float) -> float:
    if not open_sources:
        return 0.0
    return min(longest_wait_s, LONG_POLL_S if open_sources == 1 else SHARED_WAIT_S)
