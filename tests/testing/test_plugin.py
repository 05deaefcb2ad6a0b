"""The pytest plugin, in test runs of its own: what passes, what fails and with which words, and what it costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from shutil import copytree

import pytest

import orchclient.server.reading
import orchclient.testing.clock
import orchclient.testing.replay  # noqa: F401  each run in this process would import them anew

pytest_plugins = ["pytester"]

IS_INSTALLED = bool(entry_points(group="pytest11", name="orchclient"))
PLUGIN = "orchclient.testing.plugin"
QUICK = ("-p", "no:hypothesispytest")  # it imports all of Hypothesis at the end of each run

RUN = """
def work(client, progress=45):
    with client.task("build-42") as task:
        task.update("in_progress", current_step="tests", progress_percentage=progress)
        asked = task.ask("Merge?", options=["yes", "no"], key="merge")
        task.complete("https://github.example/pull/1", {"tests_passed": 3})
"""

COMPARES = (
    RUN
    + """
def test_it(orch_client, orch_replay):
    with orch_replay():
        work(orch_client)
"""
)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of somebody else."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def ran(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A run in this process, which has imported already what the fixtures import."""
    plugin = [] if IS_INSTALLED else ["-p", PLUGIN]
    return project.runpytest_inprocess(*plugin, *QUICK, "-q", *arguments)


# --- recordings ---------------------------------------------------------------------------------------------------


def test_a_recording_is_written_once_compared_and_written_anew_when_asked(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES)
    path = test.parent / "recordings" / test.stem / "test_it.jsonl"
    ran(project).stdout.fnmatch_lines(["*there is no recording *test_it.jsonl. Write it: pytest --orch-record=once*"])
    assert not path.exists()
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    first = path.read_bytes()
    ran(project).assert_outcomes(passed=1)

    test.write_text(COMPARES.replace("progress=45", "progress=50"))
    named = r"event 2 \(dev.orchclient.task.status.v1 of 'build-42'\) data.progress_percentage: expected 45, got 50"
    for arguments in ([], ["--orch-record=once"], ["--assert=plain", "-p", "no:cacheprovider"]):
        result = ran(project, *arguments)
        result.assert_outcomes(failed=1)
        assert re.search(named, result.stdout.str())
    assert path.read_bytes() == first

    ran(project, "--orch-record=rewrite").assert_outcomes(passed=1)
    assert path.read_bytes() == first.replace(b'"progress_percentage":45', b'"progress_percentage":50')
    ran(project).assert_outcomes(passed=1)


def test_what_is_missing_and_what_is_new_is_named_and_the_rest_still_compared(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES)
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    without = COMPARES.replace('asked = task.ask("Merge?", options=["yes", "no"], key="merge")', "pass")
    test.write_text(without.replace("def test_it", "def test_it").replace('"tests_passed": 3', '"tests_passed": 4'))
    result = ran(project)
    asked, completed = "dev.orchclient.clarification.requested.v1", "dev.orchclient.task.completed.v1"
    result.stdout.fnmatch_lines(
        [
            f"*event 3 ({asked} of 'build-42'): expected, but the run did not record it*",
            f"*event 4 ({completed} of 'build-42') data.test_results.tests_passed: expected 3, got 4*",
        ]
    )
    test.write_text(COMPARES.replace("pull/1", "pull/2"))
    ran(project).stdout.fnmatch_lines(["*data.pr_url: expected '*pull/1', got '*pull/2'*"])
    test.write_text(COMPARES.replace("pull/1", "pull/2").replace("replay()", "replay(ignore=['data.pr_url'])"))
    ran(project).assert_outcomes(passed=1)
    test.write_text(COMPARES.replace("pull/1", "pull/2").replace("replay()", "replay(ignore='data.pr_url')"))
    ran(project).assert_outcomes(passed=1)


