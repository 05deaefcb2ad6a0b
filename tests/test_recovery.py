"""Exceptions escalated, work that is tried again, errors that are logged: what a person gets to see of each."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchclient import EscalationHandler, InvalidEvent, OrchestratorClient, OutboxError, Task, recovering
from orchclient.aio import OrchestratorClient as AioClient
from orchclient.core.backoff import Backoff
from orchclient.core.exceptions import described, error_type_of
from orchclient.core.recovery import Recovery
from tests.conftest import MakeClient
from tests.delivery.doubles import StillClock
from tests.test_client import stored


class RecordedClock(StillClock):
    """Remembers for how long it was asked to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.pass_s(seconds)


class LoginError(Exception):
    error_type = "github_api_auth"


@pytest.fixture
def clock() -> RecordedClock:
    return RecordedClock()


@pytest.fixture
def client(make_client: MakeClient, clock: RecordedClock) -> OrchestratorClient:
    return make_client(clock=clock, background=False)


@pytest.fixture
def task(client: OrchestratorClient) -> Task:
    return client.task("t")


def told(path: Path) -> list[str]:
    """What each event tells: the step of an update, or the type of an error with its number of attempts."""
    return [_told(event["data"]) for event in stored(path)]


def _told(data: dict[str, Any]) -> str:
    return data.get("current_step") or f"{data['error_type']} after {data['recovery_attempts']}"


def failing(times: int, error: type[BaseException] = ConnectionError) -> Callable[[], str]:
    """Work that fails so many times, then is done."""
    left = iter(range(times))

    def work() -> str:
        for number in left:
            raise error(f"failure {number + 1}")
        return "done"

    return work


def in_a_loop(task: Task, work: Callable[[], str], **options: Any) -> str:
    for attempt in task.recovering("network", **options):
        with attempt:
            return work()
    raise AssertionError("the last attempt returns or raises")


def decorated(task: Task, work: Callable[[], str], **options: Any) -> str:
    return task.recovering("network", **options)(work)()


def decorated_async(task: Task, work: Callable[[], str], **options: Any) -> str:
    @task.recovering("network", **options)
    async def tried() -> str:
        return work()

    return asyncio.run(tried())


SHAPES = [in_a_loop, decorated, decorated_async]


# --- an exception -------------------------------------------------------------------------------------------------


def test_an_exception_is_escalated_with_its_type_traceback_and_history(
    client: OrchestratorClient, outbox_path: Path
) -> None:
    try:
        raise LoginError("401")
    except LoginError as error:
        history = [{"attempt": 1, "action": "renewed the login"}]
        escalation = client.escalate_exception("t", error, {"api": "/repos"}, recovery_history=history)
    data = stored(outbox_path)[0]["data"]
    assert (data["error_type"], data["error_message"], data["recovery_attempts"]) == ("github_api_auth", "401", 1)
    assert (data["recovery_history"], data["context"], str(escalation.priority)) == (
        history,
        {"api": "/repos"},
        "critical",
    )
    assert 'raise LoginError("401")' in data["traceback"]


class Broken(Exception):
    error_type = 7

    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_the_type_of_an_exception_is_its_class_s_word_or_the_class_s_name(client: OrchestratorClient) -> None:
    assert [error_type_of(error) for error in (LoginError(), KeyError(), Broken())] == [
        "github_api_auth",
        "KeyError",
        "Broken",
    ]
    assert described(Broken()) == "Broken: (Broken without a readable message)"
    assert client.escalate_exception("t", Broken())


def test_an_exception_that_was_escalated_as_fatal_is_not_escalated_again_by_the_task(
    client: OrchestratorClient, outbox_path: Path
) -> None:
    def fails(fatal: bool) -> None:
        with client.task("t") as task:
            try:
                raise LookupError("x")
            except LookupError as error:
                task.escalate(error, fatal=fatal)
                raise

    for fatal in (True, False):
        with pytest.raises(LookupError):
            fails(fatal)
    assert [event["data"]["fatal"] for event in stored(outbox_path) if "fatal" in event["data"]] == [True, False, True]


