"""SIGKILL at any moment costs nothing that was acknowledged: promises P1, P3, P5 and P7, on the real client.

Processes record and deliver, and die: at labelled crash points, and at random moments. After each death a fresh process
opens the file, and the judge holds it against what was acknowledged and what the orchestrator got.

A failure prints its seed: ``KILL9_SEED=... python -m pytest tests/faults/test_kill9.py`` makes the same choices again
(the machine's own timing is not in them). ``KILL9_KILLS`` sets the number of kills of the release rung.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from orchclient.testing.receiver import Fault

from .crash_judge import LOST, NOT_ARRIVED, Breach
from .crash_points import BIRTHS, DAMAGES, FLUSHES, POINTS, RESCUES, Point, Tripwire
from .crash_roles import PRELOAD, TASKS
from .crash_world import COMPLAINT, RANDOM, World
from .crash_zygote import Zygote, hear

SEED = os.environ.get("KILL9_SEED") or str(random.randrange(1 << 32))
MEMORY = Path("/dev/shm")

KILLS_AT_A_POINT = 5
KILLS_AT_RANDOM = 60
KILLS_OF_A_WORLD = 30
KILLS_OF_A_RELEASE = int(os.environ.get("KILL9_KILLS", "10000"))

MakeWorld = Callable[[], World]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    """The process that all others are forked from."""
    made = Zygote(*PRELOAD)
    yield made
    made.close()


@pytest.fixture(scope="module")
def kills() -> Iterator[Counter[str]]:
    """How many processes were killed, by moment; told at the end to those who look (``-s``)."""
    counted: Counter[str] = Counter()
    yield counted
    lines = [f"{number:6} {label}" for label, number in sorted(counted.items())]
    print("", f"KILL9_SEED={SEED}: {counted.total()} kills", *lines, sep="\n", file=sys.stderr)


@pytest.fixture
def make_world(zygote: Zygote, kills: Counter[str], request: pytest.FixtureRequest) -> Iterator[MakeWorld]:
    """Makes worlds, with files in memory where that is possible: a SIGKILL spares what the kernel has."""
    print(f"KILL9_SEED={SEED}")
    chance = random.Random(f"{SEED} {request.node.name}")
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="kill9-") as name, ExitStack() as all_worlds:
        numbers = count()

        def make() -> World:
            if request.node.get_closest_marker("release"):
                all_worlds.close()  # one after the other: thousands at once are too many descriptors
            world = World(zygote, Path(name, f"world-{next(numbers)}"), random.Random(chance.random()), kills)
            return all_worlds.enter_context(world)

        yield make


def _tripwire(world: World, label: str, point: Point) -> Tripwire:
    chance = world.chance
    return Tripwire(label, chance.randint(1, point.often), from_outside=chance.random() < 0.25)


# --- crash points -----------------------------------------------------------------------------------------------------


def _kill_agents_at(label: str, world: World, kills: int) -> None:
    """One agent after the other on the same file, each beside another that only records now and then."""
    for _ in range(kills):
        world.trouble()
        tripwire = _tripwire(world, label, POINTS[label])
        durability, threads = world.chance.choice(("auto", "full")), world.chance.choice((1, 1, 3))
        if world.chance.random() < 0.3:
            world.hire(url=None, background=False, sayings=60)
        world.wait_for_strike(tripwire, world.hire(tripwire=tripwire, durability=durability, threads=threads))
        if world.alive:
            world.judge_now()
            world.kill(world.alive, "an agent that only records")
        world.judge_and_deliver()


@pytest.mark.parametrize("label", POINTS)
def test_an_agent_killed_at_a_crash_point_loses_nothing(label: str, make_world: MakeWorld) -> None:
    _kill_agents_at(label, make_world(), KILLS_AT_A_POINT)


def _kill_while_the_file_is_made(label: str, world: World) -> None:
    """One or two agents open a file that does not exist; they die before it has its tables or its identity."""
    tripwire = _tripwire(world, label, BIRTHS[label])
    victims = [world.hire(tripwire=tripwire) for _ in range(world.chance.randint(1, 2))]
    world.wait_for_strike(tripwire, *victims, unless="born")
    world.acknowledged(world.hire(), 10)
    world.judge_now()
    world.kill(world.alive, "an heir")
    world.judge_and_deliver()


@pytest.mark.parametrize("label", BIRTHS)
def test_agents_killed_while_they_make_the_file_leave_one_that_the_next_can_use(
    label: str, make_world: MakeWorld
) -> None:
    for _ in range(KILLS_AT_A_POINT):
        _kill_while_the_file_is_made(label, make_world())


ENDINGS = ("", "-wal", "-shm")
LOSSES = (ENDINGS, ("",), ("-wal",), ("-wal", "-shm"))


def _kill_one_of_two_rescuers(label: str, world: World) -> None:
    """Files are removed under two agents; one dies while it saves what was in them, the other has it all the same."""
    tripwire = _tripwire(world, label, RESCUES[label])
    urls = [world.chance.choice((None, world.receiver.url)) for _ in range(2)]
    victim = world.hire(tripwire=tripwire, url=urls[0], sayings=10_000, pace_s=0.001)
    other = world.hire(url=urls[1], sayings=10_000, pace_s=0.001)
    for agent in (victim, other):
        world.acknowledged(agent, 10)
    world.take_files_away(*world.chance.choice(LOSSES), to=None)
    world.wait_for_strike(tripwire, victim)
    world.acknowledged(other, len(other.texts("ack")) + 10)
    world.judge_now()
    world.kill(world.alive, "an heir")
    world.judge_and_deliver()


@pytest.mark.parametrize("label", RESCUES)
def test_files_removed_under_two_agents_are_saved_by_one_when_the_other_is_killed(
    label: str, make_world: MakeWorld
) -> None:
    for _ in range(KILLS_AT_A_POINT):
        _kill_one_of_two_rescuers(label, make_world())


def _kill_the_only_rescuer(label: str, world: World) -> None:
    """The set of files is moved from under an agent, which dies while it saves: all is in one set or the other."""
    tripwire, taken = _tripwire(world, label, RESCUES[label]), world.directory / "taken"
    victim = world.hire(tripwire=tripwire, url=None, sayings=10_000, pace_s=0.001)
    world.acknowledged(victim, 10)
    world.take_files_away(*ENDINGS, to=taken)
    world.wait_for_strike(tripwire, victim)
    world.look_elsewhere(taken / world.path.name)
    world.acknowledged(world.hire(), 10)
    world.judge_now()
    world.kill(world.alive, "an heir")
    world.judge_and_deliver()


@pytest.mark.parametrize("label", RESCUES)
def test_files_moved_from_under_an_agent_that_is_killed_then_are_whole_where_they_are(
    label: str, make_world: MakeWorld
) -> None:
    for _ in range(KILLS_AT_A_POINT):
        _kill_the_only_rescuer(label, make_world())


def _kill_who_mends_damage(label: str, world: World, build: str = "as shipped") -> None:
    """The file was damaged while nobody had it open; who comes next sets it aside, and dies of that."""
    for moves_wal in (True, False):
        agent = world.hire(url=None, background=False, sayings=30)
        world.acknowledged(agent, 20)
        world.kill([agent], "an agent that only records")
        if moves_wal:
            world.move_wal()
    world.damage_file()
    tripwire = _tripwire(world, label, DAMAGES[label])
    world.wait_for_strike(tripwire, world.hire(tripwire=tripwire, build=build))
    world.acknowledged(world.hire(url=world.chance.choice((None, world.receiver.url))), 10)
    world.judge_now()
    world.kill(world.alive, "an heir")
    world.judge_and_deliver()


@pytest.mark.parametrize("label", DAMAGES)
def test_an_agent_killed_while_it_sets_a_damaged_file_aside_loses_nothing(label: str, make_world: MakeWorld) -> None:
    for _ in range(KILLS_AT_A_POINT):
        _kill_who_mends_damage(label, make_world())


def _kill_a_flush_at(label: str, world: World) -> None:
    """``orchclient flush`` dies beside an agent that only records, and another flush ends what it began."""
    world.trouble()
    recorder = world.hire(url=None, background=False, sayings=40)
    world.acknowledged(recorder, 30)
    tripwire = _tripwire(world, label, FLUSHES[label])
    world.wait_for_strike(tripwire, world.flush_by_hand(tripwire))
    world.judge_now()
    world.kill([recorder], "an agent that only records")
    world.judge_and_deliver()


@pytest.mark.parametrize("label", FLUSHES)
def test_the_flush_command_killed_at_a_crash_point_loses_nothing(label: str, make_world: MakeWorld) -> None:
    world = make_world()
    for _ in range(KILLS_AT_A_POINT):
        _kill_a_flush_at(label, world)


# --- a command of its own interpreter ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(0.02), Fault.ok()], ids=lambda fault: fault.name)
def test_a_flush_from_a_shell_killed_while_it_is_answered_loses_nothing(fault: Fault, make_world: MakeWorld) -> None:
    world = make_world()
    recorder = world.hire(url=None, background=False, sayings=60)
    world.acknowledged(recorder, 50)
    for _ in range(2):
        world.receiver.plan(fault)
        world.kill_a_shell_s_flush()
        world.judge_now()
        world.receiver.heal()
    world.kill([recorder], "an agent that only records")
    world.judge_and_deliver()


# --- random moments ---------------------------------------------------------------------------------------------------


def _hire_somebody(world: World) -> None:
    """An agent of any kind, or now and then somebody who flushes by hand."""
    chance = world.chance
    if chance.random() < 0.1:
        world.flush_by_hand()
        return
    world.hire(
        threads=chance.choice((1, 1, 2, 4)),
        durability=chance.choice(("auto", "full")),
        background=chance.random() < 0.8,
        sayings=chance.choice((20, 60, 150)),
        small=chance.random() < 0.7,
    )


def _kill_at_random(world: World, kills: int) -> None:
    """One to four processes share the file; one of them or all are killed, and others take their places."""
    done = 0
    staff = world.chance.randint(1, 4)
    while done < kills:
        world.trouble()
        while len(world.alive) < staff:
            _hire_somebody(world)
        hear(world.alive, lambda: False, world.chance.random() ** 2 * 0.15)
        done += world.kill_some()
        world.judge_now()
    world.kill(world.alive, RANDOM)
    world.judge_and_deliver()


@pytest.mark.parametrize("world_number", range(KILLS_AT_RANDOM // KILLS_OF_A_WORLD))
def test_agents_killed_at_random_moments_lose_nothing(world_number: int, make_world: MakeWorld) -> None:
    _kill_at_random(make_world(), KILLS_OF_A_WORLD)


# --- negative controls ------------------------------------------------------------------------------------------------


CONTROL_KILLS = 200


def _broken_promise(world: World, kill_one: Callable[[World], None]) -> str:
    """The first promise that the judge finds broken after one of the kills."""
    try:
        for _ in range(CONTROL_KILLS):
            kill_one(world)
            world.judge_now()
    except Breach as breach:
        return breach.law
    return "none"


def _kill_at_random_one_of(build: str) -> Callable[[World], None]:
    def kill_one(world: World) -> None:
        agent = world.hire(build=build)
        world.acknowledged(agent, 1)
        # On a busy machine what it does takes ten times as long.
        hear([agent], lambda: False, world.chance.random() * world.chance.choice((0.03, 0.3)))
        world.kill([agent], f"{RANDOM}, a control")

    return kill_one


def _kill_while_it_settles_one_of(build: str) -> Callable[[World], None]:
    def kill_one(world: World) -> None:
        tripwire = Tripwire("delivery: in the settling transaction", world.chance.randint(1, 3))
        world.wait_for_strike(tripwire, world.hire(build=build, tripwire=tripwire))

    return kill_one


def test_the_judge_finds_a_build_that_acknowledges_before_the_commit(make_world: MakeWorld) -> None:
    assert _broken_promise(make_world(), _kill_at_random_one_of("acknowledges before the commit")) == LOST


def test_the_judge_finds_a_build_that_settles_before_the_answer(make_world: MakeWorld) -> None:
    assert _broken_promise(make_world(), _kill_at_random_one_of("settles before the answer")) in (NOT_ARRIVED, LOST)


def test_the_judge_finds_a_build_that_settles_in_two_transactions(make_world: MakeWorld) -> None:
    world = make_world()
    world.receiver.always(Fault.retry(TASKS[0]))
    assert _broken_promise(world, _kill_while_it_settles_one_of("settles in two transactions")) in (NOT_ARRIVED, LOST)


def test_the_judge_finds_a_build_that_notes_nothing_of_what_it_sets_aside(make_world: MakeWorld) -> None:
    def kill_one(world: World) -> None:
        _kill_who_mends_damage("salvage of damage: set aside", world, "notes nothing of what it sets aside")

    assert _broken_promise(make_world(), kill_one) in (LOST, COMPLAINT)  # the mark beside the file misses them too


# --- before a release -------------------------------------------------------------------------------------------------


@pytest.fixture
def _asked_for(request: pytest.FixtureRequest) -> None:
    """The long rungs run when they are asked for by name: ``-m release``."""
    if "release" not in request.config.option.markexpr:
        pytest.skip("runs with -m release")


@pytest.mark.release
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("_asked_for")
def test_thousands_of_kills_lose_nothing(make_world: MakeWorld, kills: Counter[str]) -> None:
    before = kills.total()
    while kills.total() - before < KILLS_OF_A_RELEASE:
        for label in POINTS:
            _kill_agents_at(label, make_world(), KILLS_AT_A_POINT)
            _kill_at_random(make_world(), KILLS_OF_A_WORLD)
        for label in BIRTHS:
            _kill_while_the_file_is_made(label, make_world())
        for label in RESCUES:
            _kill_one_of_two_rescuers(label, make_world())
            _kill_the_only_rescuer(label, make_world())
        for label in DAMAGES:
            _kill_who_mends_damage(label, make_world())
        for label in FLUSHES:
            _kill_a_flush_at(label, make_world())