def test_an_exported_outbox_is_delivered_through_an_outage(project: pytest.Pytester) -> None:
    project.makepyfile(
        RUN
        + """
from orchclient.testing import Fault

def test_it(orch_client, orch_replay, orch_server):
    with orch_replay("run.jsonl"):
        work(orch_client)

def test_outage(orch_replay, orch_server):
    orch_server.plan(Fault.status(503), Fault.lose_reply())
    run = orch_replay.deliver("run.jsonl", to=orch_server)
    run.assert_all_delivered()
    run.assert_order_per_task()
    assert run.duplicates == len(run.sent) == 4

def test_loss_is_found(orch_replay, orch_server):
    orch_server.reject("build-42")
    run = orch_replay.deliver("run.jsonl", to=orch_server)
    run.assert_all_delivered()
"""
    )
    result = ran(project, "--orch-record=once", "-p", "no:xdist")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*4 of 4 events did not arrive (0 pending, * dead):*", "*event 1 (*"])


def test_a_recording_with_a_secret_is_refused(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES)
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    path = test.parent / "recordings" / test.stem / "test_it.jsonl"
    path.write_text(path.read_text().replace('"tests"', '"ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'))
    ran(project).stdout.fnmatch_lines(["*line 3: holds what looks like a secret*test_it.jsonl)"])


def test_a_failure_shows_the_test_and_no_frame_of_ours(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES)
    missing = ran(project).stdout.str()
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    test.write_text(COMPARES.replace("progress=45", "progress=50"))
    differs = ran(project).stdout.str()
    for shown in (missing, differs):
        assert ">       with orch_replay():" in shown
        assert "replay.py" not in shown
        assert "contextlib" not in shown


def test_a_recording_that_is_missing_fails_before_the_agent_works(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(orch_client, orch_replay):\n    with orch_replay():\n        print('WORKED')\n")
    assert "WORKED" not in ran(project, "-s").stdout.str()


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (lambda lines: lines[:2] + lines[3:], "line 3: nothing is said of *a line is missing (*test_it.jsonl)"),
        (lambda lines: [*lines[:2], "", *lines[2:]], "line 3: is no JSON (*) (*test_it.jsonl)"),
        (lambda lines: [*lines[:2], lines[2].replace(":45.0,", ':"45",')], "line 3: *must be number (*test_it.jsonl)"),
        (
            lambda lines: [lines[0].replace('recording":1', 'recording":2')],
            "line 1: *update orchclient (*test_it.jsonl)",
        ),
        (lambda lines: ["\x00\x01"], "line 1: is no JSON (*test_it.jsonl)"),
        (lambda lines: [], "line 1: *(*test_it.jsonl)"),
    ],
    ids=["a line deleted", "a blank line", "a wrong type", "a newer format", "binary", "empty"],
)
def test_a_recording_that_was_spoiled_by_hand_is_named_with_its_line(
    project: pytest.Pytester, spoiled: Callable[[list[str]], list[str]], words: str
) -> None:
    test = project.makepyfile(COMPARES.replace("progress=45", "progress=45.0"))
    path = test.parent / "recordings" / test.stem / "test_it.jsonl"
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    path.write_text("".join(f"{line}\n" for line in spoiled(path.read_text().splitlines())))
    ran(project).stdout.fnmatch_lines([f"*InvalidRecording: {words}"])


def test_what_a_newer_version_wrote_is_compared_and_delivered(project: pytest.Pytester) -> None:
    delivers = "\ndef test_deliver(orch_replay, orch_server):\n"
    delivers += "    orch_replay.deliver('test_all/test_it.jsonl', to=orch_server).assert_all_delivered()\n"
    test = project.makepyfile(test_all=COMPARES + delivers)
    ran(project, "--orch-record=once").assert_outcomes(passed=2)
    path = test.parent / "recordings" / test.stem / "test_it.jsonl"
    path.write_text(path.read_text().replace('"current_step":"tests"', '"current_step":"tests","mood":"good"'))
    result = ran(project)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*event 2 (*task.status.v1 of 'build-42') data.mood: expected 'good', got nothing"])


def test_two_tests_never_share_a_recording_by_the_names_of_their_parameters(project: pytest.Pytester) -> None:
    test = project.makepyfile(
        """
import pytest

@pytest.mark.parametrize("name", ["x-y", "x y", "x/y", "z" * 160 + "1", "z" * 160 + "2"], ids=str)
def test_it(orch_client, orch_replay, name):
    with orch_replay():
        orch_client.update_task_status(name, "testing")

class TestThis:
    def test_it(self, orch_client, orch_replay):
        with orch_replay():
            orch_client.update_task_status("this", "testing")
"""
    )
    ran(project, "--orch-record=rewrite").assert_outcomes(passed=6)
    ran(project).assert_outcomes(passed=6)
    names = {path.name for path in (test.parent / "recordings" / test.stem).iterdir()}
    assert len(names) == 6
    assert {"test_it-x-y-.jsonl", "TestThis.test_it.jsonl"} < names


def test_files_of_one_name_do_not_share_a_directory_that_is_named_for_all(project: pytest.Pytester) -> None:
    for part, progress in (("a", 10), ("b", 20)):
        (project.path / part).mkdir()
        (project.path / part / "test_same.py").write_text(COMPARES.replace("progress=45", f"progress={progress}"))
    arguments = ("--orch-recordings=kept", "--import-mode=importlib")
    ran(project, "--orch-record=once", *arguments).assert_outcomes(passed=2)
    ran(project, *arguments).assert_outcomes(passed=2)
    assert (project.path / "kept" / "b" / "test_same" / "test_it.jsonl").exists()


