"""The examples beyond the first two, each run once with an orchestrator whose people answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.testing import Receiver
from tests.docs.console import typed
from tests.docs.test_examples import ARRIVE_S, EXAMPLE_S, EXAMPLES, envelope_validator, outbox, run

WITHOUT_LANGGRAPH = (
    "import importlib.util, runpy, sys; importlib.util.find_spec = lambda name: None; "
    f"runpy.run_path({str(EXAMPLES / 'graph_node.py')!r}, run_name='__main__')"
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An orchestrator; whatever reaches it is valid by the schemas of the contract."""
    with Receiver() as running:
        yield running
        validator = envelope_validator()
        assert [error.message for event in running.events for error in validator.iter_errors(event)] == []


def delivered(receiver: Receiver, home: Path) -> list[dict[str, Any]]:
    """Every event of the run; what its process left is delivered now."""
    with OrchestratorClient("later", outbox=outbox(home), url=receiver.url, background=False) as client:
        assert client.flush(ARRIVE_S)
    return receiver.events


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("dev.orchclient.") for event in events]


def test_the_four_verbs_on_asyncio(receiver: Receiver, tmp_path: Path) -> None:
    assert run("async_usage.py", tmp_path, ORCHCLIENT_URL=receiver.url).splitlines() == [
        "Escalated with priority medium",
        "Quality score: 75 of 100",
        "0 events wait in the outbox, 0 were refused",
    ]
    assert types(receiver.events) == [
        "task.status.v1",
        "clarification.requested.v1",
        "error.escalated.v1",
        "error.resolved.v1",
        "task.completed.v1",
    ]


# --- The GitHub client --------------------------------------------------------------------------------------------


@contextmanager
def github(*statuses: int) -> Iterator[str]:
    """A GitHub that answers so, the last one for ever."""
    left = chain(statuses, repeat(statuses[-1]))

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"full_name": "pallets/click", "default_branch": "main"}'
            self.send_response(next(left))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing: the test's output stays readable."""

    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_github_in_trouble_is_tried_again_and_told(receiver: Receiver, tmp_path: Path) -> None:
    with github(503, 200) as api:
        printed = run("github_client.py", tmp_path, ORCHCLIENT_URL=receiver.url, GITHUB_API=api)
    assert printed == "pallets/click is on branch main\n"
    steps = [event["data"].get("current_step") for event in delivered(receiver, tmp_path)]
    assert steps[1:3] == ["Recovering from github_api: attempt 1 of 3", "Recovered from github_api after 1 attempt"]


def test_a_login_that_github_refuses_is_escalated_at_once_as_critical(receiver: Receiver, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHCLIENT_")}
    with github(401) as api:
        environment = {**kept, "ORCHCLIENT_DB": str(outbox(tmp_path)), "GITHUB_API": api, "GITHUB_TOKEN": "gho_secret"}
        command = [sys.executable, str(EXAMPLES / "github_client.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=EXAMPLE_S, check=False)
    assert done.returncode == 1
    assert "GitHubLoginError: 401" in done.stderr
    escalation = delivered(receiver, tmp_path)[-1]
    assert (escalation["priority"], escalation["data"]["error_type"]) == ("critical", "github_api_auth")
    assert "gho_secret" not in str(receiver.events)


# --- The others ---------------------------------------------------------------------------------------------------


def test_a_task_is_executed_assessed_and_decided_by_a_person(receiver: Receiver, tmp_path: Path) -> None:
    receiver.review_each("changes_requested", comment="User 2 must be None.")
    printed = run("task_executor.py", tmp_path, ORCHCLIENT_URL=receiver.url)
    assert printed.splitlines() == ["Quality score: 40 of 100", "Decided: changes_requested"]
    events = delivered(receiver, tmp_path)
    steps = [event["data"].get("current_step") for event in events]
    assert steps[:4] == ["Started", "Writing the models", "Writing the routes", "Running the checks"]
    (completion,) = [event["data"] for event in events if event["type"].endswith("task.completed.v1")]
    assert completion["artifacts"] == {"generated_files": ["models.py", "routes.py"]}
    assert (completion["review"], events[-1]["data"]["status"]) == (True, "in_progress")
    (trouble,) = [event["data"] for event in events if event["type"].endswith("error.escalated.v1")]
    assert "KeyError: 2" in trouble["error_message"]


def test_forked_workers_tell_everything_in_order(receiver: Receiver, tmp_path: Path) -> None:
    printed = run("prefork_workers.py", tmp_path, ORCHCLIENT_URL=receiver.url)
    assert printed == "6 jobs done by 2 workers, none of them this process\n"
    delivered(receiver, tmp_path)
    tasks = receiver.by_task()
    assert set(tasks) == {f"job-{number}" for number in range(1, 7)}
    assert all(types(events) == ["task.status.v1"] * 2 + ["task.completed.v1"] for events in tasks.values())


def test_a_shell_script_asks_and_hands_in(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer_each("8080")
    environment = {"ORCHCLIENT_DB": str(outbox(tmp_path)), "ORCHCLIENT_URL": receiver.url}
    assert typed(f"export -f orchclient; bash {EXAMPLES / 'shell_agent.sh'}", environment)[-1] == "done on port 8080"
    events = delivered(receiver, tmp_path)
    assert [event["data"]["current_step"] for event in events if event["type"].endswith("status.v1")] == [
        "Checking out",
        "Testing on port 8080",
    ]
    assert types(events)[-1] == "task.completed.v1"


@pytest.mark.parametrize("framework", [None, "langgraph"])
def test_the_nodes_of_a_graph_tell_and_ask(receiver: Receiver, tmp_path: Path, framework: str | None) -> None:
    if framework and not find_spec(framework):
        pytest.skip(f"{framework} is not installed: python -m pip install --group frameworks")
    receiver.answer_each("PostgreSQL")
    in_graph = partial(run, "graph_node.py", tmp_path, ORCHCLIENT_URL=receiver.url)
    printed = in_graph() if framework else _plainly(receiver, tmp_path)
    assert printed == "connect('PostgreSQL')\n"
    told = [event["data"].get("current_step") for event in delivered(receiver, tmp_path)]
    assert [step for step in told if step in ("choose", "write")] == ["choose", "write"]


def _plainly(receiver: Receiver, home: Path) -> str:
    environment = {**os.environ, "ORCHCLIENT_DB": str(outbox(home)), "ORCHCLIENT_URL": receiver.url}
    command = [sys.executable, "-W", "error", "-c", WITHOUT_LANGGRAPH]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=EXAMPLE_S).stdout


def test_every_example_has_a_test_and_is_on_the_page() -> None:
    page = (EXAMPLES.parent / "examples.md").read_text()
    tests = "".join(each.read_text() for each in Path(__file__).parent.glob("test_*.py"))
    for example in EXAMPLES.iterdir():
        if example.suffix in (".py", ".sh"):
            assert f"examples/{example.name}" in page
            assert example.name in tests
