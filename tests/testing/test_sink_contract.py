"""The published contract of destinations: ours keep it, and it finds those that do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchclient.core.batch import Batch
from orchclient.core.batching import BatchLimit
from orchclient.core.http import HttpOutcome, HttpReply, NoReply
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


# --- what the contract finds ------------------------------------------------------------------------------------------


def _settles_on_silence(sink: Any, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
    return all_delivered(batch.ids)


def _buries_in_an_outage(sink: Any, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
    if isinstance(outcome, NoReply) or outcome.status // 100 != 2:
        return Verdict(Action.SETTLE, items=dict.fromkeys(batch.ids, Item(Fate.DEAD)))
    return all_delivered(batch.ids)


def _believes_every_id(sink: Any, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
    verdict = OrchestratorSink.decide(sink, batch, outcome, now_us)
    if verdict.action is not Action.SETTLE:
        return verdict
    return Verdict(Action.SETTLE, items={**verdict.items, "stranger": Item(Fate.DELIVERED)})


def _repeats_what_was_said(sink: Any, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
    said = outcome.body.decode("latin-1") if isinstance(outcome, HttpReply) else ""
    verdict = OrchestratorSink.decide(sink, batch, outcome, now_us)
    return Verdict(verdict.action, said, verdict.retry_after_s, verdict.items)


def _chokes_on_an_answer(sink: Any, batch: Batch, outcome: HttpOutcome, now_us: int) -> Verdict:
    if isinstance(outcome, HttpReply) and outcome.status == 200:
        json.loads(outcome.body)["results"]
    return OrchestratorSink.decide(sink, batch, outcome, now_us)


@pytest.mark.parametrize(
    "decide",
    [_settles_on_silence, _buries_in_an_outage, _believes_every_id, _repeats_what_was_said, _chokes_on_an_answer],
)
def test_the_contract_finds_a_dialect_that(decide: Callable[..., Verdict], monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(OrchestratorSink):
        pass

    monkeypatch.setattr(Wrong, "decide", decide)
    suite = TestOrchestratorSink()
    monkeypatch.setattr(suite, "make_sink", lambda: Wrong("https://orchestrator.example", lambda: TOKEN))
    broken = []
    for name in (name for name in dir(suite) if name.startswith("test_")):
        try:
            getattr(suite, name)()
        except Exception:
            broken.append(name)
    assert broken


def test_the_contract_finds_a_secret_that_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Talkative(OrchestratorSink):
        def __repr__(self) -> str:
            return f"Talkative({TOKEN})"

    suite = TestOrchestratorSink()
    monkeypatch.setattr(suite, "make_sink", lambda: Talkative("https://orchestrator.example", lambda: TOKEN))
    with pytest.raises(AssertionError):
        suite.test_its_repr_shows_no_secret()


def test_a_batch_of_the_contract_is_what_the_flusher_hands_over() -> None:
    assert [event["id"] for event in batch_of(3).events] == list(batch_of(3).ids)


def _is_a_sink(sink: Sink) -> Sink:  # for the type checker: the protocol and the class fit
    return sink


def test_the_orchestrator_s_dialect_is_a_sink() -> None:
    assert _is_a_sink(OrchestratorSink("https://orchestrator.example", lambda: None)).kind == "orchestrator"
