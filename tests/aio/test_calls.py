"""Awaited calls: recorded in order, with no loop blocked, whole or not at all; waits that hold nobody up."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchclient import ConfigError, InvalidEvent, NotificationPriority, OutboxBusy, OutboxError, TaskStatus
from orchclient.aio import OrchestratorClient
from orchclient.aio.calls import Calls
from orchclient.testing import Fault, Receiver
from tests.aio.conftest import Lock, MakeAio
from tests.test_client import stored


def types(path: Path) -> list[str]:
    return [event["type"].removeprefix("dev.orchclient.") for event in stored(path)]


def steps(path: Path) -> list[str]:
    return [event["data"].get("current_step") for event in stored(path)]


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something another thread does is done."""
    while not holds():
        await asyncio.sleep(0.002)


_of_other_tests: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _other_threads() -> None:
    _of_other_tests.update(threading.enumerate())


def threads(name: str) -> list[threading.Thread]:
    """Those that this test started and that live."""
    return [each for each in threading.enumerate() if each.name == name and each not in _of_other_tests]


# --- the verbs ----------------------------------------------------------------------------------------------------


def test_the_calls_of_the_first_users_work_as_they_stand(make_aio: MakeAio, outbox_path: Path) -> None:
    client = make_aio()

    async def main() -> dict[str, Any]:
        await client.update_task_status(
            task_id="task-123",
            status=TaskStatus.IN_PROGRESS,
            progress_percentage=45,
            current_step="Generating Flask routes",
        )
        await client.request_clarification(
            task_id="task-123",
            questions=["Should the API require authentication?"],
            priority=NotificationPriority.MEDIUM,
            context={"endpoint": "/api/users"},
        )
        await client.report_completion(
            task_id="task-123",
            pr_url="https://github.com/repo/pull/42",
            test_results={"tests_passed": 15, "tests_failed": 1},
            artifacts={"generated_files": ["app.py", "models.py"]},
        )
        await client.escalate_error(
            task_id="task-123",
            error_type="github_api_auth",
            error_message="Authentication failed",
            recovery_attempts=2,
            context={"api_endpoint": "/repos/user/project"},
        )
        return await client.get_communication_stats()

    stats = asyncio.run(main())
    assert types(outbox_path) == [
        "task.status.v1",
        "clarification.requested.v1",
        "task.completed.v1",
        "error.escalated.v1",
    ]
    told = [stats[name] for name in ("updates_sent", "clarifications_requested", "completions_reported")]
    assert (told, stats["errors_escalated"], stats["agent_id"]) == ([1, 1, 1], 1, "agent-1")


