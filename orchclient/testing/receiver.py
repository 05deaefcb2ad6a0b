"""A loopback orchestrator for tests and demos: a real HTTP server that remembers, and misbehaves on demand.

It must not know what an orchestrator answers (``orchestrator``) nor what a fault looks like (``faultplan``):
it opens the port, carries requests and replies between the two, and shows the test what happened.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

from attrs import evolve, field, frozen

from orchclient.core.http import HttpReply, HttpRequest
from orchclient.testing.door import HOST, Door, bound
from orchclient.testing.expectations import Expectation, told_of_unmet
from orchclient.testing.faultplan import Event, Fault, Line, Match, Refused, Rule, encoded, problem
from orchclient.testing.humans import Humans
from orchclient.testing.items import WRONG_DIGEST
from orchclient.testing.orchestrator import (
    ACK_PATH,
    EVENTS_PATH,
    INBOX_PATH,
    Batch,
    Conflict,
    InMemoryOrchestrator,
    Terms,
)

__all__ = ["ACK_PATH", "EVENTS_PATH", "INBOX_PATH", "WRONG_DIGEST", "Conflict", "Fault", "Receiver", "SeenRequest"]

_NO_FAULT = Fault.ok()


@frozen
class SeenRequest:
    """One request that arrived whole. ``status`` is None while, or because, no answer was given."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    arrived_s: float  # monotonic
    ids: tuple[str, ...] = ()
    fault: Fault = field(factory=Fault.ok)
    status: int | None = None

    @property
    def event_count(self) -> int:
        """How many events the request carried."""
        return len(self.ids)


