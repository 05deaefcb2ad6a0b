"""``orchclient mcp`` as an agent host sees it: the SDK's own client, over the stdio of a real process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from orchclient.testing.receiver import Receiver
from tests.cli.inside import Inside, inside
from tests.docs.console import DOCS

pytest.importorskip("mcp", reason="the extra mcp is not installed")
anyio = pytest.importorskip("anyio")

LONG_S = 60.0

Call = Callable[..., Awaitable[dict[str, Any]]]


def talk(environment: dict[str, str], conversation: Callable[[Any], Awaitable[None]]) -> None:
    """Start the server as a host does, talk, and end it by closing its stdin."""
    from mcp import Client, StdioServerParameters, stdio_client

    root = str(Path(__file__).parents[2])
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "orchclient", "mcp", "--agent", "model"],
        env={"PYTHONPATH": root, "PYTHONWARNINGS": "ignore", **environment},
    )

    async def main() -> None:
        with anyio.fail_after(LONG_S):
            async with Client(stdio_client(server)) as client:
                await conversation(client)

    anyio.run(main)


async def called(client: Any, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool returned; one that failed is an error of the test."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    structured: dict[str, Any] = result.structured_content
    assert json.loads(result.content[0].text) == structured
    return structured


@pytest.fixture
def environment(outbox_path: Path, receiver: Receiver) -> dict[str, str]:
    return {"ORCHCLIENT_DB": str(outbox_path), "ORCHCLIENT_URL": receiver.url}


def test_a_host_tells_asks_hands_in_and_calls_for_help(
    environment: dict[str, str], receiver: Receiver, outbox_path: Path
) -> None:
    async def conversation(client: Any) -> None:
        told = await called(client, "update_task_status", task_id="t", progress_percentage=40, metadata={"a": [1]})
        assert (told["recorded"], told["cancel_requested"]) == (True, None)
        ask = {"task_id": "t", "question": "Which port?", "options": ["80", "8080"], "deadline": "2h"}
        asked = await called(client, "request_clarification", **ask)
        assert (asked["state"], asked["answer"]) == ("open", None)
        assert (await called(client, "request_clarification", **ask))["id"] == asked["id"]
        assert (await called(client, "get_clarification", clarification_id=asked["id"]))["state"] == "open"
        assert [each["id"] for each in (await called(client, "list_clarifications"))["open"]] == [asked["id"]]
        await anyio.to_thread.run_sync(lambda: receiver.answer(asked["id"], "8080"))
        for _ in range(5):
            found = await called(client, "get_clarification", clarification_id=asked["id"], wait_seconds=20)
            if found["state"] != "open":
                break
        assert (found["state"], found["answer"]["answers"]["q1"]["options"]) == ("answered", ["8080"])
        done = await called(client, "report_completion", task_id="t", test_results={"tests_passed": 1}, review=True)
        assert (done["quality_score"], done["review"]) == (80.0, True)
        assert (await called(client, "get_review", review_id=done["id"]))["state"] == "open"
        help_ = {"task_id": "u", "error_type": "database_connection", "error_message": "refused", "dedup_key": "db"}
        assert [(await called(client, "escalate_error", **help_))["count"] for _ in range(2)] == [1, 2]
        assert await called(client, "resolve_error", task_id="u", dedup_key="db") == {"resolved": True}
        task = await called(client, "get_task", task_id="t")
        assert (task["task"]["status"], task["cancel_requested"], task["messages"]) == ("review_ready", None, [])
        assert "orchestrator" in (await called(client, "get_delivery"))["destinations"]

    talk(environment, conversation)
    assert Inside(outbox_path, receiver.url)("flush", "--timeout", "20s").code == 0
    assert {event["agentid"] for event in receiver.events} == {"model"}
    assert len(receiver.events) == 7


def test_what_a_model_gets_wrong_is_told_to_it_and_records_nothing(
    environment: dict[str, str], outbox_path: Path
) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("update_task_status", {"task_id": "t", "status": "doing"}, "in_progress"),
        ("update_task_status", {"task_id": "a\nb"}, "task_id"),
        ("request_clarification", {"task_id": "t", "question": "What is the password?"}, "secret"),
        ("request_clarification", {"task_id": "t", "question": "q?", "deadline": "soon"}, "a duration such as"),
        ("get_clarification", {"clarification_id": "nothing"}, "nothing with the id"),
        ("get_clarification", {"clarification_id": "x", "wait_seconds": 3600}, "less than or equal to 25"),
        ("escalate_error", {"task_id": "t", "error_type": "e", "error_message": "m", "recovery_attempts": -1}, "0"),
    ]

    async def conversation(client: Any) -> None:
        for tool, arguments, message in wrong:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert message in result.content[0].text

    talk(environment, conversation)
    assert Inside(outbox_path).json("list")["events"] == []


def test_a_wait_that_the_host_gives_up_ends_soon_and_the_question_stays(environment: dict[str, str]) -> None:
    async def conversation(client: Any) -> None:
        asked = await called(client, "request_clarification", task_id="t", question="Which port?")
        with anyio.move_on_after(0.5) as scope:
            await called(client, "get_clarification", clarification_id=asked["id"], wait_seconds=25)
        assert scope.cancelled_caught
        assert (await called(client, "withdraw_clarification", clarification_id=asked["id"]))["withdrawn"]
        assert (await called(client, "get_clarification", clarification_id=asked["id"]))["state"] == "withdrawn"

    talk(environment, conversation)


def test_the_page_has_every_tool_with_its_hints(environment: dict[str, str]) -> None:
    page = (DOCS / "mcp.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([a-z, -]+) \|$", page, re.M))
    found = {}

    async def conversation(client: Any) -> None:
        assert "data with a named sender" in client.instructions.replace("\n", " ")
        for tool in (await client.list_tools()).tools:
            hints = tool.annotations
            words = [
                *(["read-only"] if hints.read_only_hint else []),
                *(["idempotent"] if hints.idempotent_hint else []),
                *(["open world"] if hints.open_world_hint else []),
            ]
            found[tool.name] = ", ".join(words) or "records"
            assert tool.description
            assert tool.output_schema

    talk(environment, conversation)
    assert found == rows


def test_the_configuration_of_the_page_starts_it() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", (DOCS / "mcp.md").read_text(), re.M | re.S)
    server = json.loads(block)["mcpServers"]["orchclient"]
    assert (server["command"], server["args"][0]) == ("orchclient", "mcp")
    assert inside(*server["args"], "--help").code == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each == "orchclient.cli.mcp_tools" or each.split(".")[0] == "mcp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    ended = inside("mcp")
    assert (ended.code, "pip install 'orchclient[mcp]'" in ended.err) == (2, True)