# --- recovering ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_work_that_succeeds_at_once_tells_nothing(task: Task, outbox_path: Path, shape: Callable[..., str]) -> None:
    assert shape(task, failing(0)) == "done"
    assert stored(outbox_path) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_work_is_tried_again_with_growing_waits_and_told_step_by_step(
    task: Task, outbox_path: Path, clock: RecordedClock, shape: Callable[..., str]
) -> None:
    task.update("testing", current_step="Testing")
    assert shape(task, failing(3)) == "done"
    assert told(outbox_path)[1:] == [
        "Recovering from network: attempt 1 of 3",
        "Recovering from network: attempt 2 of 3",
        "Recovering from network: attempt 3 of 3",
        "Recovered from network after 3 attempts",
    ]
    assert {event["data"]["status"] for event in stored(outbox_path)} == {"testing"}
    assert clock.slept == [0.5, 1.0, 2.0]  # half of 1, 2, 4: the jitter of the test's clock
    assert task.recovery_attempts == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_work_that_goes_on_failing_is_escalated_once_with_the_whole_history_and_raises(
    client: OrchestratorClient, outbox_path: Path, shape: Callable[..., str]
) -> None:
    with pytest.raises(ConnectionError, match="failure 4"), client.task("t") as task:
        shape(task, failing(9), context={"host": "x"})
    (event,) = [event for event in stored(outbox_path) if event["type"].endswith("escalated.v1")]
    data = event["data"]
    assert (data["error_type"], data["recovery_attempts"], event["priority"]) == ("network", 3, "high")
    assert [entry["error"] for entry in data["recovery_history"]] == [
        f"ConnectionError: failure {number}" for number in (1, 2, 3)
    ]
    assert (data["error_message"], data["context"]) == ("failure 4", {"host": "x"})
    assert "ConnectionError: failure 4" in data["traceback"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, concurrent.futures.CancelledError, GeneratorExit]
)
def test_interrupts_exits_and_cancellations_are_never_tried_again(
    task: Task, outbox_path: Path, shape: Callable[..., str], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        shape(task, failing(1, error), on=BaseException)
    assert stored(outbox_path) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_exceptions_of_another_kind_pass_at_once(task: Task, outbox_path: Path, shape: Callable[..., str]) -> None:
    with pytest.raises(KeyError):
        shape(task, failing(1, KeyError), on=(OSError, TimeoutError))
    assert stored(outbox_path) == []


@pytest.mark.parametrize("shape", SHAPES)
def test_no_attempts_means_that_the_first_failure_is_escalated(
    task: Task, outbox_path: Path, shape: Callable[..., str]
) -> None:
    with pytest.raises(ConnectionError):
        shape(task, failing(1), attempts=0, fatal=False)
    assert told(outbox_path) == ["network after 0"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_disk_that_refuses_never_hides_the_work_s_own_exception(
    task: Task, client: OrchestratorClient, shape: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    client.close()
    assert shape(task, failing(2)) == "done"
    with pytest.raises(ConnectionError):
        shape(task, failing(9))
    assert "could not be told" in caplog.text


def test_an_attempt_has_a_number_and_the_loop_needs_its_with(task: Task) -> None:
    numbers = []
    work = failing(2)
    for attempt in task.recovering("network"):
        with attempt:
            numbers.append(attempt.number)
            work()
    assert numbers == [0, 1, 2]
    with pytest.raises(RuntimeError, match="with attempt"):
        for _ in task.recovering("network"):
            pass


def test_a_decorated_function_keeps_its_name_and_every_call_begins_anew(task: Task) -> None:
    outcomes = iter([failing(3), failing(3)])

    @recovering(task, "network", clock=RecordedClock())
    def push() -> str:
        return current()

    assert push.__name__ == "push"
    for work in outcomes:
        current = work
        assert push() == "done"


@pytest.mark.parametrize("attempts", [-1, True, "3", 1.5])
def test_a_number_of_attempts_that_is_none_is_refused(task: Task, attempts: Any) -> None:
    with pytest.raises(InvalidEvent, match="attempts"):
        task.recovering("network", attempts)


def test_waits_stay_within_their_band_and_the_plan_is_never_changed() -> None:
    plan = Recovery("x", 100, Backoff(1.0, 60.0))
    first = plan
    for number in range(1, 100):
        assert 0 <= plan.delay_s(0.999) <= min(2.0 ** (number - 1), 60.0)
        plan = plan.after("e", plan.delay_s(0.5))
    assert (len(plan.history), first.history, plan.is_exhausted) == (99, (), False)


def test_the_asynchronous_client_s_tasks_recover_too(outbox_path: Path, clock: RecordedClock) -> None:
    async def main() -> None:
        async with AioClient("a", outbox=outbox_path, clock=clock) as client:
            task = client.task("t")

            @task.recovering("network")
            async def push(work: Callable[[], str]) -> str:
                return work()

            assert await push(failing(2)) == "done"
            async for attempt in task.recovering("network"):
                async with attempt:
                    failing(attempt.number == 0)()
            with pytest.raises(ConnectionError):
                await push(failing(9))
            for wrong in (lambda: iter(task.recovering("x")), lambda: task.recovering("x")(lambda: None)):
                with pytest.raises(TypeError, match="awaited"):
                    next(wrong())  # type: ignore[operator]

    asyncio.run(main())
    assert told(outbox_path)[-1] == "network after 3"
    assert clock.slept == [0.5, 1.0, 0.5, 0.5, 1.0, 2.0]


def test_a_cancelled_wait_between_attempts_ends_the_recovery(outbox_path: Path) -> None:
    async def main() -> None:
        async with AioClient("a", outbox=outbox_path) as client:
            push = client.task("t").recovering("network", backoff=Backoff(3600, 3600))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(push(_fail)(), 0.2)

    async def _fail() -> None:
        raise ConnectionError

    asyncio.run(main())
    assert told(outbox_path) == ["Recovering from network: attempt 1 of 3"]


# --- logged errors ------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("some_agent.work")
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


@pytest.fixture
def handler(client: OrchestratorClient, clock: RecordedClock, logger: logging.Logger) -> EscalationHandler:
    handler = EscalationHandler(client, "t", clock=clock)
    logger.addHandler(handler)
    return handler


@pytest.mark.usefixtures("handler")
def test_a_logged_error_is_escalated_and_less_is_not(logger: logging.Logger, outbox_path: Path) -> None:
    logger.warning("slow")
    logger.error("cannot reach %s", "db-1")
    try:
        raise LoginError("401")
    except LoginError:
        logger.exception("no login")
    plain, raised = [event["data"] for event in stored(outbox_path)]
    assert (plain["error_type"], plain["error_message"], plain["fatal"]) == ("logged_error", "cannot reach db-1", False)
    assert (raised["error_type"], raised["error_message"]) == ("github_api_auth", "no login")
    assert "LoginError: 401" in raised["traceback"]
    assert plain["context"]["logger"] == "some_agent.work"
    assert plain["context"]["function"] == "test_a_logged_error_is_escalated_and_less_is_not"
    assert plain["dedup_key"].startswith("log:some_agent.work:test_recovery.py:")


def test_a_loop_of_errors_counts_up_and_does_not_flood(
    handler: EscalationHandler, logger: logging.Logger, outbox_path: Path, clock: RecordedClock
) -> None:
    for number in range(1000):
        logger.error("failure %d", number)
        clock.pass_s(0.0625)  # exact
    events = [event["data"] for event in stored(outbox_path)]
    assert [event["error_message"] for event in events] == ["failure 0", "failure 960"]
    assert events[1]["context"]["records_since_last"] == 959
    handler.close()
    last = stored(outbox_path)[-1]["data"]
    assert (last["error_message"], last["context"]["records_since_last"]) == ("failure 999", 38)
    assert len({event["data"]["dedup_key"] for event in stored(outbox_path)}) == 1


def test_nothing_that_goes_wrong_reaches_the_agent_s_logging(
    handler: EscalationHandler,
    logger: logging.Logger,
    client: OrchestratorClient,
    capsys: pytest.CaptureFixture[str],
    outbox_path: Path,
) -> None:
    # Not by the logger: pytest's own handler would raise.
    handler.handle(logging.LogRecord("a", logging.ERROR, "x.py", 1, "%d apples", ("no number",), None))
    client.close()
    logger.error("the outbox is closed")
    logger.error("still")
    assert capsys.readouterr().err == ""
    assert stored(outbox_path)[0]["data"]["error_message"] == "%d apples"


def test_its_own_records_and_those_of_its_work_are_not_heard(
    client: OrchestratorClient, outbox_path: Path, clock: RecordedClock, logger: logging.Logger
) -> None:
    class Talkative:
        escalate_exception = client.escalate_exception

        def escalate_error(self, *args: Any, **kwargs: Any) -> Any:
            logger.error("about to escalate")
            logging.getLogger("orchclient").error("of our own")
            return client.escalate_error(*args, **kwargs)

    root, handler = logging.getLogger(), EscalationHandler(Talkative(), "t", clock=clock)
    root.addHandler(handler)
    try:
        logger.error("one")
    finally:
        root.removeHandler(handler)
    assert [event["data"]["error_message"] for event in stored(outbox_path)] == ["one"]


def test_threads_that_log_at_once_lose_no_count(
    handler: EscalationHandler, logger: logging.Logger, outbox_path: Path
) -> None:
    threads = [
        threading.Thread(target=lambda: [logger.error("x") for _ in range(50)])  # type: ignore[func-returns-value]
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    handler.flush()
    events = [event["data"] for event in stored(outbox_path)]
    assert len(events) + sum(event["context"].get("records_since_last", 0) for event in events) == 200


def test_places_that_are_quiet_are_forgotten_first(
    handler: EscalationHandler, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchclient.escalating.MOST_TROUBLES", 2)
    for line in (1, 2, 3, 1, 1):
        handler.handle(logging.LogRecord("a", logging.ERROR, "x.py", line, "m", None, None))
    assert [event["data"]["dedup_key"] for event in stored(outbox_path)] == [f"log:a:x.py:{n}" for n in (1, 2, 3, 1)]


def test_an_asynchronous_client_is_refused(outbox_path: Path) -> None:
    with pytest.raises(TypeError, match="synchronous"):
        EscalationHandler(AioClient("a", outbox=outbox_path), "t")


def test_a_closed_outbox_still_raises_for_the_agent_s_own_calls(client: OrchestratorClient) -> None:
    client.close()
    with pytest.raises(OutboxError):
        client.escalate_exception("t", ValueError("x"))
