"""Waiting for people in asyncio: the loop goes on, others record, and a wait that nobody awaits any more ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchclient.aio import Completion
from orchclient.testing import Receiver
from tests.aio.conftest import MakeAio
from tests.aio.test_calls import threads, until

TOTAL_S = 60


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, TOTAL_S))


def test_an_answer_is_awaited_while_others_record_and_is_taken_once(make_aio: MakeAio, receiver: Receiver) -> None:
    async def main() -> None:
        async with make_aio(url=receiver.url) as client:
            question = await client.request_clarification("t", "Which?", options=["a", "b"])
            answer = asyncio.create_task(question.wait(TOTAL_S))
            await until(lambda: bool(threads("orchclient-wait")))
            for n in range(20):
                await client.update_task_status("t", "clarification_needed", {"n": n})
            assert not answer.done()
            await asyncio.to_thread(receiver.answer, question.id, "b")
            given = await answer
            assert given is not None
            assert given.choice == "b"
            assert await question.state == "answered"
            assert await question.answer == given
            assert await client.open_clarifications() == ()
            known = await client.clarification(question.id)
            assert known is not None
            assert await known.wait() == given

    run(main())


def test_a_review_is_awaited(make_aio: MakeAio, receiver: Receiver) -> None:
    async def main() -> None:
        async with make_aio(url=receiver.url) as client:
            completion = await client.report_completion("t", None, {}, review=True)
            assert isinstance(completion, Completion)
            review = completion.review
            assert review is not None
            waits = asyncio.create_task(review.wait(TOTAL_S))
            await asyncio.to_thread(receiver.wait_for, 1, 20)
            await asyncio.to_thread(receiver.review, completion, "approved")
            decision = await waits
            assert decision is not None
            assert (decision.outcome, await review.state) == ("approved", "answered")

    run(main())


@pytest.mark.parametrize("background", [True, False])
def test_a_cancelled_wait_for_a_person_settles_nothing_and_frees_its_thread(
    make_aio: MakeAio, receiver: Receiver, background: bool
) -> None:
    async def main() -> None:
        client = make_aio(url=receiver.url, background=background)
        question = await client.request_clarification("t", "Which?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await question.wait()
        await until(lambda: not threads("orchclient-wait"))
        assert (await question.state, await question.answer) in (("open", None), ("seen", None))
        assert await client.update_task_status("t", "in_progress")

    run(main())


def test_several_questions_are_awaited_at_once(make_aio: MakeAio, receiver: Receiver) -> None:
    async def main() -> None:
        async with make_aio(url=receiver.url) as client:
            questions = [await client.request_clarification("t", f"Question {n}?") for n in range(4)]
            waits = [asyncio.create_task(question.wait(TOTAL_S)) for question in questions]
            for n in (2, 0, 3, 1):
                await asyncio.to_thread(receiver.answer, questions[n].id, f"answer {n}")
            given = await asyncio.gather(*waits)
            assert [each and each.text for each in given] == [f"answer {n}" for n in range(4)]

    run(main())