def test_each_block_of_a_test_has_a_recording_of_its_own(project: pytest.Pytester) -> None:
    test = project.makepyfile(
        """
def test_it(orch_client, orch_replay):
    for status in ("testing", "failed"):
        with orch_replay():
            orch_client.update_task_status("t-1", status)

def test_one_for_two(orch_client, orch_replay):
    for status in ("testing", "failed"):
        with orch_replay("shared.jsonl"):
            orch_client.update_task_status("t-1", status)
"""
    )
    for mode in ("once", "rewrite", "none"):
        result = ran(project, f"--orch-record={mode}")
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(["*data.status: expected 'testing', got 'failed'"])
    names = {path.name for path in (test.parent / "recordings" / test.stem).iterdir()}
    assert names == {"test_it.jsonl", "test_it.2.jsonl"}


def test_a_block_that_recorded_nothing_fails_and_says_where_it_may_have_gone(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES.replace("work(orch_client)", "pass"))
    result = ran(project, "--orch-record=once")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is nothing to write to *test_it.jsonl. Nothing was recorded. Has the agent *"])
    test.write_text(COMPARES)
    ran(project, "--orch-record=once").assert_outcomes(passed=1)
    test.write_text(COMPARES.replace("work(orch_client)", "pass"))
    ran(project).stdout.fnmatch_lines(["*expected, but the run did not record it", "*Nothing was recorded. Has *"])


