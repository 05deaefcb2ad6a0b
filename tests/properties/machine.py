"""The promises of an outbox as a state machine: what agents, operators, networks and clocks may do, in any order.

After every step each law holds. At the end the world is healed, and what is not dead has arrived.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from shutil import rmtree
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from .host import Image, template
from .laws import Laws
from .orchestrator import ANSWERS, GREETINGS, Answer, Terms
from .sayings import AGENTS, SAYINGS, TASKS
from .world import SINKS, Utterance, World

DAY_S = 86_400.0
CHORES = ("keep house", "fold", "prune", "checkpoint", "sync")
ENDS = ("closed", "killed", "all killed")
ACTS = ("record", "transaction", *CHORES)
JUMPS = (0.0, 0.0, 0.0, -DAY_S, DAY_S, -3_652 * DAY_S, 3_652 * DAY_S)

whos = st.sampled_from(range(len(AGENTS)))
sinks = st.sampled_from(SINKS)
sentences = st.sampled_from([(task, saying) for task in TASKS for saying in SAYINGS])
speeches = st.lists(sentences, min_size=1, max_size=4)
greetings = st.sampled_from(GREETINGS)
answers = st.sampled_from(ANSWERS)
scripts = st.lists(answers, min_size=1, max_size=5)
chores = st.sampled_from(CHORES)
statements = st.integers(0, 7)
stretches = st.tuples(st.integers(1, 12), st.integers(0, 12))


class OutboxMachine(RuleBasedStateMachine):
    """See the module. ``base`` and ``image`` are given by ``machine_in``."""

    base: ClassVar[Path]
    image: ClassVar[Image]
    examples: ClassVar[int]
    heartbeats: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.directory = Path(tempfile.mkdtemp(dir=self.base))
        self.world = World(self.directory, self.image)
        self.laws = Laws(self.world)

    # --- agents ---------------------------------------------------------------------------------------------------

    @rule(who=whos, speech=speeches)
    def an_agent_records(self, who: int, speech: list[Utterance]) -> None:
        self.world.record(who, speech)

    @rule(speech=speeches, other=speeches)
    def two_agents_record(self, speech: list[Utterance], other: list[Utterance]) -> None:
        for mine, theirs in zip(speech, other, strict=False):
            self.world.record(0, [mine])
            self.world.record(1, [theirs])

    @rule(who=whos, speech=st.lists(sentences, max_size=3), commits=st.booleans())
    def an_agent_records_in_a_transaction(self, who: int, speech: list[Utterance], commits: bool) -> None:
        self.world.record_together(who, speech, commits=commits)

    # --- delivery: something is recorded, and some of it is sent ----------------------------------------------------

    @rule(who=whos, speech=speeches, script=scripts, greeting=greetings)
    def the_flusher_delivers(self, who: int, speech: list[Utterance], script: list[Answer], greeting: Answer) -> None:
        self.world.record(who, speech)
        self.world.deliver(self.world.leader(SINKS[0]), greeting, script)

    @rule(sink=sinks, speech=speeches, script=scripts, greeting=greetings)
    def a_flusher_delivers_what_need_not_wait(
        self, sink: str, speech: list[Utterance], script: list[Answer], greeting: Answer
    ) -> None:
        for utterance, answer in zip_longest(speech, script):
            self.world.record(0, [utterance] if utterance else [])
            self.world.deliver(self.world.leader(sink), greeting, [answer] if answer else [], patient=False)

    @rule(sink=sinks, speech=speeches, script=scripts, greeting=greetings)
    def a_flusher_delivers_in_a_hurry(
        self, sink: str, speech: list[Utterance], script: list[Answer], greeting: Answer
    ) -> None:
        self.world.record(1, speech)
        flusher = self.world.leader(sink)
        flusher.worker.hurry()
        self.world.deliver(flusher, greeting, script)

    @rule(who=whos, sink=sinks, speech=speeches, script=scripts, greeting=greetings)
    def another_process_is_elected_and_delivers(
        self, who: int, sink: str, speech: list[Utterance], script: list[Answer], greeting: Answer
    ) -> None:
        self.world.record(who, speech)
        self.world.deliver(self.world.elect(who, sink), greeting, script)

    @precondition(lambda self: self.world.stalled)
    @rule()
    def a_stalled_flusher_wakes_up(self) -> None:
        self.world.stalled.pop().worker.turn()

    # --- the other end --------------------------------------------------------------------------------------------

    @rule(sink=sinks, picks=st.lists(st.integers(0, 9), min_size=1, max_size=3), poisoned=st.booleans())
    def an_orchestrator_dislikes_events(self, sink: str, picks: list[int], poisoned: bool) -> None:
        self.world.dislike(sink, picks, poisoned=poisoned)

    @rule(
        sink=sinks,
        max_events=st.sampled_from((1, 2, 3, 5, 500)),
        max_bytes=st.sampled_from((900, 2_500, 30_000)),
        says_so=st.booleans(),
        gzip=st.booleans(),
    )
    def an_orchestrator_changes_its_terms(
        self, sink: str, max_events: int, max_bytes: int, says_so: bool, gzip: bool
    ) -> None:
        self.world.orchestrators[sink].terms = Terms(max_events, max_bytes, says_so, gzip)

    @rule(sink=sinks, stretch=stretches)
    def an_operator_sends_again(self, sink: str, stretch: tuple[int, int]) -> None:
        self.world.resend(sink, stretch[0], stretch[0] + stretch[1])

    @rule(sink=sinks, task=st.sampled_from((None, *TASKS)))
    def an_operator_retries_dead_letters(self, sink: str, task: str | None) -> None:
        self.world.retry(sink, task)

    @rule(sink=sinks, readdressed=st.booleans(), all_is_well=st.booleans())
    def an_orchestrator_heals(self, sink: str, readdressed: bool, all_is_well: bool) -> None:
        self.world.orchestrators[sink].heal()
        if readdressed:
            self.world.readdress(sink)
        if all_is_well:
            self.all_is_well()

    def all_is_well(self) -> None:
        self.world.heal()
        self.laws.hold_at_rest()

    # --- the host -------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.1, 60.0, 3_700.0)), jump_s=st.sampled_from(JUMPS))
    def time_passes(self, seconds: float, jump_s: float) -> None:
        self.world.clock.wait(seconds)
        self.world.clock.jump(jump_s)

    @rule(who=whos, chore=chores, step=st.integers(1, 9))
    def somebody_keeps_house(self, who: int, chore: str, step: int) -> None:
        self.world.keep_house(who, chore, step)

    @rule(who=whos, how=st.sampled_from(ENDS))
    def processes_end(self, who: int, how: str) -> None:
        {"closed": self.world.end, "killed": self.world.kill, "all killed": lambda _: self.world.crash()}[how](who)

    @rule(who=whos, act=st.sampled_from(ACTS), speech=speeches, statement=statements)
    def all_processes_are_killed_during_an_act(
        self, who: int, act: str, speech: list[Utterance], statement: int
    ) -> None:
        if act == "record":
            self.world.crash_during_record(who, statement % 3, speech[0])
        elif act == "transaction":
            self.world.crash_during_transaction(who, statement, speech)
        else:
            self.world.crash_during(who, statement, lambda: self.world.keep_house(who, act, 5))

    @rule(sink=sinks, speech=speeches, answer=answers, statement=statements)
    def all_processes_are_killed_during_a_delivery(
        self, sink: str, speech: list[Utterance], answer: Answer, statement: int
    ) -> None:
        self.world.record(0, speech)
        self.world.crash_during_delivery(self.world.leader(sink), statement, answer)

    @rule(again=st.booleans())
    def the_file_is_put_back(self, again: bool) -> None:
        if self.world.backup:
            self.world.restore()
        if again or not self.world.backup:
            self.world.back_up()

    # --- the laws -------------------------------------------------------------------------------------------------

    @invariant()
    def every_law_holds(self) -> None:
        self.laws.hold()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.all_is_well()
        finally:
            type(self).heartbeats += self.world.heartbeats
            self.world.host.close()
            rmtree(self.directory)


def machine_in(base: Path) -> type[OutboxMachine]:
    """A machine of its own, with its own count of examples, whose files are below ``base``."""
    return type("Outbox", (OutboxMachine,), {"base": base, "image": template(base), "examples": 0, "heartbeats": 0})
