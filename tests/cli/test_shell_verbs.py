"""The verbs of agents that are not Python programs: durable, one id on stdout, honest about people's decisions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient import OrchestratorClient
from orchclient.cli.waiting import told_question
from orchclient.core.errors import OutboxError
from orchclient.testing.receiver import Receiver
from orchclient.testing.services import DiscordDouble
from tests.cli.inside import Inside, inside
from tests.conftest import MakeClient


@pytest.fixture
def command(outbox_path: Path) -> Inside:
    return Inside(outbox_path, ORCHCLIENT_AGENT="hook-1")


def event_of(command: Inside, id_: str) -> dict[str, object]:
    event: dict[str, object] = command.json("show", id_.strip())["event"]
    return event


def test_an_update_prints_the_id_of_a_durable_event_and_nothing_else(command: Inside) -> None:
    told = command("update", "build", "testing", "--progress", "140", "--step", "Tests", "--meta", "file=a=b.py")
    assert (told.code, told.err, told.out.count("\n")) == (0, "", 1)
    event = event_of(command, told.out)
    assert event["agentid"] == "hook-1"
    assert event["data"] == {
        "task_id": "build",
        "status": "testing",
        "progress_percentage": 100,
        "current_step": "Tests",
        "metadata": {"file": "a=b.py"},
    }


def test_metadata_comes_as_json_from_stdin_under_single_pairs(command: Inside) -> None:
    told = command(
        "update", "t", "--metadata-json", "-", "--meta", "a=text", stdin=b'{"a": 1, "b": [true, "\xc3\xbc"]}'
    )
    data = event_of(command, told.out)["data"]
    assert isinstance(data, dict)
    assert data["metadata"] == {"a": "text", "b": [True, "ü"]}


def test_a_completion_carries_results_and_its_quality(command: Inside) -> None:
    told = command.json(
        "complete", "t", "--pr-url", "https://x.example/1", "--tests-passed", "3", "--tests-failed", "1",
        "--code-coverage", "81", "--results-json", '{"flaky": 1}', "--artifact", "log=run.txt",
    )  # fmt: skip
    assert (told["quality_score"], told["review"]) == (70.0, False)
    data = event_of(command, told["id"])["data"]
    assert isinstance(data, dict)
    assert data["test_results"] == {"flaky": 1, "tests_passed": 3, "tests_failed": 1, "code_coverage": 81.0}
    assert data["artifacts"] == {"log": "run.txt"}


def test_an_escalation_takes_a_log_from_stdin_without_its_secrets(command: Inside) -> None:
    log = b"x" * 2_000_000 + b"\nAuthorization: Bearer abcdefghijklmnop1234\n\xff the end"
    told = command("escalate", "t", "github_api_auth", "refused", "--no-fatal", "--traceback", "-", stdin=log)
    data = event_of(command, told.out)["data"]
    assert isinstance(data, dict)
    assert (data["priority"], data["fatal"]) == ("critical", False)
    assert "abcdefghijklmnop1234" not in json.dumps(data)
    assert data["traceback"].endswith("� the end")


def test_errors_with_one_key_are_counted_over_calls(command: Inside) -> None:
    counts = [command.json("escalate", "t", "e", "m", "--dedup-key", "k", "--no-fatal")["count"] for _ in range(3)]
    assert counts == [1, 2, 3]


def test_a_question_asked_again_is_the_same_and_fetches_the_answer(command: Inside) -> None:
    ask = ("ask", "t", "Which port?", "--option", "80", "--option", "8080", "--recommended", "8080")
    first = command(*ask)
    waited = command(*ask, "--wait=0")
    assert (waited.code, waited.out, first.out.strip() in waited.err) == (3, "", True)
    assert command("answer", first.out.strip(), "2", "--comment", "the free one").code == 0
    again = command(*ask, "--wait=0")
    assert (again.code, again.out) == (0, "8080\n")
    assert "the free one" in again.err
    assert command.json(*ask, "--wait=0")["answer"]["answers"] == {"q1": {"text": None, "options": ["8080"]}}
    assert command(*ask).out == first.out


def test_wait_delivers_the_question_and_polls_for_the_answer(outbox_path: Path, receiver: Receiver) -> None:
    receiver.answer_each("8080")
    told = Inside(outbox_path, receiver.url)("ask", "t", "Which port?", "--wait=30s")
    assert (told.code, told.out) == (0, "8080\n")


def test_several_questions_have_an_answer_a_line(command: Inside) -> None:
    asked = json.dumps([{"id": "port", "text": "Port?"}, {"id": "tls", "text": "TLS?", "options": ["yes", "no"]}])
    ask = ("ask", "t", "--questions-json", asked, "--key", "k")
    command("answer", command(*ask).out.strip(), "one\ntwo", "1")
    assert command(*ask, "--wait=0").out == "one\ntwo\nyes\n"


@pytest.mark.parametrize(
    ("more", "decision", "code", "printed"),
    [
        ((), ("--decline",), 7, "declined\n"),
        (("--deadline", "2020-01-01"), (), 8, ""),
        (("--deadline", "2020-01-01", "--default", "80"), (), 8, "80\n"),
    ],
)
def test_how_waiting_ends_is_told_by_the_exit_code(
    command: Inside, more: tuple[str, ...], decision: tuple[str, ...], code: int, printed: str
) -> None:
    ask = ("ask", "t", "Which port?", "--key", "k", *more)
    id_ = command(*ask).out.strip()
    if decision:
        command("answer", id_, *decision)
    waited = command(*ask, "--wait=20s")
    assert (waited.code, waited.out) == (code, printed), waited.err
    document = command.json(*ask, "--wait=0")
    assert (document["ok"], document["answer"]["is_default"]) == (False, printed == "80\n")


def test_a_question_is_withdrawn_once_and_not_when_it_is_settled(command: Inside) -> None:
    question = command("ask", "t", "Which port?").out.strip()
    told = command("withdraw", question[:24], "--reason", "found it", "--agent", "hook-2")
    event = event_of(command, told.out)
    assert (told.code, told.err, event["agentid"]) == (0, "", "hook-2")
    assert event["data"] == {"task_id": "t", "clarification_id": question, "reason": "found it"}
    again = command("withdraw", question)
    assert (again.code, again.out, "was withdrawn before" in again.err) == (0, "", True)
    assert command.json("answer")["open"] == []
    answered = command("ask", "t", "Which host?").out.strip()
    command("answer", answered, "db-1")
    late = command("withdraw", answered)
    assert (late.code, "is settled already: answered" in late.err) == (1, True)


def test_what_is_no_question_is_not_withdrawn(command: Inside) -> None:
    review = command("complete", "t", "--review").out.strip()
    assert "is a review" in command("withdraw", review).err
    assert command("withdraw", "ffff").code == 1
    command("ask", "t", "q?")
    assert "begins several" in command("withdraw", "0").err


def test_an_incident_is_resolved_once_by_its_key(command: Inside) -> None:
    first = command("escalate", "t", "e", "m", "--dedup-key", "k").out.strip()
    command("escalate", "t", "e", "m", "--dedup-key", "k")
    told = command("resolve", "t", "--dedup-key", "k", "--note", "the cable")
    data = event_of(command, told.out)["data"]
    assert data == {"task_id": "t", "error_id": first, "count": 2, "dedup_key": "k", "note": "the cable"}
    again = command("resolve", "t", "--dedup-key", "k")
    assert (again.code, again.out, "no open incident 'k'" in again.err) == (0, "", True)


@pytest.mark.parametrize("key", [(), ("--dedup-key", "k")])
def test_an_incident_is_resolved_once_by_the_id_of_any_of_its_errors(command: Inside, key: tuple[str, ...]) -> None:
    first = command("escalate", "t", "e", "m", *key).out.strip()
    last = command("escalate", "t", "e", "m", *key).out.strip() if key else first
    data = event_of(command, command("resolve", last).out)["data"]
    assert isinstance(data, dict)
    assert (data["error_id"], data["count"]) == (first, 2 if key else 1)
    again = command("resolve", first)
    assert (again.code, again.out, "is resolved already" in again.err) == (0, "", True)


def test_what_is_no_error_is_not_resolved(command: Inside) -> None:
    update = command("update", "t").out.strip()
    assert "is no error but a task.status" in command("resolve", update).err
    assert "named by its task and --dedup-key" in command("resolve", "ffff").err


@pytest.mark.parametrize("verb", [("withdraw", "0"), ("resolve", "0"), ("resolve", "t", "--dedup-key", "k")])
def test_nothing_is_taken_back_where_nothing_is_recorded(outbox_path: Path, verb: tuple[str, ...]) -> None:
    command = Inside(outbox_path, ORCHCLIENT_MODE="disabled")
    assert command.json(*verb)["recorded"] is False
    assert not outbox_path.exists()


def test_a_withdrawn_question_is_not_waited_for(make_client: MakeClient) -> None:
    question = make_client().request_clarification("t", "Which port?")
    question.withdraw()
    with pytest.raises(OutboxError, match="was withdrawn"):
        told_question({}, question, 30, as_json=False)


@pytest.mark.parametrize(
    ("outcome", "code"), [("approved", 0), ("changes_requested", 7), ("rejected", 7), ("declined", 7)]
)
def test_a_review_is_waited_for(outbox_path: Path, receiver: Receiver, outcome: str, code: int) -> None:
    receiver.review_each(outcome)
    ended = Inside(outbox_path, receiver.url)("complete", "t", "--review", "--wait=30s")
    assert (ended.code, ended.out) == (code, f"{outcome}\n")


def test_flush_without_a_destination_says_that_it_is_not_delivered(command: Inside) -> None:
    told = command("update", "t", "--flush=1s")
    assert (told.code, told.out.count("\n")) == (3, 1)


def test_flush_delivers_as_well_and_says_so_when_it_could_not(outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    assert command("update", "t", "--flush=20s").code == 0
    assert len(receiver.events) == 1
    receiver.stop()
    ended = command("update", "t", "testing", "--flush=0.2s", "--json")
    assert (ended.code, ended.document["ok"], ended.document["recorded"]) == (3, False, True)
    assert ended.document["destinations"]["orchestrator"]["pending"] == 1


def test_a_terminal_is_told_who_delivers(outbox_path: Path, receiver: Receiver, make_client: MakeClient) -> None:
    def told(**environment: str) -> str:
        ended = inside("update", "t", ORCHCLIENT_DB=str(outbox_path), on_terminal=True, **environment)
        assert ended.out.count("\n") == 1
        return ended.err

    assert "set ORCHCLIENT_URL" in told()
    assert "nobody delivers to orchestrator right now. Deliver: orchclient flush" in told(ORCHCLIENT_URL=receiver.url)
    client = make_client(url=receiver.url)
    client.update_task_status("t", "testing")
    assert client.flush(20)
    assert "a process on this host delivers it" in told(ORCHCLIENT_URL=receiver.url)
    assert "Not recorded: orchclient is disabled" in told(ORCHCLIENT_MODE="disabled")


def test_a_wish_to_stop_the_task_reaches_the_script(outbox_path: Path, receiver: Receiver) -> None:
    with OrchestratorClient("a", outbox=outbox_path, url=receiver.url) as client:
        client.request_clarification("t", "So that it polls?")
        receiver.cancel("t", "no \x1b[31mbudget", by="ada")
        while client.task("t").cancelled is None:
            client.flush(0.1)
    command = Inside(outbox_path)
    ended = command("update", "t")
    assert "t: ada asks to stop it: no �[31mbudget" in ended.err
    assert command.json("update", "t")["cancel_requested"]["by"] == "ada"


def test_what_a_hook_recorded_before_the_first_flush_is_told_in_a_chat(outbox_path: Path) -> None:
    with DiscordDouble() as discord:
        host = discord.webhook_url.split("/")[2]
        table = outbox_path.with_name("c.toml")
        table.write_text(
            f'[sinks.chat]\nkind = "discord"\nwebhook_url_env = "HOOK"\nhosts = ["{host}"]\n'
            'allow_private = true\npriority = "low"\n'
        )
        command = Inside(outbox_path, ORCHCLIENT_CONFIG=str(table), HOOK=discord.webhook_url)
        command("escalate", "t", "build_failed", "make failed")
        assert command("flush", "--timeout", "20s").code == 0
        assert any("make failed" in shown.text for shown in discord.shown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("update", "t", "tsting"), "tsting"),
        (("update", "t", "--meta", "nothing"), "key=value"),
        (("update", "t", "--metadata-json", "[1]"), "expected a JSON object"),
        (("update", "t", "--metadata-json", '{"a": '), "--metadata-json is not JSON: Expecting value at line 1"),
        (("update", "t", "--metadata-json", "[" * 100_000), "too deep"),
        (("update", "t", "--flush", "t2"), "Its value is attached"),
        (("complete", "t", "--results-json", "-", "--artifacts-json", "-"), "both --results-json and --artifacts-json"),
        (("complete", "t", "--wait"), "--wait goes with --review"),
        (("escalate", "t", "e", "m", "--traceback", "/nowhere/log"), "/nowhere/log cannot be read"),
        (("ask", "t"), "say what is asked"),
        (("ask", "t", "a?", "b?", "--option", "x"), "--option goes with one QUESTION"),
        (("ask", "t", "q?", "--deadline", "soon"), "neither a duration"),
    ],
)
def test_what_cannot_be_meant_records_nothing(
    command: Inside, outbox_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = command(*arguments, stdin=b"{}")
    assert (ended.code, ended.out, message in ended.err) == (2, "", True), ended.err
    assert command.json("list")["events"] == []


@pytest.mark.parametrize("arguments", [("update", "t\n", "testing"), ("ask", "t", "What is the password?")])
def test_what_the_client_refuses_is_an_error_of_one_line(command: Inside, arguments: tuple[str, ...]) -> None:
    ended = command(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert command.json(*arguments)["error"]["code"] == "InvalidEvent"


def test_a_process_that_is_killed_right_after_it_printed_the_id_lost_nothing(outbox_path: Path) -> None:
    ids = []
    for number in range(5):
        arguments = [sys.executable, "-c", KILLED, "update", f"t{number}", "--progress", "10"]
        env = {**os.environ, "ORCHCLIENT_DB": str(outbox_path)}
        process = subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        ids.append(process.stdout.readline().strip())
        assert process.wait(30) == -signal.SIGKILL
        process.stdout.close()
    found = [event["id"] for event in Inside(outbox_path).json("list")["events"]]
    assert found == ids[::-1]


KILLED = """
import os, signal, sys
import click
echo = click.echo
def echo_and_die(*arguments, **options):
    echo(*arguments, **options)
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
click.echo = echo_and_die
from orchclient.cli.app import run
run()
"""


def test_a_call_loads_nothing_that_recording_does_not_need(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "t")  # makes the file, with sqlite-utils
    loaded = loaded_by(command, "update", "t", "testing")
    heavy = {"requests", "urllib3", "sqlite_utils", "cattrs", "jsonschema", "mcp", "sqlalchemy", "flask", "asyncio"}
    assert loaded & heavy == set()
    assert not {name for name in loaded if name.startswith(DELIVERING)}
    assert "threads 1" in loaded


DELIVERING = tuple(f"orchclient.delivery.{name}" for name in ("http", "runner", "worker", "poller", "housekeeper"))


@pytest.mark.parametrize("arguments", [("--help",), ("status",), ("list",), ("show", "0"), ("config",), ("answer",)])
def test_looking_loads_nothing_that_delivers(outbox_path: Path, arguments: tuple[str, ...]) -> None:
    command = Inside(outbox_path)
    command("update", "t")
    loaded = loaded_by(command, *arguments)
    assert loaded & {"requests", "urllib3", "sqlite_utils", "cattrs", "hashlib"} == set()
    assert not {name for name in loaded if name.startswith(DELIVERING)}
    if arguments == ("--help",):
        assert {name for name in loaded if name.startswith("orchclient")} <= {
            "orchclient", "orchclient.cli", "orchclient.cli.app", "orchclient.cli.output", "orchclient.core",
            "orchclient.core.errors", "orchclient.cli.colour", "orchclient.cli.groups",
        }  # fmt: skip


def loaded_by(command: Inside, *arguments: str) -> set[str]:
    """The modules that a command has loaded at its end, and how many threads it has."""
    code = (
        "import sys, threading\nfrom orchclient.cli.app import run\n"
        "try: run()\nexcept SystemExit: pass\n"
        "print(*sys.modules, f'threads {threading.active_count()}', sep='\\n', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **command.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stderr.splitlines())