def test_a_process_that_the_test_starts_has_its_outbox_and_no_file_of_the_user(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = project.mkdir("config") / "orchclient"
    settings.mkdir()
    (settings / "config.toml").write_text('url = "https://production.example"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(settings.parent))
    project.makepyfile(
        """
import subprocess, sys

def test_it(orch_outbox):
    command = [sys.executable, "-m", "orchclient", "update", "t", "testing", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, '"destinations": {}' in done.stdout) == (0, True), done
    orch_outbox.assert_recorded("task.status")
"""
    )
    ran(project).assert_outcomes(passed=1)


def test_clients_that_the_agent_makes_are_compared_too_asynchronous_ones_as_well(project: pytest.Pytester) -> None:
    test = project.makepyfile(
        """
import asyncio
from orchclient import OrchestratorClient, aio

async def work(client):
    async with client.task("t-1") as task:
        await task.progress(45, "tests")

def test_given(orch_env, orch_replay):
    async def run():
        async with aio.OrchestratorClient("own") as client:
            with orch_replay(client=client):
                await work(client)

    asyncio.run(run())

def test_whoever_records(orch_replay):
    async def run():
        async with aio.OrchestratorClient("own") as client:
            await work(client)
        with OrchestratorClient("another") as other:
            other.update_task_status("t-2", "testing")

    with orch_replay():
        asyncio.run(run())
"""
    )
    ran(project, "--orch-record=once").assert_outcomes(passed=2)
    ran(project).assert_outcomes(passed=2)
    test.write_text(test.read_text().replace("45", "50"))
    result = ran(project)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*data.progress_percentage: expected 45, got 50"] * 2)


def test_a_directory_for_all_recordings_may_be_named(project: pytest.Pytester) -> None:
    test = project.makepyfile(COMPARES)
    ran(project, "--orch-record=once", "--orch-recordings=kept").assert_outcomes(passed=1)
    header = json.loads((project.path / "kept" / test.stem / "test_it.jsonl").read_text().splitlines()[0])
    assert header["events"] == 4


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "tested-agent"


def test_the_example_passes_and_a_changed_agent_fails_by_the_event_and_the_field(project: pytest.Pytester) -> None:
    copytree(EXAMPLE, project.path, dirs_exist_ok=True)
    project.syspathinsert(project.path)
    ran(project).assert_outcomes(passed=3)
    agent = project.path / "agent.py"
    agent.write_text(agent.read_text().replace("progress_percentage=45", "progress_percentage=50"))
    result = ran(project)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*event 2 (dev.orchclient.task.status.v1 of 'pr-17') data.progress_percentage: expected 45, got 50"]
    )


# --- fixtures and expectations ------------------------------------------------------------------------------------


def test_what_was_expected_and_never_came_fails_the_test_and_is_named(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import pytest

def test_met(orch_client, orch_server):
    orch_server.expect(type="task.status", task="t-1", status="testing", times=1)
    orch_client.update_task_status("t-1", "testing")  # delivered at the end of the test

def test_unmet(orch_client, orch_server):
    orch_server.expect(type="task.completed", task="t-1", within=0.2)
    orch_client.update_task_status("t-1", "testing")

def test_failed_anyway(orch_client, orch_server):
    orch_server.expect(type="error.escalated")
    assert 1 == 2, "the first reason"

@pytest.mark.xfail(strict=True)
def test_too_often(orch_client, orch_server):
    orch_server.expect(task="t-1", times=1)
    orch_client.update_task_status("t-1", "testing")
    orch_client.update_task_status("t-1", "failed")
"""
    )
    result = ran(project)
    result.assert_outcomes(passed=1, failed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        [
            "1 expectation of the receiver not met:",
            "  expected type='task.completed', task='t-1': none arrived (waited 0.2 s)",
            "What arrived (1 events):",
            "  task.status.v1 of 't-1': status='testing'*",
            "*the first reason*",
            "  expected type='error.escalated': none arrived",
        ]
    )
    assert "error" not in result.parseoutcomes()


def test_a_test_has_an_outbox_of_its_own_whoever_opens_it(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "ORCHCLIENT_SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/T0/B0/xxxxxxxxxxxxxxxxxxxxxxxx"
    )
    project.makepyfile(
        """
import pytest
from orchclient import OrchestratorClient

@pytest.mark.orch_agent("reviewer")
def test_agent(orch_client, orch_server, orch_outbox, orch_clock):
    receipt = orch_client.update_task_status("t-1", "testing")
    orch_clock.advance("2h")
    again = orch_client.update_task_status("t-1", "failed")
    assert 7200 <= (again.recorded_at - receipt.recorded_at).total_seconds() < 7201
    with OrchestratorClient("other") as own:
        own.update_task_status("t-2", "testing")
    assert orch_server.wait_for(3, 10)
    assert [event["agentid"] for event in orch_outbox.events()] == ["reviewer", "reviewer", "other"]
    assert orch_outbox.assert_recorded("task.status", status="failed")["subject"] == "t-1"
    assert set(orch_client.get_communication_stats()["delivery"]) == {"orchestrator"}

def test_empty_again(orch_outbox):
    assert orch_outbox.events() == []
    with pytest.raises(AssertionError, match="nothing was recorded with type='task.completed'"):
        orch_outbox.assert_recorded("task.completed")

IDS = []

@pytest.mark.parametrize("run", [1, 2])
def test_ids_are_the_same_in_every_run(orch_client, run):
    IDS.append(orch_client.update_task_status("t-1", "testing").event_id)
    assert len(set(IDS)) == 1
"""
    )
    ran(project).assert_outcomes(passed=4)


def test_what_a_test_gives_wrongly_is_told_in_words(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
import pytest

@pytest.mark.orch_agent(name="reviewer")
def test_named(orch_client):
    assert orch_client.agent_id == "reviewer"

@pytest.mark.orch_agent()
def test_nameless(orch_client):
    pass

def test_clock(orch_clock):
    orch_clock.advance("2 hours")
"""
    )
    result = ran(project)
    result.assert_outcomes(passed=1, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["orch_agent takes the name of the agent: *", "*ValueError: '2 hours' is no duration: *"]
    )


def test_it_works_with_xdist(project: pytest.Pytester) -> None:
    test = project.makepyfile(
        COMPARES.replace("def test_it(", "def test_it(number, ").replace(
            "def test_it", "import pytest\n@pytest.mark.parametrize('number', range(6))\ndef test_it"
        )
    )
    plugin = [] if IS_INSTALLED else ["-p", PLUGIN]
    project.runpytest_subprocess(*plugin, *QUICK, "-n2", "--orch-record=once").assert_outcomes(passed=6)
    ran(project).assert_outcomes(passed=6)
    assert len(list((test.parent / "recordings" / test.stem).iterdir())) == 6


def test_it_can_be_switched_off(project: pytest.Pytester) -> None:
    project.makepyfile(COMPARES)
    off = "orchclient" if IS_INSTALLED else PLUGIN
    result = project.runpytest_inprocess("-q", "-p", f"no:{off}")
    result.stdout.fnmatch_lines(["*fixture 'orch_client' not found*"])


# --- what it costs who does not use it ----------------------------------------------------------------------------

LOADED = """
import sys
def test_nothing():
    print("LOADED", *sys.modules)
"""


def loaded(project: pytest.Pytester, *arguments: str) -> set[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:xdist", *QUICK, *arguments]
    done = subprocess.run(command, cwd=project.path, capture_output=True, text=True, env=dict(os.environ), timeout=60)
    (line,) = re.findall("^.*LOADED (.*)$", done.stdout, re.M)
    return set(line.split())


def test_a_start_that_does_not_use_it_imports_three_small_modules(project: pytest.Pytester) -> None:
    project.makepyfile(LOADED)
    off = loaded(project, "-p", f"no:{'orchclient' if IS_INSTALLED else PLUGIN}")
    on = loaded(project, *([] if IS_INSTALLED else ["-p", PLUGIN]))
    assert on - off == {"orchclient", "orchclient.testing", PLUGIN}
