"""``orchclient export`` and ``import``: nothing is lost, nothing comes twice, and nothing is believed of a file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from orchclient import OrchestratorClient
from orchclient.core.recording import LINE_BYTES
from orchclient.outbox import carrying
from orchclient.outbox.gaps import JOURNAL, expired
from orchclient.testing import Receiver
from tests.cli.inside import Inside
from tests.conftest import MakeClient

EVENTS = 7


@pytest.fixture
def host(make_client: MakeClient) -> OrchestratorClient:
    """A host without a network: three tasks, a question and a result."""
    client = make_client(background=False)
    for number in range(5):
        client.update_task_status(f"t-{number % 3}", "testing", {"n": number}, progress_percentage=number)
    client.request_clarification("t-0", "Which one?", options=["a", "b"], priority="critical")
    client.report_completion("t-1", None, {"tests_passed": 3})
    return client


@pytest.fixture
def here(host: OrchestratorClient, outbox_path: Path) -> Inside:
    return Inside(outbox_path)


@pytest.fixture
def carrier(tmp_path: Path, receiver: Receiver) -> Inside:
    """Another host, which has a network."""
    return Inside(tmp_path / "carried" / "outbox.db", receiver.url)


@pytest.fixture
def carried(here: Inside, tmp_path: Path) -> Path:
    path = tmp_path / "carried.jsonl"
    assert here("export", "-o", str(path)).code == 0
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for event in receiver.events]


# --- export -------------------------------------------------------------------------------------------------------


def test_a_recording_is_a_header_and_the_events_as_they_are_on_the_wire(
    host: OrchestratorClient, carried: Path, receiver: Receiver, outbox_path: Path
) -> None:
    header, *events = lines(carried)
    assert (header["orchclient_recording"], header["from"], header["to"], header["events"]) == (1, 1, EVENTS, EVENTS)
    assert header["source"] == events[0]["source"]
    assert Inside(outbox_path, receiver.url)("flush").code == 0
    assert receiver.events == events


def test_a_recording_can_be_read_by_its_owner_only_and_a_failure_leaves_none(carried: Path, here: Inside) -> None:
    assert stat.S_IMODE(os.stat(carried).st_mode) == 0o600
    ended = here("export", "-o", str(carried / "no-directory.jsonl"))
    assert ended.code == 1
    assert "name another file" in ended.err
    assert [path.name for path in carried.parent.glob(".*")] == []


def test_a_secret_that_is_known_only_now_is_not_exported(make_client: MakeClient, here: Inside, tmp_path: Path) -> None:
    make_client(background=False).update_task_status("t-1", "testing", {"note": "canary-7f3a said so"})
    path = tmp_path / "clean.jsonl"
    assert here("export", "-o", str(path), ORCHCLIENT_TOKEN="canary-7f3a").code == 0
    assert "canary" not in path.read_text()
    assert lines(path)[-1]["data"]["metadata"] == {"note": "[redacted] said so"}


@pytest.mark.parametrize(
    ("filters", "count"),
    [(["--task", "t-0"], 3), (["--agent", "nobody"], 0), (["--state", "pending"], 7), (["--state", "dead"], 0)],
)
def test_a_selection_says_that_it_is_one(here: Inside, tmp_path: Path, filters: list[str], count: int) -> None:
    path = tmp_path / "some.jsonl"
    document = here.json("export", "-o", str(path), *filters)
    assert (document["events"], len(lines(path)) - 1, bool(document["selection"])) == (count, count, True)


def test_what_the_journal_gave_up_is_told_with_its_reason(
    host: OrchestratorClient, here: Inside, carrier: Inside, tmp_path: Path
) -> None:
    def lose(con: Any) -> None:
        con.execute("DELETE FROM events WHERE seq IN (2, 3, 5)")
        con.execute("INSERT INTO gaps VALUES (?, 2, 3, 'folded', 1)", (JOURNAL,))

    host._station.write(lose)
    path = tmp_path / "holes.jsonl"
    assert here("export", "-o", str(path)).code == 0
    gaps = [line["gap"] for line in lines(path) if "gap" in line]
    assert gaps == [{"from": 2, "to": 3, "reason": "folded"}, {"from": 5, "to": 5, "reason": "delivered"}]
    assert carrier("import", str(path)).code == 0
    assert carrier("flush").code == 0
    assert carrier.counts() == {"delivered": 4, "pending": 0, "dead": 0, "expired": 3}


def test_an_event_whose_bits_flipped_is_a_gap_and_not_exported(
    host: OrchestratorClient, here: Inside, tmp_path: Path
) -> None:
    host._station.write(lambda con: con.execute("UPDATE events SET body = body || ' ' WHERE seq = 4"))
    path = tmp_path / "damaged.jsonl"
    assert here.json("export", "-o", str(path))["events"] == EVENTS - 1
    assert lines(path)[4] == {"gap": {"from": 4, "to": 4, "reason": "damaged"}}


# --- import -------------------------------------------------------------------------------------------------------


def test_both_hosts_may_deliver_and_the_orchestrator_has_each_event_once(
    host: OrchestratorClient, here: Inside, carrier: Inside, carried: Path, receiver: Receiver, make_client: MakeClient
) -> None:
    assert carrier("import", str(carried)).code == 0
    assert carrier("flush").code == 0
    host.update_task_status("t-0", "failed")
    assert here("flush", ORCHCLIENT_URL=receiver.url).code == 0
    make_client("carrier", outbox=carrier.environment["ORCHCLIENT_DB"], background=False).start_task("own")
    assert carrier("flush").code == 0
    assert len(ids(receiver)) == len(set(ids(receiver))) == EVENTS + 2
    assert receiver.conflicts == []
    assert len(receiver.repeats) == EVENTS  # they did come twice
    assert len({event["source"] for event in receiver.events}) == 2


def test_a_dead_letter_of_the_carrier_is_explained_under_the_source_it_came_with(
    carrier: Inside, carried: Path, receiver: Receiver
) -> None:
    assert carrier("import", str(carried)).code == 0
    receiver.reject(lines(carried)[3]["id"])
    assert carrier("flush").code == 4
    (gap,) = [event for event in receiver.events if event["type"].endswith("gap.v1")]
    source = lines(carried)[1]["source"]
    assert (gap["source"] != source, gap["data"]["source"], gap["data"]["from"]) == (True, source, 3)
    assert report_of(receiver, source) == {"highest": EVENTS, "gaps": []}


def report_of(receiver: Receiver, source: str) -> Any:
    with urlopen(f"{receiver.url}/v1/sources/{source}") as reply:
        return json.load(reply)


def test_again_it_changes_nothing_and_a_later_recording_brings_the_rest(
    host: OrchestratorClient, here: Inside, carrier: Inside, carried: Path, receiver: Receiver
) -> None:
    assert carrier.json("import", str(carried))["imported"] == EVENTS
    assert carrier.json("import", str(carried))["imported"] == 0
    host.update_task_status("t-0", "failed")
    assert here("export", "-o", str(carried)).code == 0
    document = carrier.json("import", str(carried))
    assert (document["imported"], document["known"]) == (1, EVENTS)
    assert carrier("flush").code == 0
    assert ids(receiver) == [line["id"] for line in lines(carried)[1:]]


def test_what_was_delivered_and_forgotten_does_not_come_again(carrier: Inside, carried: Path) -> None:
    assert carrier("import", str(carried)).code == 0
    assert carrier("flush").code == 0
    assert carrier("prune", "--older-than", "0").code == 0
    assert carrier.json("import", str(carried))["imported"] == 0


def test_after_a_crash_in_the_middle_the_same_command_goes_on(
    carrier: Inside, carried: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "SLICE", 2)
    taken, real = [], carrying.take_in

    def crash_at_the_third(*args: Any) -> int:
        taken.append(args)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(carrying, "take_in", crash_at_the_third)
        assert carrier("import", str(carried)).code == 130
    assert carrier.json("status")["recorded"] == 4
    assert carrier.json("import", str(carried))["imported"] == EVENTS - 4
    assert carrier("flush").code == 0
    assert (ids(receiver), receiver.conflicts) == ([line["id"] for line in lines(carried)[1:]], [])


def test_the_carrier_neither_reminds_nor_takes_answers_away(carrier: Inside, carried: Path, receiver: Receiver) -> None:
    assert carrier("import", str(carried)).code == 0
    assert carrier("flush").code == 0
    question = next(event for event in receiver.events if "clarification" in event["type"])
    receiver.answer(question["id"], "a")
    assert carrier("flush").code == 0
    assert len(receiver.inbox) == 1  # it waits for the host that asked
    assert carrier.json("status")["recorded"] == EVENTS


def test_since_covers_the_rest_and_an_empty_outbox_may_begin_with_it(
    host: OrchestratorClient, here: Inside, carrier: Inside, tmp_path: Path, receiver: Receiver
) -> None:
    host._station.write(lambda con: con.execute("UPDATE events SET recorded_us = 1000 WHERE seq <= 4"))
    path = tmp_path / "rest.jsonl"
    assert here.json("export", "-o", str(path), "--since", "2h")["from"] == 5
    assert carrier.json("import", str(path))["imported"] == 3
    assert carrier("flush").code == 0
    assert [int(event["sequence"]) for event in receiver.events] == [5, 6, 7]
    assert here("verify", ORCHCLIENT_URL=receiver.url).code != 1


def test_an_outbox_with_other_events_refuses_and_says_where_to(carried: Path, tmp_path: Path) -> None:
    other = Inside(tmp_path / "other" / "outbox.db")
    with OrchestratorClient("other", outbox=other.environment["ORCHCLIENT_DB"], background=False) as client:
        client.start_task("own")
    ended = other("import", str(carried))
    assert (ended.code, "--db carried/" in ended.err) == (1, True)
    assert other.json("status")["recorded"] == 1


def test_a_recording_that_goes_on_further_behind_is_refused(
    host: OrchestratorClient, here: Inside, carrier: Inside, carried: Path
) -> None:
    assert carrier("import", str(carried)).code == 0
    for _ in range(3):
        host.update_task_status("t-0", "failed")
    rest = [json.dumps(line) for line in lines(carried)]
    assert here("export", "-o", str(carried)).code == 0
    header, *events = lines(carried)
    rest = [json.dumps({**header, "from": 9, "events": 2}), *map(json.dumps, events[8:])]
    carried.write_text("\n".join(rest) + "\n")
    ended = carrier("import", str(carried))
    assert (ended.code, "ends at place 7" in ended.err) == (1, True)


def test_a_recording_is_read_from_stdin_and_a_dry_run_makes_no_outbox(carrier: Inside, carried: Path) -> None:
    text = carried.read_bytes()
    assert "7 events would be taken in" in carrier("import", "--dry-run", "-", stdin=text).out
    assert not Path(carrier.environment["ORCHCLIENT_DB"]).exists()


def test_a_full_outbox_takes_no_more(carrier: Inside, carried: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "SLICE", 2)
    ended = carrier("import", str(carried), ORCHCLIENT_MAX_PENDING="3")
    assert (ended.code, "is full" in ended.err) == (1, True)
    assert carrier.json("import", str(carried))["imported"] == 3  # the rest, once there is room


# --- what is not believed -----------------------------------------------------------------------------------------

Spoil = Callable[[list[str]], object]


def edited(line: int, **members: Any) -> Spoil:
    def spoil(text: list[str]) -> None:
        text[line] = json.dumps({**json.loads(text[line]), **members})

    return spoil


@pytest.mark.parametrize(
    ("spoil", "line", "words"),
    [
        (lambda text: text.clear(), 1, "is empty"),
        (lambda text: text.pop(0), 1, "does not begin with a header"),
        (edited(0, orchclient_recording=2), 1, "update orchclient"),
        (edited(0, source="../../etc"), 1, "source must be"),
        (edited(0, events="7"), 1, "whole numbers"),
        (edited(0, events=10**400), 1, "whole numbers"),
        (edited(0, selection={"task": "t"}), 1, "selection (by task)"),
        (lambda text: text.pop(), 7, "6 of the 7 events"),
        (lambda text: text.pop(3), 4, "a line is missing"),
        (lambda text: text.append(text[-1]), 9, "not in their order"),
        (lambda text: text.insert(2, "{"), 3, "is no JSON"),
        (lambda text: text.insert(2, "[" * 100_000), 3, "is no JSON"),
        (lambda text: text.insert(2, '{"gap": {"from": 5, "to": 2, "reason": "dead"}}'), 3, "a gap has from, to"),
        (lambda text: text.insert(2, " " * (LINE_BYTES + 1)), 3, "longer than"),
        (edited(3, id="../../x"), 4, "no UUIDv7"),
        (edited(3, type="com.example.x"), 4, "breaks the wire contract"),
        (edited(3, data={"task_id": "t-2", "status": "fine"}), 4, "$.data.status"),
        (edited(3, partitionkey="another"), 4, "must be equal to subject"),
        (edited(3, subject="a\u0000b"), 4, "breaks the wire contract"),
        (edited(3, extra={"an": "object"}), 4, "breaks the wire contract"),
        (edited(3, sequence="1"), 4, "breaks the wire contract"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_taken_in(
    spoil: Spoil, line: int, words: str, carrier: Inside, carried: Path
) -> None:
    text = carried.read_text().splitlines()
    spoil(text)
    carried.write_text("".join(f"{each}\n" for each in text))
    ended = carrier("import", str(carried))
    assert ended.code == 1
    assert f"line {line}: " in ended.err
    assert words in ended.err
    assert not Path(carrier.environment["ORCHCLIENT_DB"]).exists()


def test_an_outbox_in_the_place_of_a_recording_is_told_as_that(
    here: Inside, outbox_path: Path, carrier: Inside
) -> None:
    here("prune")
    ended = carrier("import", str(outbox_path))
    assert (ended.code, "this is an outbox itself" in ended.err) == (1, True)


def test_the_ledger_of_the_carrier_itemises_what_it_never_had(
    host: OrchestratorClient, carrier: Inside, carried: Path
) -> None:
    text = carried.read_text().splitlines()
    text[3] = '{"gap":{"from":3,"to":3,"reason":"dead"}}'
    edited(0, events=6)(text)
    carried.write_text("\n".join(text))
    assert carrier("import", str(carried)).code == 0
    assert carrier("flush").code == 0
    with OrchestratorClient("x", outbox=carrier.environment["ORCHCLIENT_DB"], background=False) as client:
        noted = client._station.query(lambda con: list(expired(con)))
    assert [(each.first_seq, each.last_seq, each.reason.value) for each in noted] == [(3, 3, "dead")]
