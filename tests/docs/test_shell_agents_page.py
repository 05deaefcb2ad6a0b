"""The page about shell agents is run: its commands in a shell, its scripts by bash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchclient.testing.receiver import Receiver
from tests.cli.inside import Inside
from tests.docs.console import DOCS, blocks, differences

PAGE = "shell-agents.md"


@pytest.fixture
def environment(outbox_path: Path, receiver: Receiver) -> dict[str, str]:
    return {"ORCHCLIENT_DB": str(outbox_path), "ORCHCLIENT_URL": receiver.url}


@pytest.mark.parametrize("number", range(len(blocks(PAGE))))
def test_a_block_prints_what_the_page_says(number: int, environment: dict[str, str]) -> None:
    assert differences(blocks(PAGE)[number], environment) == []


def test_a_block_that_is_wrong_is_found(environment: dict[str, str]) -> None:
    assert differences("$ orchclient update t; echo $?\n01…\n3\n", environment)


def scripts() -> dict[str, str]:
    """The bash blocks by a word in them."""
    found = blocks(PAGE, "bash")
    return {word: next(text for text in found if word in text) for word in ("case", "trap", "cancel_requested")}


def bash(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    shell = f'orchclient() {{ {sys.executable} -m orchclient "$@"; }}\n{script}'
    env = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_scripts_of_the_page_are_all_run() -> None:
    assert len(scripts()) == len(blocks(PAGE, "bash"))


def test_a_script_goes_on_with_a_persons_answer(environment: dict[str, str], receiver: Receiver) -> None:
    receiver.answer_each("80")
    assert bash(scripts()["case"], environment).stdout == "using port 80\n"


def test_a_trap_calls_for_help(environment: dict[str, str], receiver: Receiver) -> None:
    bash(scripts()["trap"] + "\nls /nowhere/at-all\n", environment)
    (event,) = receiver.events
    assert (event["data"]["error_type"], "ls /nowhere" in event["data"]["error_message"]) == ("script_failed", True)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_a_script_stops_when_it_is_asked_to(environment: dict[str, str], receiver: Receiver, outbox_path: Path) -> None:
    command = Inside(outbox_path, receiver.url)
    command("ask", "build-42", "So that it polls?", "--flush=10s")
    receiver.cancel("build-42", "no budget")
    while command.json("update", "build-42", "--flush=1s")["cancel_requested"] is None:
        pass
    ended = bash(scripts()["cancel_requested"], environment)
    assert ended.returncode == 0
    assert receiver.events[-1]["data"]["status"] == "cancelled", ended.stderr


def test_every_command_that_the_page_names_exists() -> None:
    from orchclient.cli.app import _COMMANDS

    assert set(re.findall(r"`?orchclient ([a-z]+)", (DOCS / PAGE).read_text())) <= set(_COMMANDS)
