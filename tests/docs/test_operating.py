"""The operator's page is run: every command in a shell, on an outbox in the state that its scene names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field

from orchclient import OrchestratorClient
from orchclient.cli.app import _COMMANDS
from orchclient.testing import Receiver
from tests.docs.console import Step, steps, typed

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
BLOCK = re.compile(r"^<!-- scene: (\w+) -->\n```console\n(.*?)^```", re.M | re.S)


@define
class World:
    """An outbox and an orchestrator that asks for a token."""

    path: Path
    receiver: Receiver
    token: str = "right"
    clients: list[OrchestratorClient] = field(factory=list)

    def client(self, **settings: object) -> OrchestratorClient:
        made = OrchestratorClient("backend-7", outbox=self.path, url=self.receiver.url, token="right", **settings)
        self.clients.append(made)
        return made

    def run(self, command: str) -> list[str]:
        """What a person sees who types it."""
        env = {"ORCHCLIENT_DB": str(self.path), "ORCHCLIENT_URL": self.receiver.url, "ORCHCLIENT_TOKEN": self.token}
        return typed(command, env)


def well(world: World) -> None:
    client = world.client(background=False)
    tell(client)
    assert client.flush(10)


def tell(client: OrchestratorClient) -> None:
    for percent in (10, 20, 30):
        client.update_task_status("task-123", "testing", progress_percentage=percent)


def nobody(world: World) -> None:
    client = world.client(background=False)
    client.update_task_status("task-122", "completed")
    assert client.flush(10)
    tell(client)


def live(world: World) -> None:
    client = world.client()
    tell(client)
    assert client.flush(10)


def outage(world: World) -> None:
    tell(world.client(background=False))
    world.receiver.stop()


def refused(world: World) -> None:
    tell(world.client(background=False))
    world.token = "old"


def dead(world: World) -> None:
    well(world)
    world.receiver.reject(
        lambda event: event["data"].get("status") == "failed", code="unknown_task", detail="no such task"
    )
    world.clients[0].update_task_status("task-124", "failed")
    world.clients[0].flush(10)
    world.clients[0].update_task_status("task-125", "testing")
    world.clients[0].flush(10)


def mended(world: World) -> None:
    dead(world)
    world.receiver.lift_rules()


def lost(world: World) -> None:
    well(world)
    for percent in (40, 50, 60):
        world.clients[0].update_task_status("task-124", "testing", progress_percentage=percent)
    assert world.clients[0].flush(10)
    world.receiver.forget(lambda event: int(event["sequence"]) > 2)


SCENES: dict[str, Callable[[World], None]] = {
    scene.__name__: scene for scene in (well, nobody, live, outage, refused, dead, mended, lost)
}
EXAMPLES = BLOCK.findall(PAGE)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Receiver(token="right") as receiver:
        made = World(tmp_path / "outbox.db", receiver)
        yield made
        for client in made.clients:
            client.close(0)


@pytest.mark.parametrize(("scene", "block"), EXAMPLES, ids=[f"{n}-{scene}" for n, (scene, _) in enumerate(EXAMPLES)])
def test_an_example_prints_what_the_page_says(world: World, scene: str, block: str) -> None:
    SCENES[scene](world)
    for step in steps(block):
        if step.command.startswith("export ORCHCLIENT_TOKEN="):
            world.token = step.command.partition("=")[2]
            continue
        printed = world.run(step.command)
        assert step.is_like(printed), f"$ {step.command}\n" + "\n".join(printed)


def test_every_console_block_of_the_page_is_run_and_every_scene_is_used() -> None:
    assert PAGE.count("```console") == len(EXAMPLES)
    assert {scene for scene, _ in EXAMPLES} == set(SCENES)


def test_an_example_that_is_wrong_is_found() -> None:
    step = Step("orchclient flush", ("orchestrator  3 delivered in … s",))
    assert step.is_like(["orchestrator  3 delivered in 0.1 s"])
    assert not step.is_like(["orchestrator  2 delivered in 0.1 s"])
    assert not step.is_like(["orchestrator  3 delivered in 0.1 s", "more"])
    assert not step.is_like([])


def test_every_command_that_the_page_names_exists() -> None:
    assert set(re.findall(r"`?orchclient ([a-z]+)", PAGE)) <= set(_COMMANDS)


def test_every_link_within_the_page_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^## (.*)", PAGE, re.M)
    }
    assert set(re.findall(r"\(#([^)]+)\)", PAGE)) <= headings
