"""An inbox full of what no orchestrator should put there, over a wire that spoils pages. ``poll_through`` judges."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import define, field

from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest, NoReply
from orchclient.core.jsontext import encode, storable
from orchclient.outbox import inbox, requests
from orchclient.testing.items import human, item_of, new_id
from tests.delivery.inbox_bench import DIGEST, InboxBench, open_question

AT = "2026-11-23T10:20:58Z"
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    "",
    "x" * 2_000,
    "\x00\x1b[31m",
    "\u202e",
    "\ud800",
    [],
    {},
    [[[[]]]],
    {"a": {}},
]
OTHER_DIGEST = "sha256:" + "2" * 64
PAGES_AT_ONCE = 40


@define
class Deluge:
    """Questions that are open, and items of which each says itself whether it may settle one."""

    bench: InboxBench
    chance: random.Random
    asked: list[str]
    put: list[Any] = field(factory=list)
    valid: dict[str, set[str]] = field(factory=dict)  # the ids of items that may settle a question, by question
    kinds: Counter[str] = field(factory=Counter)

    def pour(self, count: int) -> None:
        """Put items in the inbox."""
        makers = [
            self.right,
            self.stale,
            self.foreign,
            self.of_another_task,
            self.broken,
            self.odd,
            self.told,
            self.again,
        ]
        for _ in range(count):
            maker = self.chance.choice(makers)
            self.kinds[maker.__name__] += 1
            item = maker()
            self.put.append(item)
            self.bench.put_item(item)
        if self.chance.random() < 0.3:
            self.bench.orchestrator.inbox.reorder(self._shuffled)

    def _shuffled(self, items: list[Any]) -> list[Any]:
        return self.chance.sample(items, len(items))

    def answer(self, question: str, **members: Any) -> dict[str, Any]:
        data = {
            "clarification_id": question,
            "answer_id": f"answer-{new_id()}",
            "outcome": self.chance.choice(["approved", "rejected", "changes_requested", "declined"]),
            "responder": human("u-1"),
            "answered_at": AT,
            "content_digest": DIGEST,
        }
        return item_of("clarification.answered.v1", "t", data | members)

    def right(self) -> Any:
        question = self.chance.choice(self.asked)
        item = self.answer(question)
        self.valid.setdefault(question, set()).add(item["id"])
        return item

    def stale(self) -> Any:
        return self.answer(self.chance.choice(self.asked), content_digest=OTHER_DIGEST)

    def foreign(self) -> Any:
        return self.answer(new_id())

    def of_another_task(self) -> Any:
        item = self.answer(self.chance.choice(self.asked))
        item["subject"] = item["data"]["task_id"] = "somebody else's"
        return item

    def broken(self) -> Any:
        """One member is gone or another; what is still right may settle after all."""
        item = self.answer(self.chance.choice(self.asked))
        target = self.chance.choice([item, item["data"]])
        name = self.chance.choice([n for n in target if n not in ("answer_id", "dataschema", "id")])
        if self.chance.random() < 0.5:
            del target[name]
        else:
            target[name] = self.chance.choice([*ODD, {"kind": "timeout"}, "expired"])
        return item

    def odd(self) -> Any:
        value = self.chance.choice(ODD)
        return (
            value
            if self.chance.random() < 0.5
            else {"id": value, "source": "s", "data": value, "n": self.chance.random()}
        )

    def told(self) -> Any:
        kind = self.chance.choice(["task.message.v1", "task.praised.v7"])
        return item_of(kind, "t", {"text": "x" * self.chance.choice([1, 16_384]), "sent_by": human("u"), "sent_at": AT})

    def again(self) -> Any:
        """An item, or the same answer in another one, once more."""
        if not self.put:
            return self.told()
        return json.loads(json.dumps(self.chance.choice(self.put)))

    # --- the wire -------------------------------------------------------------------------------------------------

    def spoil(self, request: HttpRequest) -> HttpOutcome:
        """What arrives of an answer."""
        reply = self.bench.wire.judged(request)
        if not isinstance(reply, HttpReply) or self.chance.random() < 0.6:
            return reply
        ways = [self._cut, self._lost, self._refused, self._large, self._lies, self._twice]
        return self.chance.choice(ways)(reply)

    def _cut(self, reply: HttpReply) -> HttpOutcome:
        return HttpReply(200, {}, reply.body[: self.chance.randrange(max(len(reply.body), 1))])

    def _lost(self, reply: HttpReply) -> HttpOutcome:
        return NoReply(self.chance.choice(["broken", "timeout", "too_large", "protocol"]))

    def _refused(self, reply: HttpReply) -> HttpOutcome:
        return HttpReply(self.chance.choice([204, 302, 400, 401, 404, 410, 429, 500, 501, 503]))

    def _large(self, reply: HttpReply) -> HttpOutcome:
        return HttpReply(200, {}, reply.body + b" " * 70_000)

    def _lies(self, reply: HttpReply) -> HttpOutcome:
        page = json.loads(reply.body)
        name = self.chance.choice(["items", "cursor", "has_more"])
        return HttpReply(200, {}, json.dumps(page | {name: self.chance.choice([None, 7, {}, "", "c" * 600])}).encode())

    def _twice(self, reply: HttpReply) -> HttpOutcome:
        """Its items twice, in another order."""
        page = json.loads(reply.body)
        items = page.get("items", [])[:40] * 2 if isinstance(page, dict) else []
        self.chance.shuffle(items)
        if not isinstance(page, dict) or len(page.get("items", [])) > 40:
            return reply
        return HttpReply(200, {}, json.dumps(page | {"items": items}).encode())


def poll_through(directory: Path, items: int, seed: int) -> tuple[list[str], Counter[str]]:
    """Have so many items polled over the spoilt wire; the laws that were broken, and how many items of each kind."""
    bench = InboxBench(directory / f"{seed}.db", page_items=20)
    deluge = Deluge(bench, random.Random(seed), [open_question(bench) for _ in range(40)])
    try:
        while len(deluge.put) < items:
            deluge.pour(min(500, items - len(deluge.put)))
            _poll(bench, deluge.spoil, until_empty=False)
        _poll(bench, bench.wire.judged, until_empty=True)
        return _broken_laws(deluge), deluge.kinds
    finally:
        bench.outbox.close()


def _poll(bench: InboxBench, answers: Callable[[HttpRequest], HttpOutcome], *, until_empty: bool) -> None:
    turns = 0
    while (bench.orchestrator.inbox.items and turns < 2_000) if until_empty else turns < PAGES_AT_ONCE:
        bench.wire.answers = [answers] * 4
        wait_s = bench.worker.turn()
        bench.clock.pass_s(wait_s + 0.001)
        turns += 1


def _key(item: Any) -> str:
    """By what an item is told from others: its names, else its text."""
    if isinstance(item, dict) and all(isinstance(item.get(n), str) and item[n] for n in ("id", "source")):
        return storable(f"{item['source']} {item['id']}")
    return "text " + sha256(storable(encode(item)).encode()).hexdigest()


def _broken_laws(deluge: Deluge) -> list[str]:
    kept = deluge.bench.outbox.query(lambda con: inbox.received(con, most=10**6))
    found = Counter(
        f"{each.source} {each.id}" if each.source else f"text {each.id.removeprefix('sha256:')}" for each in kept
    )
    broken = [f"{key} was kept {count} times" for key, count in found.items() if count > 1]
    broken += [f"{key} was skipped" for key in {_key(item) for item in deluge.put} - set(found)]
    if deluge.bench.orchestrator.inbox.items:
        broken.append("not everything was acknowledged")
    for question in deluge.asked:
        broken += _broken_by(
            deluge, question, [each.id for each in kept if each.verdict == "accepted" and each.request == question]
        )
    foreign = [each.id for each in kept if each.verdict == "accepted" and each.request not in deluge.asked]
    return broken + [f"the foreign answer {id_} was accepted" for id_ in foreign]


def _broken_by(deluge: Deluge, question: str, accepted: list[str]) -> list[str]:
    request = deluge.bench.outbox.query(lambda con: requests.by_id(con, question))
    assert request is not None
    if len(accepted) > 1:
        return [f"{question} was settled {len(accepted)} times"]
    if not accepted:
        return [f"{question} stayed open"] if question in deluge.valid and request.state.is_open else []
    item = next(item for item in deluge.put if isinstance(item, dict) and item.get("id") == accepted[0])
    is_right = item["subject"] == "t" and item["data"]["content_digest"] == DIGEST and "responder" in item["data"]
    return [] if is_right and not request.state.is_open else [f"{question} was settled by {item}"]