def test_handles_hold_what_they_hold_and_await_what_they_do(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        client = make_aio()
        question = await client.request_clarification("t", "Which?", options=["a", "b"])
        assert question
        assert (question.id, question.task_id) == (question.receipt.event_id, "t")
        assert await question.withdraw("found out")
        done = await client.report_completion("t", None, {"tests_passed": 1})
        assert (done.quality_score, done.event_id) == (80.0, done.receipt.event_id)
        assert (await client.escalate_error("t", "x", "m", 3)).priority is NotificationPriority.HIGH

    asyncio.run(main())
    assert types(outbox_path)[1] == "clarification.withdrawn.v1"


def test_a_task_is_started_told_of_and_its_exception_escalated(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        async with make_aio() as client, client.task("t") as task:
            await task.progress(10, "Reading", files=3)
            assert (await task.snapshot()).progress_percentage == 10
            assert await task.recovery_attempted("lost connection", "reconnected") == task.recovery_attempts == 1
            raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError):
        asyncio.run(main())
    escalation = stored(outbox_path)[-1]["data"]
    assert (escalation["error_type"], escalation["recovery_attempts"]) == ("RuntimeError", 1)
    assert "in main" in escalation["traceback"]


def test_a_cancelled_task_of_the_agent_is_no_error(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        async with make_aio() as client, asyncio.timeout(0.05), client.task("t"):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert types(outbox_path) == ["task.status.v1"]


def test_a_task_s_handle_may_be_awaited_too(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        task = await make_aio().task("t")
        await task.update("testing")

    asyncio.run(main())
    assert types(outbox_path) == ["task.status.v1"]


def test_bad_arguments_and_bad_settings_raise_where_they_are_awaited(make_aio: MakeAio) -> None:
    async def main() -> None:
        with pytest.raises(InvalidEvent):
            await make_aio().update_task_status("t", "no such state")
        with pytest.raises(ConfigError):
            await make_aio(url="ftp://x").health()
        with pytest.raises(ConfigError):
            async with make_aio(no_such_setting=1):
                pass

    asyncio.run(main())


def test_a_span_of_the_caller_is_the_span_of_the_event(make_aio: MakeAio, outbox_path: Path) -> None:
    trace = pytest.importorskip("opentelemetry.sdk.trace")

    async def main() -> int:
        async with make_aio() as client:
            with trace.TracerProvider().get_tracer("t").start_as_current_span("s") as span:
                await client.update_task_status("t", "testing")
        return span.get_span_context().trace_id

    assert f"{asyncio.run(main()):032x}" in stored(outbox_path)[0]["traceparent"]


# --- order --------------------------------------------------------------------------------------------------------


def test_calls_that_are_gathered_are_recorded_in_their_order(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        async with make_aio() as client:
            calls = [client.update_task_status(f"t{n % 3}", "in_progress", current_step=str(n)) for n in range(200)]
            receipts = await asyncio.gather(*calls)
            assert [receipt.seq for receipt in receipts] == list(range(1, 201))

    asyncio.run(main())
    assert steps(outbox_path) == [str(n) for n in range(200)]


def test_a_flush_begins_when_the_calls_before_it_are_done(make_aio: MakeAio, receiver: Receiver) -> None:
    async def main() -> None:
        async with make_aio(url=receiver.url, background=False) as client:
            *_, report = await asyncio.gather(
                *(client.update_task_status("t", "testing", current_step=str(n)) for n in range(20)), client.flush(10)
            )
            assert (report.delivered, report.pending) == (20, 0)

    asyncio.run(main())


# --- nothing is blocked -------------------------------------------------------------------------------------------


async def record_while_the_loop_holds_the_lock(client: OrchestratorClient, lock: Lock) -> None:
    """Only a loop that goes on can let go of the lock that the call waits for."""
    async with client:
        lock.take()
        asyncio.get_running_loop().call_later(0.05, lock.release)
        await client.update_task_status("t", "testing")


def test_the_loop_goes_on_while_a_call_waits_for_the_disk(make_aio: MakeAio, lock: Lock) -> None:
    asyncio.run(record_while_the_loop_holds_the_lock(make_aio(), lock))


def test_a_client_that_blocks_the_loop_is_found(make_aio: MakeAio, lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calls, "_submit", lambda self, job: job.perform())
    with pytest.raises(OutboxBusy):
        asyncio.run(record_while_the_loop_holds_the_lock(make_aio(), lock))


def test_others_record_while_somebody_waits_for_a_flush(make_aio: MakeAio, receiver: Receiver) -> None:
    receiver.always(Fault.hang())

    async def main() -> None:
        client = make_aio(url=receiver.url)
        await client.update_task_status("t", "testing")
        flush = asyncio.create_task(client.flush(60))
        await until(lambda: bool(threads("orchclient-wait")))
        for n in range(20):
            await client.update_task_status("t", "in_progress", progress_percentage=n)
        assert (await client.health()).recorded == 21
        assert not flush.done()
        flush.cancel()
        await asyncio.gather(flush, return_exceptions=True)
        await until(lambda: not threads("orchclient-wait"))

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize("background", [True, False])
def test_a_cancelled_wait_frees_its_thread_soon(make_aio: MakeAio, receiver: Receiver, background: bool) -> None:
    receiver.always(Fault.hang())

    async def main() -> None:
        client = make_aio(url=receiver.url, background=background)
        await client.update_task_status("t", "testing")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.flush(3600)
        await until(lambda: not threads("orchclient-wait"))
        assert await client.update_task_status("t", "in_progress")

    asyncio.run(asyncio.wait_for(main(), 30))


# --- cancellation -------------------------------------------------------------------------------------------------


def test_a_call_that_is_cancelled_before_its_turn_is_never_recorded_and_one_after_it_is(
    make_aio: MakeAio, lock: Lock, outbox_path: Path
) -> None:
    async def main() -> None:
        client = make_aio()
        await client.health()
        lock.take()
        begun, queued = (asyncio.create_task(client.update_task_status(name, "testing")) for name in ("a", "b"))
        await until(
            lambda: not any(job.future is None for job in client._calls._jobs) and len(client._calls._jobs) == 1
        )
        for call in (begun, queued):
            call.cancel()
        cancelled = await asyncio.gather(begun, queued, return_exceptions=True)
        assert [type(each) for each in cancelled] == [asyncio.CancelledError] * 2
        lock.release()
        await client.update_task_status("c", "testing")

    asyncio.run(main())
    assert [event["subject"] for event in stored(outbox_path)] == ["a", "c"]


def test_a_call_that_is_cancelled_anywhere_is_recorded_whole_or_not_at_all(
    make_aio: MakeAio, outbox_path: Path
) -> None:
    async def main() -> list[str]:
        async with make_aio() as client:
            acknowledged = []
            for n in range(200):
                call = asyncio.create_task(client.escalate_error(f"t{n}", "x", "m" * 10_000))
                for _ in range(n % 7):
                    await asyncio.sleep(0)
                call.cancel()
                (result,) = await asyncio.gather(call, return_exceptions=True)
                if not isinstance(result, BaseException):
                    acknowledged.append(f"t{n}")
            assert (await client.health()).recorded >= len(acknowledged)
            return acknowledged

    acknowledged = asyncio.run(main())
    kept = [event["subject"] for event in stored(outbox_path)]
    assert set(acknowledged) <= set(kept)
    assert kept == sorted(set(kept), key=lambda name: int(name[1:]))


# --- loops, ends, forks -------------------------------------------------------------------------------------------


def test_one_client_serves_one_loop_after_another_and_several_at_once(make_aio: MakeAio, outbox_path: Path) -> None:
    client = make_aio()

    async def main(name: str) -> None:
        for n in range(20):
            await client.update_task_status(name, "in_progress", progress_percentage=n)

    for name in ("first", "second"):
        asyncio.run(main(name))
    loops = [threading.Thread(target=lambda name=name: asyncio.run(main(name))) for name in "abc"]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(30)
    assert len(stored(outbox_path)) == 100
    for name in ("first", "second", *"abc"):
        own = [event["data"]["progress_percentage"] for event in stored(outbox_path) if event["subject"] == name]
        assert own == list(range(20))


def test_the_client_s_thread_ends_when_it_is_closed_and_recording_is_refused(make_aio: MakeAio) -> None:
    async def main() -> None:
        async with make_aio() as client:
            await client.update_task_status("t", "testing")
            assert len(threads("orchclient-calls")) == 1
        await until(lambda: not threads("orchclient-calls"))
        with pytest.raises(OutboxError, match="closed"):
            await client.update_task_status("t", "testing")
        await client.close()

    asyncio.run(main())


def test_the_thread_ends_when_it_is_idle_and_another_one_goes_on(
    make_aio: MakeAio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Calls._serve, "__defaults__", (0.01,))

    async def main() -> None:
        client = make_aio()
        for _ in range(3):
            await client.update_task_status("t", "testing")
            await until(lambda: not threads("orchclient-calls"))

    asyncio.run(main())


def test_a_client_that_was_never_opened_is_closed_without_a_file(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        client = make_aio()
        await client.close()
        with pytest.raises(OutboxError, match="closed"):
            await client.health()

    asyncio.run(main())
    assert not outbox_path.exists()


def test_a_dropped_client_is_collected(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        client = OrchestratorClient("a", outbox=outbox_path, background=False)
        await client.update_task_status("t", "testing")

    asyncio.run(main())
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is OrchestratorClient and each.agent_id == "a"]


AT_EXIT = """
import asyncio, atexit, sys
from orchclient.aio import OrchestratorClient
client = OrchestratorClient("a", outbox=sys.argv[1])
async def tell(step):
    await client.update_task_status("t", "in_progress", current_step=step)
atexit.register(lambda: asyncio.run(tell("registered before the first call")))
asyncio.run(tell("in the program"))
atexit.register(lambda: asyncio.run(tell("registered after it")))
"""


def test_recording_works_while_the_interpreter_ends_and_nothing_is_printed(outbox_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", AT_EXIT, str(outbox_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert steps(outbox_path) == ["in the program", "registered after it", "registered before the first call"]


def test_where_no_thread_can_be_started_the_call_is_made_all_the_same(
    make_aio: MakeAio, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_aio(background=False)

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(threading.Thread, "start", refused)
        await client.update_task_status("t", "testing")
        await client.update_task_status("t", "testing")
        monkeypatch.undo()
        async with client.transaction() as own:
            await own.execute("CREATE TABLE own (a)")

    asyncio.run(main())
    assert len(stored(outbox_path)) == 2


def test_a_forked_child_records_with_its_parent_s_client(make_aio: MakeAio, outbox_path: Path) -> None:
    client = make_aio()

    async def tell(step: str) -> None:
        await client.update_task_status("t", "in_progress", current_step=step)

    asyncio.run(tell("parent"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(asyncio.wait_for(tell("child"), 20))
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    asyncio.run(tell("parent again"))
    assert steps(outbox_path) == ["parent", "child", "parent again"]


# --- secrets ------------------------------------------------------------------------------------------------------


def test_a_token_is_in_no_repr_no_attribute_and_no_pickle(make_aio: MakeAio) -> None:
    token = "orch-canary-token-1234567890"
    client = make_aio(url="https://x.example", token=token)

    async def shown() -> str:
        before = repr(client) + repr(vars(client)) + repr(vars(client._calls))
        await client.health()
        return before + repr(client) + repr(vars(client)) + repr(client.task("t"))

    assert token not in asyncio.run(shown())
    with pytest.raises(TypeError):
        pickle.dumps(client)


# --- a transaction ------------------------------------------------------------------------------------------------


def own_rows(path: Path) -> list[int]:
    con = sqlite3.connect(path)
    try:
        return [a for (a,) in con.execute("SELECT a FROM own")]
    finally:
        con.close()


async def with_own_table(client: OrchestratorClient) -> None:
    async with client.transaction() as own:
        await own.execute("CREATE TABLE own (a)")


def test_own_statements_and_events_are_durable_together(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        client = make_aio()
        await with_own_table(client)
        async with client.transaction() as own:
            await own.executemany("INSERT INTO own VALUES (?)", [(1,), (2,)])
            await asyncio.gather(client.update_task_status("t", "testing"), client.update_task_status("t", "testing"))
            assert await own.execute("SELECT a FROM own WHERE a > :a", {"a": 1}) == [(2,)]
            assert stored(outbox_path) == []
            assert await own.run(lambda con: con.in_transaction)

    asyncio.run(main())
    assert (own_rows(outbox_path), len(stored(outbox_path))) == ([1, 2], 2)


@pytest.mark.parametrize("how", ["error", "cancelled", "stop"])
def test_a_transaction_that_is_left_otherwise_leaves_nothing(make_aio: MakeAio, outbox_path: Path, how: str) -> None:
    async def block(client: OrchestratorClient) -> None:
        async with client.transaction() as own:
            await own.execute("INSERT INTO own VALUES (1)")
            await client.update_task_status("t", "testing")
            if how == "error":
                raise LookupError
            if how == "stop":
                await own.run(lambda con: next(iter(())))
            await asyncio.Event().wait()

    async def main() -> None:
        client = make_aio()
        await with_own_table(client)
        expected = {"error": LookupError, "cancelled": TimeoutError, "stop": RuntimeError}[how]
        with pytest.raises(expected):
            await asyncio.wait_for(block(client), 0.2 if how == "cancelled" else None)
        await client.update_task_status("after", "testing")

    asyncio.run(main())
    assert (own_rows(outbox_path), [event["subject"] for event in stored(outbox_path)]) == ([], ["after"])


def test_another_task_s_call_is_not_part_of_it_and_waits_for_its_end(make_aio: MakeAio, outbox_path: Path) -> None:
    async def main() -> None:
        client = make_aio()
        await with_own_table(client)
        inside, may_end = asyncio.Event(), asyncio.Event()

        async def failing() -> None:
            async with client.transaction():
                await client.update_task_status("inside", "testing")
                inside.set()
                await may_end.wait()
                raise LookupError

        failed = asyncio.create_task(failing())
        await inside.wait()
        other = asyncio.create_task(client.update_task_status("other", "testing"))
        await until(lambda: len(client._calls._jobs) == 1)
        may_end.set()
        await asyncio.gather(failed, return_exceptions=True)
        assert (await other).seq == 1

    asyncio.run(main())
    assert [event["subject"] for event in stored(outbox_path)] == ["other"]


def test_a_call_does_not_wait_for_ever_for_another_task_s_transaction(
    make_aio: MakeAio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchclient.aio.calls.HELD_TOTAL_S", 0.1)
    monkeypatch.setattr("orchclient.aio.calls.LOOK_S", 0.02)

    async def main() -> None:
        client = make_aio()
        inside = asyncio.Event()

        async def hanging() -> None:
            async with client.transaction():
                inside.set()
                await asyncio.Event().wait()

        hangs = asyncio.create_task(hanging())
        await inside.wait()
        with pytest.raises(OutboxBusy):
            await client.update_task_status("t", "testing")
        hangs.cancel()
        await asyncio.gather(hangs, return_exceptions=True)
        await client.update_task_status("t", "testing")

    asyncio.run(main())


def test_a_transaction_whose_loop_was_closed_is_rolled_back(
    make_aio: MakeAio, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchclient.aio.calls.LOOK_S", 0.02)
    client = make_aio()
    block = client.transaction()

    async def abandoned() -> None:
        await block.__aenter__()
        await client.update_task_status("lost", "testing")

    async def after(record: Callable[..., Awaitable[Any]]) -> None:
        await record("kept", "testing")

    asyncio.run(abandoned())
    asyncio.run(after(client.update_task_status))
    assert [event["subject"] for event in stored(outbox_path)] == ["kept"]


def test_a_transaction_that_is_cancelled_while_it_begins_holds_nobody(
    make_aio: MakeAio, lock: Lock, outbox_path: Path
) -> None:
    async def begin(client: OrchestratorClient) -> None:
        async with client.transaction():
            raise AssertionError("it was cancelled before")

    async def main() -> None:
        client = make_aio()
        await client.health()
        lock.take()
        beginning = asyncio.create_task(begin(client))
        await asyncio.sleep(0)
        await until(lambda: not client._calls._jobs)
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        lock.release()
        await client.update_task_status("t", "testing")

    asyncio.run(main())
    assert len(stored(outbox_path)) == 1


def test_a_wait_inside_a_transaction_is_refused(make_aio: MakeAio) -> None:
    async def main() -> None:
        async with make_aio().transaction():
            pass
        client = make_aio()
        with pytest.raises(OutboxError, match="inside transaction"):
            async with client.transaction():
                await client.flush()

    asyncio.run(main())
