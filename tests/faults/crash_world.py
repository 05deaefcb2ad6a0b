"""A world for killing: one outbox, an orchestrator that loses replies, and processes that come and go by SIGKILL.

It acts and counts; what must hold is the judge's affair, what the processes do is in their roles.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

from attrs import evolve

from orchclient.outbox.owed import PAGE
from orchclient.testing.receiver import Fault, Receiver

from .crash_judge import Books, Breach, Judge, Orchestrator
from .crash_points import Tripwire
from .crash_roles import DEAD, PENDING, TASKS, Findings, Post, agent, findings_in, flush_command, inspect
from .crash_zygote import REPOSITORY, TOO_LONG_S, Child, Zygote, hear

CAPABILITIES = {"protocol": ["1.0"], "batch": {"max_events": 7, "max_bytes": 20_000}, "encodings": ["gzip"]}

FILES_LOST = "its files were removed or replaced while in use"
FILE_DAMAGED = "was damaged ("
EVENTS_ELSEWHERE = "events that it held are missing from its end"
"""True, and to be said, when somebody moved the files away; a false alarm in every other world."""
"""What a process says that has found, and mended, the loss of its files."""

COMPLAINT = "no process meets an error of ours"

ENDS_WELL = ("0", str(PENDING), str(DEAD))
"""Exit codes of a flush that nothing went wrong with."""

RANDOM = "at a random moment"
ONE_OF_MANY = "at a random moment, beside others"


def faults(chance: random.Random) -> list[Fault]:
    """What may happen to the next requests: most are answered, some answers get lost."""
    task = chance.choice(TASKS)
    menu = (
        (Fault.ok(), 12),
        (Fault.lose_reply(reset=True), 3),
        (Fault.lose_reply(reset=False), 3),
        (Fault.status(503), 1),
        (Fault.retry(task), 2),
        (Fault.missing_results(task), 1),
        (Fault.hang(0.01), 3),
    )
    kinds, weights = zip(*menu, strict=True)
    return chance.choices(kinds, weights, k=12)


class World:
    """One outbox at ``directory`` from its first process to the last event's delivery."""

    def __init__(self, zygote: Zygote, directory: Path, chance: random.Random, kills: Counter[str]) -> None:
        self.chance = chance
        self.kills = kills
        self.receiver = Receiver(capabilities=CAPABILITIES, accepts_gzip=True, max_events=7)
        self.judge = Judge()
        self.directory = directory
        self._zygote = zygote
        self._orchestrator = Orchestrator(self.receiver)
        self._numbers = count(1)
        self._children: list[Child] = []
        self._is_damaged = False

    @property
    def path(self) -> Path:
        """The outbox."""
        return self.directory / "outbox.db"

    @property
    def alive(self) -> list[Child]:
        """Those whom nobody killed yet."""
        return [child for child in self._children if not child.is_gone]

    def __enter__(self) -> World:
        self.directory.mkdir(mode=0o700)
        self.receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
        self._children.clear()
        self.receiver.stop()

    # --- processes come ---------------------------------------------------------------------------------------------

    def hire(self, **work: object) -> Child:
        """An agent, at work."""
        number = next(self._numbers)
        post = Post(f"agent-{number}", str(self.path), self.receiver.url, self.chance.randrange(1 << 30))
        return self._born(self._zygote.fork(agent, evolve(post, **work)))

    def flush_by_hand(self, tripwire: Tripwire | None = None) -> Child:
        """``orchclient flush``."""
        return self._born(self._zygote.fork(flush_command, str(self.path), self.receiver.url, tripwire))

    def _born(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def acknowledged(self, child: Child, events: int) -> None:
        """Wait until an agent has so many acknowledged."""
        self._hear(lambda: len(child.texts("ack")) >= events, f"{events} acknowledged events")

    def _hear(self, until: Callable[[], bool], what: str, of: Sequence[Child] = ()) -> None:
        """Wait for something; ``of`` are those who may die of it."""
        heard = hear(self.alive, until)
        self._nobody_complains(of)
        if not heard:
            raise Breach("nothing hangs", f"waited for {what}", *(child.stacks() for child in self.alive))

    # --- and go -----------------------------------------------------------------------------------------------------

    def wait_for_strike(self, tripwire: Tripwire, *victims: Child, unless: str = "struck") -> None:
        """Wait until these have come to their crash point, and see them dead; but not those that say ``unless``."""
        ends = ("struck", unless)
        self._hear(lambda: all(v.is_gone or any(map(v.texts, ends)) for v in victims), f"{tripwire}", of=victims)
        struck = [victim for victim in victims if victim.texts("struck")]
        for victim in struck:
            victim.kill()
            self.kills[tripwire.label] += 1
        self._bury(struck)
        if not struck:
            raise Breach("somebody comes to the crash point", tripwire)

    def kill(self, victims: Sequence[Child], label: str) -> int:
        """Kill them now, whatever they do; how many did not end before, as a command may."""
        for child in victims:
            child.kill()
        self._bury(victims)
        killed = sum(not child.texts("exit") for child in victims)
        self.kills[label] += killed
        return killed

    def kill_some(self) -> int:
        """One of those who are alive, or all of them; how many."""
        alive = self.alive
        if alive and self.chance.random() < 0.7:
            return self.kill([self.chance.choice(alive)], ONE_OF_MANY if len(alive) > 1 else RANDOM)
        return self.kill(alive, RANDOM)

    def kill_a_shell_s_flush(self) -> None:
        """``orchclient flush`` in an interpreter of its own, killed when its events have reached the orchestrator."""
        settings = {"ORCHCLIENT_DB": str(self.path), "ORCHCLIENT_URL": self.receiver.url}
        arrived = self._posts(self.receiver)
        with subprocess.Popen(
            [sys.executable, "-m", "orchclient", "flush"],
            cwd=REPOSITORY,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
        ) as command:
            reached = self.receiver.wait_for(lambda receiver: self._posts(receiver) > arrived, TOO_LONG_S)
            command.kill()
        if not reached:
            raise Breach("nothing hangs", "orchclient flush sent nothing")
        self.kills["flush from a shell"] += 1

    @staticmethod
    def _posts(receiver: Receiver) -> int:
        return sum(request.method == "POST" for request in receiver.requests)

    def _bury(self, dead: Sequence[Child]) -> None:
        assert hear(dead, lambda: all(child.is_gone for child in dead)), "a killed process does not end"
        for child in dead:
            self._hear_acknowledgements(child)
            self._children.remove(child)

    # --- judgement --------------------------------------------------------------------------------------------------

    def judge_now(self) -> None:
        """A fresh process looks into the file, beside those that are alive."""
        before = self._promises()
        (found,) = self._inspect(self.path, deliver=False)
        self.judge.hold(found, before, self._orchestrator.books())

    def judge_and_deliver(self) -> None:
        """A fresh process looks, delivers what is left to an orchestrator that is well again, and looks again."""
        before = self._promises()
        self.receiver.heal()
        found, rest = self._inspect(self.path, deliver=True)
        books = self._orchestrator.books()
        self.judge.hold(found, before, books)
        self.judge.hold_at_rest(rest, books)

    def _promises(self) -> Books:
        """Hear what was acknowledged up to now; what the orchestrator has got before the look."""
        hear(self.alive, lambda: False, 0.0)
        for child in self.alive:
            self._hear_acknowledgements(child)
        self._nobody_complains()
        return self._orchestrator.books()

    def _hear_acknowledgements(self, child: Child) -> None:
        for text in child.texts("ack"):
            id_, seq, _ = text.split(" ")
            self.judge.promised[id_] = int(seq)

    def _inspect(self, path: Path, *, deliver: bool) -> list[Findings]:
        url = self.receiver.url if deliver else None
        inspector = self._zygote.fork(inspect, str(path), url, deliver=deliver)
        heard = hear([inspector], lambda: inspector.is_gone, 2 * TOO_LONG_S)
        found = [findings_in(text) for text in inspector.texts("found")]
        if not heard or len(found) != 1 + deliver:
            complaints = [line.text for line in inspector.said if line.kind != "found"]
            raise Breach("the file can be opened again", *complaints, inspector.stacks() if not heard else "")
        return found

    def _nobody_complains(self, victims: Sequence[Child] = ()) -> None:
        for child in self._children:
            logged = [text for text in child.texts("log") if text.startswith("ERROR") and not self._may_be_said(text)]
            failed = [f"exit {code}" for code in child.texts("exit") if code not in ENDS_WELL]
            if errors := child.texts("error") + logged + failed:
                raise Breach(COMPLAINT, *errors)
        dead = [child for child in self._children if child.is_gone and child not in victims]
        if any(not child.texts("exit") for child in dead):
            raise Breach("nobody ends by itself", *(child.said[-3:] for child in dead))

    # --- trouble ----------------------------------------------------------------------------------------------------

    def take_files_away(self, *endings: str, to: Path | None) -> None:
        """Somebody moves or removes files of the outbox while everybody holds still."""
        self.judge.is_moved = True
        self._signal(signal.SIGSTOP)
        for ending in endings:
            file = Path(f"{self.path}{ending}")
            if to is None:
                file.unlink()
            else:
                to.mkdir(mode=0o700, exist_ok=True)
                file.rename(to / file.name)
        self._signal(signal.SIGCONT)

    def move_wal(self) -> None:
        """What was recorded is in the database file, alone. Only while nobody runs."""
        with closing(sqlite3.connect(self.path)) as con:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def damage_file(self) -> None:
        """A page of the database is overwritten that holds no event, and is in no -wal. Only while nobody runs."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro&immutable=1", uri=True)) as con:
            (root,) = con.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'").fetchone()
        with self.path.open("r+b") as file:
            file.seek((root - 1) * PAGE)
            file.write(self.chance.randbytes(PAGE))
        self.judge.is_moved = self._is_damaged = True

    def _signal(self, number: int) -> None:
        for child in self.alive:
            os.kill(child.pid, number)

    def _may_be_said(self, text: str) -> bool:
        if FILE_DAMAGED in text:
            return self._is_damaged
        return FILES_LOST in text or (EVENTS_ELSEWHERE in text and bool(self.judge.elsewhere))

    def look_elsewhere(self, path: Path) -> None:
        """What is in files that somebody moved is not lost."""
        (found,) = self._inspect(path, deliver=False)
        self.judge.elsewhere.update(id_ for _, id_, _ in found.events)

    def trouble(self) -> None:
        """New faults for the next requests."""
        self.receiver.heal()
        self.receiver.plan(*faults(self.chance))
