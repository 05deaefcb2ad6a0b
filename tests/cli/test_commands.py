"""The commands as an operator types them: what they print, how they end, one JSON document each."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchclient.delivery.clock import SystemClock
from orchclient.testing import Fault, Receiver
from tests.cli.command import orchclient
from tests.conftest import MakeClient


class Patient(SystemClock):
    """Draws the longest back-off."""

    @staticmethod
    def jitter() -> float:
        return 0.999


@pytest.fixture
def recorded(make_client: MakeClient) -> str:
    """An outbox with three events; the id of the last."""
    client = make_client()
    client.update_task_status("build", "in_progress", {"file": "app.py"}, 40, "Writing\x1b[31m routes")
    client.request_clarification("build", "Which port?", options=["80", "8080"])
    receipt = client.escalate_error("deploy", "github_api_auth", "refused").receipt
    client.close()
    return receipt.event_id


def test_status_tells_what_waits_and_why(recorded: str, outbox_path: Path) -> None:
    ended = orchclient("--db", str(outbox_path), "status")
    assert ended.code == 0
    assert "3 events recorded, 3 kept" in ended.out
    assert "Set ORCHCLIENT_URL" in ended.out


def test_status_before_the_first_record_makes_no_file(outbox_path: Path) -> None:
    ended = orchclient("--db", str(outbox_path), "status")
    assert (ended.code, "No outbox yet" in ended.out, outbox_path.exists()) == (0, True, False)


def test_flush_delivers_and_says_how_much(recorded: str, outbox_path: Path, receiver: Receiver) -> None:
    ended = orchclient("--db", str(outbox_path), "flush", ORCHCLIENT_URL=receiver.url)
    assert ended.code == 0
    assert "orchestrator  3 delivered" in ended.out
    assert len(receiver.events) == 3
    again = orchclient("--db", str(outbox_path), "flush", "--json", ORCHCLIENT_URL=receiver.url)
    assert (again.code, again.document["delivered"], again.document["ok"]) == (0, 0, True)
    status = orchclient("--db", str(outbox_path), "status", "--json", ORCHCLIENT_URL=receiver.url).document
    assert (status["sinks"][0]["delivered"], status["sinks"][0]["pending"]) == (3, 0)


def test_flush_exits_3_while_events_are_pending(recorded: str, outbox_path: Path, receiver: Receiver) -> None:
    receiver.stop()
    ended = orchclient("--db", str(outbox_path), "flush", ORCHCLIENT_URL=receiver.url)
    assert ended.code == 3
    assert "3 left (waiting: connect" in ended.out


def test_flush_exits_4_when_an_event_became_dead(recorded: str, outbox_path: Path, receiver: Receiver) -> None:
    receiver.reject("deploy", code="unknown_task", detail="never heard of it")
    ended = orchclient("--db", str(outbox_path), "flush", "--json", ORCHCLIENT_URL=receiver.url)
    # The notice that the event will not come is of the same task, and refused too.
    assert (ended.code, ended.document["dead"], ended.document["delivered"]) == (4, 2, 2)
    listed = orchclient("--db", str(outbox_path), "list", "--state", "dead", "--json").document["events"]
    assert [event["type"] for event in listed] == ["gap.v1", "error.escalated.v1"]
    assert listed[1]["id"] == recorded
    assert listed[1]["destinations"]["orchestrator"]["reason"] == "unknown_task: never heard of it"


def test_flush_exits_6_when_the_token_is_refused(recorded: str, outbox_path: Path) -> None:
    with Receiver(token="right") as receiver:
        ended = orchclient("--db", str(outbox_path), "flush", ORCHCLIENT_URL=receiver.url, ORCHCLIENT_TOKEN="wrong-one")
        assert ended.code == 6
        assert "paused" in ended.out
        assert "wrong-one" not in ended.out + ended.err
        ended = orchclient("--db", str(outbox_path), "flush", ORCHCLIENT_URL=receiver.url, ORCHCLIENT_TOKEN="right")
        assert ended.code == 0


def test_flush_beside_a_live_flusher_waits_for_it(
    make_client: MakeClient, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.stop()
    client = make_client(url=receiver.url, clock=Patient())
    client.update_task_status("t", "testing")
    for _ in range(7):
        client.flush(5)
    receiver.start()  # the flusher would try again in half a minute
    ended = orchclient("--db", str(outbox_path), "flush")
    assert (ended.code, len(receiver.events)) == (0, 1)
    assert "1 delivered" in ended.out


def test_list_shows_the_newest_first_and_filters(recorded: str, outbox_path: Path) -> None:
    ended = orchclient("--db", str(outbox_path), "list")
    assert ended.out.splitlines()[1].startswith(recorded)
    assert len(ended.out.splitlines()) == 4
    document = orchclient("--db", str(outbox_path), "list", "--task", "build", "--state", "pending", "--json").document
    assert [event["type"] for event in document["events"]] == ["clarification.requested.v1", "task.status.v1"]


def test_show_tells_one_event_by_a_prefix_and_steers_no_terminal(recorded: str, outbox_path: Path) -> None:
    first = orchclient("--db", str(outbox_path), "list", "--json").document["events"][-1]["id"]
    ended = orchclient("--db", str(outbox_path), "show", first)
    assert ended.code == 0
    assert '"file": "app.py"' in ended.out
    assert "\x1b" not in ended.out
    document = orchclient("--db", str(outbox_path), "show", recorded[:20], "--json").document
    assert document["event"]["data"]["error_type"] == "github_api_auth"


def test_show_lists_the_attempts(recorded: str, outbox_path: Path, receiver: Receiver) -> None:
    receiver.plan(Fault.status(503))
    orchclient("--db", str(outbox_path), "flush", ORCHCLIENT_URL=receiver.url)
    document = orchclient("--db", str(outbox_path), "show", recorded, "--json").document
    first = document["attempts"][0]
    assert (first["status"], first["action"], first["events"]) == (503, "back_off", 3)


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "message"),
    [
        (("show", "ffff"), {}, 1, "no event"),
        (("list", "--to", "slakc"), {}, 2, "no destination 'slakc'"),
        (("stauts",), {}, 2, "Did you mean status?"),
        (("flush", "--timeout", "soon"), {}, 2, "not a duration"),
        (("status",), {"ORCHCLIENT_MODE": "sometimes"}, 2, "ORCHCLIENT_MODE is not usable"),
        (("flush",), {"ORCHCLIENT_URL": "nonsense"}, 2, "ORCHCLIENT_URL"),
        (("status",), {"ORCHCLIENT_CONFIG": "/nowhere.toml"}, 2, "/nowhere.toml"),
    ],
)
def test_an_error_is_one_line_or_one_document_with_an_honest_code(
    recorded: str, outbox_path: Path, arguments: tuple[str, ...], environment: dict[str, str], code: int, message: str
) -> None:
    plain = orchclient("--db", str(outbox_path), *arguments, **environment)
    assert (plain.code, plain.out) == (code, "")
    assert message in plain.err
    assert "Traceback" not in plain.err
    as_json = orchclient("--db", str(outbox_path), *arguments, "--json", **environment)
    assert (as_json.code, as_json.document["ok"]) == (code, False)
    assert message in as_json.document["error"]["message"]


def test_doctor_finds_what_is_wrong_and_names_the_cure(recorded: str, outbox_path: Path, receiver: Receiver) -> None:
    well = orchclient("--db", str(outbox_path), "doctor", ORCHCLIENT_URL=receiver.url)
    assert well.code == 0
    assert "quick_check" in well.out
    assert "orchestrator answers" in well.out
    outbox_path.chmod(0o644)
    ill = orchclient("--db", str(outbox_path), "doctor", "--json", ORCHCLIENT_URL=receiver.url)
    assert ill.code == 1
    assert any(finding["level"] == "problem" and "outbox.db" in finding["what"] for finding in ill.document["findings"])


def test_help_names_every_command_and_the_exit_codes() -> None:
    ended = orchclient("--help")
    assert ended.code == 0
    assert all(
        name in ended.out for name in ("demo", "status", "flush", "retry", "list", "doctor", "3 events still pending")
    )


def test_version_names_what_a_bug_report_needs() -> None:
    ended = orchclient("--version")
    assert all(word in ended.out for word in ("orchclient", "Python", "SQLite"))
