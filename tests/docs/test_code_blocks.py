"""No block of code of a page is left alone: Python is run, TOML is read, and commands have the flags they are given."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import signal
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, settings

from orchclient import OrchestratorClient, aio
from orchclient.cli.app import cli
from orchclient.testing import Receiver
from tests.docs.console import DOCS

PAGES = {
    str(page.relative_to(DOCS.parent)): page.read_text()
    for page in sorted([DOCS.parent / "README.md", *DOCS.rglob("*.md")])
}
FENCED = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.M | re.S)


def blocks(page: str, *languages: str) -> list[str]:
    return [code for _, language, code in FENCED.findall(PAGES[page]) if language in languages]


# --- Python -------------------------------------------------------------------------------------------------------

Names = dict[str, Any]


def people(around: ExitStack) -> Names:
    """A client whose orchestrator has people that answer at once."""
    receiver = around.enter_context(Receiver())
    receiver.answer_each("SQLite")
    receiver.review_each("approved")
    client = around.enter_context(OrchestratorClient("agent-1", url=receiver.url))
    return {"client": client, "pr_url": None, "results": {"tests_passed": 3}}


def own_table(around: ExitStack) -> Names:
    """An asynchronous client, and a table of the agent's own."""
    with OrchestratorClient("agent-1") as client, client.transaction() as own:
        own.execute("CREATE TABLE my_steps (task, step)")
    return {"client": aio.OrchestratorClient("agent-1", background=False)}


BEFORE = {"docs/human-loop.md": people, "docs/asyncio.md": own_table}


@pytest.fixture
def newcomers_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty directory and outbox; signals are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHCLIENT_DB", str(tmp_path / "private" / "outbox.db"))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def run(code: str, names: Names) -> None:
    """Run a block; one that awaits, in an event loop."""
    compiled = compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(compiled, names))
    else:
        exec(compiled, names)


@pytest.fixture
def patient_hypothesis() -> Iterator[None]:
    """At the first draw Hypothesis reads the modules of a checkout, which are those of ours here: seconds, at times."""
    settings.register_profile("pages", suppress_health_check=[HealthCheck.too_slow], deadline=None)
    settings.load_profile("pages")
    yield
    settings.load_profile("default")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
@pytest.mark.usefixtures("newcomers_home", "patient_hypothesis")
def test_every_python_block_of_a_page_runs_in_their_order(page: str) -> None:
    with ExitStack() as around:
        names = BEFORE[page](around) if page in BEFORE else {}
        names["__name__"] = "__main__"
        for code in blocks(page, "python"):
            run(code, names)
        for value in names.values():
            if isinstance(value, OrchestratorClient | aio.OrchestratorClient):
                close(value)


def close(client: OrchestratorClient | aio.OrchestratorClient) -> None:
    """A page need not end what its program ends; tests that count threads may come next."""
    if isinstance(client, OrchestratorClient):
        client.close(0)
    else:
        asyncio.run(client.close(0))


def test_a_block_that_fails_is_found() -> None:
    with pytest.raises(NameError):
        run("await nothing()", {})


# --- TOML ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_every_toml_block_can_be_read(page: str) -> None:
    for code in blocks(page, "toml"):
        assert tomllib.loads(code)


# --- Commands -----------------------------------------------------------------------------------------------------

TYPED = re.compile(r"\borchclient((?: +(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s|;&`()>\\<\"']+))+)")


def commands(page: str) -> Iterator[list[str]]:
    """What is typed behind ``orchclient`` in blocks and in the middle of sentences."""
    inline = re.findall(r"`(orchclient [^`\n]+)`", re.sub(FENCED, "", PAGES[page]))
    for text in (*blocks(page, "sh", "console", "bash"), *inline):
        typed = [line.removeprefix("$ ") for line in text.replace("\\\n", " ").splitlines() if _is_typed(text, line)]
        for found in TYPED.findall("\n".join(typed)):
            yield found.split()


def _is_typed(text: str, line: str) -> bool:
    return line.startswith("$ ") or not re.search(r"^\$ ", text, re.M)


def complaint(words: list[str]) -> str | None:
    """What the command line would say of them, by name and flag; None for nothing."""
    command: click.Command = cli
    for word in words if words[0] not in ("help", "version") else words[1:]:  # understood, and no commands
        if word.startswith("--"):
            if word.partition("=")[0] not in _flags(command):
                return f"{command.name} has no {word}"
        elif isinstance(command, click.Group) and (found := command.get_command(click.Context(command), word)):
            command = found
        elif command is cli and re.fullmatch("[a-z]+", word):
            return f"no command {word}"
    return None


def _flags(command: click.Command) -> set[str]:
    options = [each for each in (*command.params, *cli.params) if isinstance(each, click.Option)]
    return {name for each in options for name in (*each.opts, *each.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("page", [page for page in PAGES if list(commands(page))])
def test_every_command_of_a_page_exists_with_its_flags(page: str) -> None:
    assert [found for words in commands(page) if (found := complaint(words))] == []


def test_a_command_that_does_not_exist_is_found() -> None:
    assert complaint(["flusch"]) == "no command flusch"
    assert complaint(["flush", "--now"]) == "flush has no --now"
    assert complaint(["serve", "token", "add", "ada", "--kind", "person"]) is None
