"""The demo: it ends well, leaves nothing behind, reads nothing of the user's, and can fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from orchclient.cli import app, demo, demo_process
from orchclient.cli.demo_verdict import Evidence, Recorded, Verdict, document, judged, summary
from orchclient.core.http import HttpReply
from orchclient.testing.receiver import Fault
from tests.cli.documents import complaints

LONGEST_S = 15.0
COMMAND = [sys.executable, "-m", "orchclient", "demo"]


@frozen
class Run:
    code: int
    out: str
    err: str
    seconds: float
    home: Path

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The user's: a home and a directory for temporary files of its own, and no settings but ``more``."""
    for name in ("home", "temporary"):
        (home / name).mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHCLIENT_", "XDG_"))}
    return clean | {"HOME": str(home / "home"), "TMPDIR": str(home / "temporary")} | more


def run_demo(home: Path, *flags: str, **more: str) -> Run:
    began = time.monotonic()
    done = subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, env=environment(home, **more), timeout=90, check=False
    )
    return Run(done.returncode, done.stdout, done.stderr, time.monotonic() - began, home)


def processes_with(text: str) -> list[str]:
    """The command lines of this host's processes that name it; only where /proc tells."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return [line for line in lines if text in line]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_demo(tmp_path_factory.mktemp("told"))


@pytest.fixture(scope="module")
def as_json(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_demo(tmp_path_factory.mktemp("json"), "--json")


# --- the real thing -----------------------------------------------------------------------------------------------


def test_ends_well_and_in_time(told: Run) -> None:
    assert (told.code, told.err) == (0, "")
    assert told.seconds < LONGEST_S


def test_tells_its_story_in_five_steps(told: Run) -> None:
    steps = [line[0] for line in told.out.splitlines() if line[:1].isdigit()]
    assert steps == ["1", "2", "3", "4", "5"]
    assert "Nothing was lost" in told.out


def test_story_is_plain_text_that_fits_a_terminal(told: Run) -> None:
    assert told.out.isascii()
    assert "\x1b" not in told.out
    assert all(len(line) <= 100 for line in told.out.splitlines() if "demo_agent.py" not in line)


def test_prints_one_document_and_nothing_else(as_json: Run) -> None:
    assert (as_json.code, as_json.err) == (0, "")
    assert as_json.json["ok"] is True
    assert complaints(("demo",), as_json.json) == []
    assert as_json.seconds < LONGEST_S


def test_everything_recorded_is_delivered(as_json: Run) -> None:
    found = as_json.json
    assert found["recorded"] == found["delivered"] > 50
    assert (found["lost"], found["pending"], found["dead"]) == (0, 0, 0)
    assert found["order_kept"] is True


def test_every_receipt_is_covered_and_at_most_the_one_under_way_was_never_given(as_json: Run) -> None:
    assert as_json.json["recorded"] - as_json.json["acknowledged"] in (0, 1)


def test_repeats_really_happen(as_json: Run) -> None:
    assert as_json.json["repeats"] >= 2


def test_kinds_add_up_to_the_total(as_json: Run) -> None:
    kinds = as_json.json["kinds"]
    for count in ("recorded", "delivered", "repeats", "lost"):
        assert sum(kind[count] for kind in kinds.values()) == as_json.json[count]
    assert {"task.completed.v1", "clarification.requested.v1", "error.escalated.v1"} <= set(kinds)


def test_leaves_no_file_and_no_process(told: Run) -> None:
    assert list((told.home / "temporary").iterdir()) == []
    assert list((told.home / "home").iterdir()) == []
    assert processes_with(str(told.home)) == []


def test_keeps_the_outbox_on_request(tmp_path: Path) -> None:
    run = run_demo(tmp_path, "--keep", "--json")
    kept = Path(run.json["outbox"])
    assert run.code == 0
    assert kept.is_relative_to(tmp_path / "temporary")
    listed = subprocess.run(
        [
            sys.executable,
            "-m",
            "orchclient",
            "--db",
            str(kept),
            "list",
            "--state",
            "delivered",
            "--limit",
            "1000",
            "--json",
        ],
        capture_output=True,
        env=environment(tmp_path),
        check=True,
    )
    assert len(json.loads(listed.stdout)["events"]) == run.json["recorded"]


def test_reads_none_of_the_users_settings(tmp_path: Path) -> None:
    config = tmp_path / "config" / "orchclient" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("this is no TOML")
    run = run_demo(
        tmp_path,
        "--json",
        ORCHCLIENT_MODE="disabled",
        ORCHCLIENT_DB=str(tmp_path / "users.db"),
        ORCHCLIENT_URL="not a url",
        ORCHCLIENT_CONFIG=str(config),
        XDG_CONFIG_HOME=str(tmp_path / "config"),
        XDG_STATE_HOME=str(tmp_path / "state"),
    )
    assert run.code == 0, run
    assert not (tmp_path / "users.db").exists()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("step", ["1", "3", "4"])
def test_an_interrupt_ends_it_cleanly(step: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path)
    )
    with process:
        assert process.stdout
        next(line for line in process.stdout if line.startswith(step))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors.strip() == "Error: Interrupted"
    assert list((tmp_path / "temporary").iterdir()) == []
    assert processes_with(str(tmp_path)) == []


# --- it can fail --------------------------------------------------------------------------------------------------


def exit_code_and_document(capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        app.run(["demo", "--json"])
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(capsys.readouterr().out)


def test_an_orchestrator_that_drops_a_batch_behind_a_200_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TROUBLE", (Fault("ok", instead=HttpReply(200)),))
    code, found = exit_code_and_document(capsys)
    assert code == 1
    assert found["lost"] == found["recorded"] - found["delivered"] > 0


def test_an_event_that_becomes_a_dead_letter_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "TROUBLE", (evolve(Fault.reject("count-primes"), name="ok"),))
    code, found = exit_code_and_document(capsys)
    assert code == 1
    assert found["dead"] > 0
    assert found["lost"] == 0


def test_a_planted_loss_is_found_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "_play", lambda *_: evolve(GOOD, arrived=["a1", "b1", "b2"]))
    code, found = exit_code_and_document(capsys)
    assert (code, found["ok"], found["lost"]) == (1, False, 1)


def test_an_agent_that_cannot_start_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_process, "AGENT", "orchclient.cli.no_such_module")
    code, found = exit_code_and_document(capsys)
    assert code == 1
    assert "no_such_module" in found["error"]["message"]


def test_waiting_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo_process, "LONGEST_S", 0.0)
    code, found = exit_code_and_document(capsys)
    assert code == 1
    assert "gave up after 0 s, while it waited for the agent's first receipts" in found["error"]["message"]


# --- the judge ----------------------------------------------------------------------------------------------------

A1, A2 = Recorded("a1", "a", "task.status.v1"), Recorded("a2", "a", "task.completed.v1")
B1, B2 = Recorded("b1", "b", "task.status.v1"), Recorded("b2", "b", "error.escalated.v1")
GOOD = Evidence(
    acknowledged=["a1", "b1", "a2", "b2"],
    recorded=[A1, B1, A2, B2],
    arrived=["a1", "b1", "a2", "b2"],
    repeats={"a1": 2, "b1": 1},
    record_ms=[0.2, 0.1, 4.0],
)


def only_problem(verdict: Verdict) -> str:
    (problem,) = verdict.problems
    return problem


def test_nothing_wrong_is_ok() -> None:
    verdict = judged(GOOD)
    assert verdict.ok
    assert (verdict.total.recorded, verdict.total.delivered, verdict.total.repeats, verdict.total.lost) == (4, 4, 3, 0)
    assert (verdict.median_record_ms, verdict.longest_record_ms) == (0.2, 4.0)


def test_an_event_that_was_never_acknowledged_must_arrive_too() -> None:
    assert judged(evolve(GOOD, acknowledged=["a1", "b1"])).ok
    assert judged(evolve(GOOD, acknowledged=["a1", "b1"], arrived=["a1", "b1", "a2"])).total.lost == 1


def test_an_event_that_did_not_arrive_is_lost() -> None:
    verdict = judged(evolve(GOOD, arrived=["a1", "b1", "b2"]))
    assert verdict.total.lost == 1
    assert "a2" in only_problem(verdict)


def test_a_receipt_without_a_row_is_a_loss() -> None:
    verdict = judged(evolve(GOOD, acknowledged=["a1", "b1", "a2", "b2", "gone"]))
    assert verdict.total.lost == 1
    assert any("not in its outbox: 1 (gone)" in problem for problem in verdict.problems)


@pytest.mark.parametrize(("state", "count"), [("pending", "pending"), ("parked", "pending"), ("dead", "dead")])
def test_what_is_not_delivered_is_no_loss_but_a_problem(state: str, count: str) -> None:
    verdict = judged(evolve(GOOD, recorded=[A1, B1, A2, evolve(B2, state=state)], arrived=["a1", "b1", "a2"]))
    assert document(verdict)[count] == 1
    assert verdict.total.lost == 0
    assert only_problem(verdict).startswith("1 ")


def test_order_counts_within_a_task_only() -> None:
    assert judged(evolve(GOOD, arrived=["b1", "b2", "a1", "a2"])).ok
    verdict = judged(evolve(GOOD, arrived=["a2", "b1", "a1", "b2"]))
    assert not verdict.order_kept
    assert "out of order" in only_problem(verdict)


def test_an_event_kept_twice_is_a_problem() -> None:
    assert not judged(evolve(GOOD, arrived=[*GOOD.arrived, "b2"])).ok


def test_an_event_from_nowhere_is_a_problem() -> None:
    assert "never recorded: 1 (x)" in only_problem(judged(evolve(GOOD, arrived=[*GOOD.arrived, "x"])))


def test_a_wrong_result_is_a_problem() -> None:
    assert "go on where it stood" in only_problem(judged(evolve(GOOD, result_is_right=False)))


def test_nothing_recorded_is_a_problem() -> None:
    assert judged(Evidence([], [], [])).problems == ["nothing was recorded"]


def test_the_summary_names_what_is_wrong() -> None:
    assert "A promise was broken:\n  - lost" in summary(judged(evolve(GOOD, arrived=["a1", "b1", "b2"])))


# --- the agent's environment --------------------------------------------------------------------------------------


def test_the_agent_inherits_no_setting_and_no_place_of_settings() -> None:
    users = {
        "ORCHCLIENT_URL": "https://prod",
        "XDG_CONFIG_HOME": "/home/u/.config",
        "HOME": "/home/u",
        "LANG": "C.UTF-8",
    }
    given = demo_process.agent_environment(users, Path("/private"))
    assert {name: given[name] for name in given if name != "PYTHONPATH"} == {"HOME": "/private", "LANG": "C.UTF-8"}