class Receiver(Humans):
    """An orchestrator on loopback, in memory, with people who answer as the test says.

    ``with Receiver() as receiver:`` opens it; ``stop()`` and ``start()`` inside take it down and bring it
    back on the same port with everything it kept. Any method may be called from any thread.

        with Receiver() as receiver, OrchestratorClient("me", url=receiver.url) as client:
            question = client.request_clarification("task-1", "Ship it?", options=["yes", "no"])
            receiver.answer(question, "yes", after_s=0.2)

    People ``answer``, ``see``, ``review``, ``cancel``, ``message`` ..., on time or late, once or twice, well or badly.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        token: str | None = None,
        capabilities: Mapping[str, Any] | None = None,
        accepts_gzip: bool = False,
        max_body_bytes: int | None = None,
        max_events: int | None = None,
        inbox_page: int = 50,
        inbox_hints: bool = True,
    ) -> None:
        terms = Terms(token, capabilities, accepts_gzip, max_body_bytes, max_events, inbox_page, inbox_hints)
        super().__init__(InMemoryOrchestrator(terms))
        self._plans: defaultdict[str, deque[Fault]] = defaultdict(deque)  # by path
        self._defaults: dict[str, Fault] = {}
        self._rules: tuple[Rule, ...] = ()
        self._releases = 0
        self._numbers = count(1)
        self._requests: dict[int, SeenRequest] = {}
        self._expected: list[Expectation] = []
        self._port = port
        self._door: Door | None = None
        self._entered = False
        self._reserved: socket.socket | None = None
        self._lifecycle = threading.Lock()

    # Up and down

    def start(self) -> Receiver:
        """Opens the port: a free one at first unless one was given, the same one ever after."""
        with self._lifecycle:
            if self._door is None:
                listener = self._reserved or bound(self._port)
                self._reserved = None
                self._port = listener.getsockname()[1]
                self._door = Door(listener, self._converse)
        return self

    def stop(self) -> None:
        """Closes the port and every connection at once, whatever they were doing; forgets nothing."""
        with self._lifecycle:
            if self._door is not None:
                with self._changed:
                    self._door.down.set()
                    self._changed.notify_all()
                self._door.close()
                self._door = None
                self._reserved = bound(self._port) if self._entered else None

    def __enter__(self) -> Receiver:
        self._entered = True
        return self.start()

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        unmet = "" if raised is not None else self.unmet()
        self._entered = False
        self._forget_plans()
        self.stop()
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None
        if unmet:
            raise AssertionError(unmet)

    @property
    def url(self) -> str:
        """Its base URL, for ``OrchestratorClient(url=...)``; the same before and after ``stop()``."""
        if not self._port:
            raise RuntimeError("the receiver has no url before its first start()")
        return f"http://{HOST}:{self._port}"

    # What it is to do

    def plan(self, *faults: Fault, on: str = EVENTS_PATH) -> None:
        """Adds faults: each request to the path takes the next, whatever becomes of it; by default POSTs of events.

        ``receiver.plan(Fault.status(503), Fault.lose_reply(), on=INBOX_PATH)`` troubles the next two polls. Faults that
        concern single events (``reject``, ``retry`` ...) do nothing to other requests.
        """
        with self._changed:
            self._plans[on].extend(faults)

    def always(self, fault: Fault, *, on: str = EVENTS_PATH) -> None:
        """Sets the fault of every request to the path for which the plan has none left.

        ``receiver.always(Fault.status(404), on=INBOX_PATH)`` is an orchestrator without an inbox.
        """
        with self._changed:
            self._defaults[on] = fault

    def heal(self) -> None:
        """Drops the plans and ``always``, and releases whatever hangs; permanent rules stay."""
        with self._changed:
            self._plans.clear()
            self._defaults.clear()
            self.release()

    def release(self) -> None:
        """Ends every hang that is under way: the requests are answered as usual."""
        with self._changed:
            self._releases += 1
            self._changed.notify_all()

    def reject(self, match: Match, *, code: str = "invalid", detail: str = "rejected by the test") -> None:
        """From now on, events that match (event id, task id or predicate) are rejected and not kept."""
        with self._changed:
            self._rules += Fault.reject(match, code=code, detail=detail).rules

    def retry(self, match: Match, *, code: str = "busy", detail: str = "deferred by the test") -> None:
        """From now on, events that match, and later ones of their tasks in the batch, are to be retried."""
        with self._changed:
            self._rules += Fault.retry(match, code=code, detail=detail).rules

    def forget(self, matches: Callable[[Event], bool]) -> int:
        """Loses the events that match, as an orchestrator that was restored from a backup; how many those were."""
        return self._orchestrator.forget(matches)

    def lift_rules(self) -> None:
        """Ends everything that ``reject`` and ``retry`` made permanent."""
        with self._changed:
            self._rules = ()

    # What is expected of the agent

    def expect(
        self,
        type: str | None = None,  # noqa: A002  the word of the wire
        task: str | None = None,
        *,
        within: float = 0.0,
        times: int | None = None,
        **data: Any,
    ) -> Expectation:
        """Expect events; one that never came is an ``AssertionError`` at the end of the ``with`` block or of the test.

        :param type: such as ``task.completed``, with its prefix and version or without.
        :param task: of this task only.
        :param within: at the end, wait so many seconds for it.
        :param times: exactly so many; default: at least one.
        :param data: members of its data, such as ``status="failed"``.
        """
        expected = Expectation(type, task, data, times, within)
        self._expected.append(expected)
        return expected

    def drop_expectations(self) -> None:
        """Expect nothing any more."""
        self._expected.clear()

    @property
    def expects_something(self) -> bool:
        """Whether anything is expected."""
        return bool(self._expected)

    def unmet(self, *, wait: bool = True) -> str:
        """What was expected and has not come, in words; empty when all came. Waits as long as they allow."""
        for each in self._expected:
            if wait and each.within_s:
                self.wait_for(lambda receiver, each=each: each.is_met(receiver.events), each.within_s)  # type: ignore[misc]
        events = self.events
        return told_of_unmet([each for each in self._expected if not each.is_met(events)], events)

    # What it saw; every list is a copy

    @property
    def events(self) -> list[Event]:
        """What it kept, each event once, in order of arrival."""
        with self._changed:
            return list(self._orchestrator.events)

    @property
    def repeats(self) -> Counter[str]:
        """How often each event id came again after it was kept."""
        with self._changed:
            return Counter(self._orchestrator.repeats)

    @property
    def conflicts(self) -> list[Conflict]:
        """Events that were rejected because another one of their source has the same sequence."""
        with self._changed:
            return list(self._orchestrator.conflicts)

    @property
    def inbox(self) -> list[Event]:
        """The items that are not acknowledged yet."""
        with self._changed:
            return self._orchestrator.inbox.items

    @property
    def said(self) -> list[Event]:
        """Every item that was put in an inbox, acknowledged or not, in order."""
        with self._changed:
            return list(self._orchestrator.inbox.history)

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request that arrived whole, in the order in which their answers were decided or put off."""
        with self._changed:
            return list(self._requests.values())

    @property
    def failures(self) -> list[Exception]:
        """What the test's own predicates raised (the client got a 500), and its policies."""
        with self._changed:
            return list(self._failures)

    def by_task(self) -> dict[str, list[Event]]:
        """What it kept, by task id, each in order of arrival; events without a task are left out."""
        tasks: dict[str, list[Event]] = {}
        for event in self.events:
            if event.get("subject") is not None:
                tasks.setdefault(event["subject"], []).append(event)
        return tasks

    # Waiting

    def wait_for(self, wanted: int | Callable[[Receiver], bool], timeout: float) -> bool:
        """Waits until so many events are kept or the predicate holds; false when the time (s) is up first."""
        reached = wanted if callable(wanted) else lambda r: len(r._orchestrator.events) >= wanted
        with self._changed:
            return self._changed.wait_for(lambda: reached(self), timeout)

    def wait_for_requests(self, n: int, timeout: float, path: str | None = None) -> bool:
        """Waits until n requests have arrived (on this path); one that hangs or polls counts."""
        return self.wait_for(lambda r: sum(path in (None, s.path) for s in r.requests) >= n, timeout)

    # Serving

    def _converse(self, line: Line) -> None:
        """Serves one connection until either side ends it."""
        try:
            while (request := line.read()) is not None and self._serve(line, request):
                pass
        except Refused as refused:
            line.write(encoded(refused.reply))
        except OSError:
            raise  # the client has gone, or stop() took the connection away: nobody to answer
        except Exception as failure:  # noqa: BLE001 - the predicates of a test may raise anything
            with self._changed:
                self._failures.append(failure)
            line.write(encoded(problem(500, repr(failure))))

    def _serve(self, line: Line, request: HttpRequest) -> bool:
        path = request.url.partition("?")[0]
        seen = SeenRequest(next(self._numbers), request.method, path, request.headers, time.monotonic())
        with self._changed:  # together, or a heal() in between would miss this hang
            plan = self._plans[path]
            fault = plan.popleft() if plan else self._defaults.get(path, _NO_FAULT)
            releases = self._releases
        is_events = (request.method, path) == ("POST", EVENTS_PATH)
        batch = self._orchestrator.batch(request) if is_events else Batch()
        seen = evolve(seen, ids=tuple(event["id"] for event in batch.events), fault=fault)
        if fault.holds:
            self._hold(line, seen, lambda: self._releases > releases, fault.hold_s)
            line.require_client()
        if is_events:
            return self._serve_events(line, seen, batch)
        reply = fault.instead or self._orchestrator.answer(request, partial(self._hold, line, seen))
        self._note(seen, reply.status if fault.answers else None)
        return fault.manner.send(line, encoded(HttpReply(reply.status) if fault.bare else reply))

    def _serve_events(self, line: Line, seen: SeenRequest, batch: Batch) -> bool:
        with self._changed:  # together, or a waiter could see the events without the request
            reply = self._reply(seen.fault, batch)
            self._note(seen, reply.status if seen.fault.answers else None)
        return seen.fault.manner.send(line, encoded(reply))

    def _reply(self, fault: Fault, batch: Batch) -> HttpReply:
        if fault.instead is not None:
            return fault.instead
        reply = self._orchestrator.ingest(batch, (*fault.rules, *self._rules))
        return HttpReply(reply.status) if fault.bare else reply

    def _note(self, seen: SeenRequest, status: int | None) -> None:
        with self._changed:
            self._requests[seen.number] = evolve(seen, status=status)
            self._changed.notify_all()

    def _hold(self, line: Line, seen: SeenRequest, until: Callable[[], bool], timeout_s: float | None) -> None:
        """Shows the request as waiting, and waits; raises when the receiver goes down meanwhile."""
        with self._changed:
            self._note(seen, None)
            self._changed.wait_for(lambda: line.down.is_set() or until(), timeout_s)
        line.pause(0)
