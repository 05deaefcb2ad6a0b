"""The published contract of destinations: ours keep it, and it finds those that do not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.policy import Action, Fate, Item, Verdict, all_delivered
from orchclient.sinks.orchestrator import OrchestratorSink
from orchclient.sinks.sink import DirectSink, Sink
from orchclient.testing.sink_contract import DirectSinkContract, SinkContract, batch_of

TOKEN = "canary-token-91c2"


class TestOrchestratorSink(SinkContract):
    secrets = (TOKEN,)

    def make_sink(self) -> OrchestratorSink:
        return OrchestratorSink("https://orchestrator.example", lambda: TOKEN)

    def accepting(self, batch: Batch) -> HttpReply:
        results = [{"id": id_, "status": "accepted"} for id_ in batch.ids]
        return HttpReply(200, {"content-type": "application/json"}, json.dumps({"results": results}).encode())


class FileSink:
    """One line for each event. What a user may write in a minute."""

    kind = "file"
    from_beginning = True
    checks_sequence = False

    def __init__(self, path: Path, name: str = "audit") -> None:
        self.name = name
        self.target = str(path)
        self.path = path

    def limit(self) -> BatchLimit:
        return BatchLimit()

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        with self.path.open("a") as file:
            file.writelines(text + "\n" for text in batch.texts)
        return all_delivered(batch.ids)

    def close(self) -> None:
        pass


class TestFileSink(DirectSinkContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "audit.jsonl"

    def make_sink(self) -> FileSink:
        return FileSink(self.path)

    def arrived(self, sink: DirectSink) -> Sequence[str]:
        return [json.loads(line)["id"] for line in self.path.read_text().splitlines()]


def test_a_suite_without_its_destination_says_what_to_write() -> None:
    class TestMine(DirectSinkContract):
        pass

    with pytest.raises(
        NotImplementedError, match=r"TestMine needs a make_sink\(\) of its own: The destination under test"
    ):
        TestMine().test_what_is_delivered_has_arrived()


# --- what the contract finds: one wrong destination for each check ---------------------------------------------------


class Right(OrchestratorSink):
    """To be spoilt."""

    def __init__(self) -> None:
        super().__init__("https://orchestrator.example", lambda: TOKEN)


class BadName(Right):
    def __init__(self) -> None:
        super().__init__()
        self.name = "Two Words"


class SecretTarget(Right):
    def __init__(self) -> None:
        super().__init__()
        self.target = f"https://x.example?token={TOKEN}"


class SaysNotWhereItBegins(Right):
    from_beginning: Any = None


class TakesNothingAtOnce(Right):
    def limit(self) -> BatchLimit:
        return BatchLimit(events=0, max_events=0)


class TakesSomeAndLooksForGaps(Right):
    def takes(self, attributes: Any) -> bool:
        return True


class Talkative(Right):
    def __repr__(self) -> str:
        return f"Talkative({TOKEN})"


class HeaderOfText(Right):
    def render(self, batch: Batch) -> HttpRequest:
        return evolve(super().render(batch), headers={"X-Text": batch.events[0]["data"]["current_step"]})


class NeverDone(Right):
    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        return Verdict(Action.BACK_OFF, "later")


class SettlesOnSilence(Right):
    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        return all_delivered(batch.ids) if isinstance(outcome, NoReply) else super().decide(batch, outcome, now_us)


class OnStatus(Right):
    """Wrong for one status only."""

    status = 0
    action = Action.SETTLE

    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        if isinstance(outcome, HttpReply) and outcome.status == self.status:
            items = dict.fromkeys(batch.ids, Item(Fate.DEAD)) if self.action is Action.SETTLE else {}
            return Verdict(self.action, items=items)
        return super().decide(batch, outcome, now_us)


class BuriesInAnOutage(OnStatus):
    status = 503


class TriesRefusedCredentialsAgain(OnStatus):
    status = 401
    action = Action.BACK_OFF


class FollowsRedirects(OnStatus):
    status = 307


class BelievesEveryId(Right):
    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        verdict = super().decide(batch, outcome, now_us)
        if verdict.action is not Action.SETTLE:
            return verdict
        return evolve(verdict, items={**verdict.items, "stranger": Item(Fate.DELIVERED)})


class RepeatsWhatWasSaid(Right):
    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        said = outcome.body.decode("latin-1") if isinstance(outcome, HttpReply) else ""
        return evolve(super().decide(batch, outcome, now_us), reason=said)


class ChokesOnAnAnswer(Right):
    def decide(self, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
        if isinstance(outcome, HttpReply) and outcome.status == 200:
            json.loads(outcome.body)["results"]
        return super().decide(batch, outcome, now_us)


class Forgetful(FileSink):
    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        return all_delivered(batch.ids)


class RefusesRepeats(FileSink):
    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        if batch.ids[0] in self.path.read_text():
            return Verdict(Action.SETTLE, items=dict.fromkeys(batch.ids, Item(Fate.DEAD, "known")))
        return super().deliver(batch, deadline_s=deadline_s)


class OnlyOnce(FileSink):
    is_closed = False

    def deliver(self, batch: Batch, *, deadline_s: float) -> Verdict:
        assert not self.is_closed
        return super().deliver(batch, deadline_s=deadline_s)

    def close(self) -> None:
        self.is_closed = True


WRONG: tuple[tuple[str, type[Any]], ...] = (
    ("test_it_has_a_name_that_can_be_kept", BadName),
    ("test_its_target_tells_the_configuration_without_its_secrets", SecretTarget),
    ("test_it_says_where_it_begins_and_whether_it_looks_for_gaps", SaysNotWhereItBegins),
    ("test_it_takes_at_least_one_event_at_once", TakesNothingAtOnce),
    ("test_one_that_takes_some_events_only_does_not_look_for_missing_sequences", TakesSomeAndLooksForGaps),
    ("test_its_repr_shows_no_secret", Talkative),
    ("test_what_it_sends_can_be_put_on_the_wire", HeaderOfText),
    ("test_what_is_accepted_is_delivered", NeverDone),
    ("test_without_an_answer_nothing_is_settled", SettlesOnSilence),
    ("test_an_outage_costs_no_event", BuriesInAnOutage),
    ("test_refused_credentials_stop_it_and_keep_everything", TriesRefusedCredentialsAgain),
    ("test_no_redirect_counts_as_delivered", FollowsRedirects),
    ("test_no_answer_at_all_can_hurt", BelievesEveryId),
    ("test_no_answer_at_all_can_hurt", RepeatsWhatWasSaid),
    ("test_no_answer_at_all_can_hurt", ChokesOnAnAnswer),
)
WRONG_WIRES: tuple[tuple[str, type[Any]], ...] = (
    ("test_what_is_delivered_has_arrived", Forgetful),
    ("test_a_repeat_is_settled_too", RefusesRepeats),
    ("test_it_works_again_after_it_was_closed", OnlyOnce),
)


@pytest.mark.parametrize(("check", "wrong"), WRONG)
def test_a_wrong_dialect_is_found_by_its_check(check: str, wrong: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    suite = TestOrchestratorSink()
    monkeypatch.setattr(suite, "make_sink", wrong)
    with pytest.raises((AssertionError, ValueError, TypeError, KeyError)):
        getattr(suite, check)()


@pytest.mark.parametrize(("check", "wrong"), WRONG_WIRES)
def test_a_wrong_wire_is_found_by_its_check(
    check: str, wrong: type[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    suite = TestFileSink()
    suite.path = tmp_path / "audit.jsonl"
    suite.path.touch()
    monkeypatch.setattr(suite, "make_sink", lambda: wrong(suite.path))
    with pytest.raises(AssertionError):
        getattr(suite, check)()


def test_every_check_has_a_wrong_destination_that_it_finds() -> None:
    checks = {name for suite in (SinkContract, DirectSinkContract) for name in dir(suite) if name.startswith("test_")}
    assert checks == {check for check, _ in (*WRONG, *WRONG_WIRES)}


def test_a_batch_of_the_contract_is_what_the_flusher_hands_over() -> None:
    assert [event["id"] for event in batch_of(3).events] == list(batch_of(3).ids)


def _is_a_sink(sink: Sink) -> Sink:  # for the type checker: the protocol and the class fit
    return sink


def test_the_orchestrator_s_dialect_is_a_sink() -> None:
    assert _is_a_sink(OrchestratorSink("https://orchestrator.example", lambda: None)).kind == "orchestrator"
