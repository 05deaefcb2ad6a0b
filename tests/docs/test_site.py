"""The site leaves nothing out: every page is in its structure, every public name and every command is told."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click
import pytest

import orchclient
import orchclient.aio
import orchclient.testing
from orchclient.cli.app import cli
from orchclient.cli.output import ExitCode
from orchclient.sinks import sink
from tests.docs.console import DOCS

REFERENCE = DOCS / "reference"
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: (\S+)", re.M)


def documented() -> set[str]:
    """Every name that the reference has an entry for."""
    return {name for page in REFERENCE.glob("*.md") for name in DIRECTIVE.findall(page.read_text())}


def public_names() -> Iterator[str]:
    for module in (orchclient, orchclient.aio, orchclient.testing):
        yield from (f"{module.__name__}.{name}" for name in module.__all__)
    for name, value in vars(sink).items():
        if inspect.isclass(value) and value.__module__ == sink.__name__:
            yield f"{sink.__name__}.{name}"


def commands(group: click.Group = cli, above: str = "orchclient") -> Iterator[tuple[str, click.Command]]:
    """Every command with its name as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{above} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")


def test_every_page_is_in_the_structure_of_the_site() -> None:
    listed = set(re.findall(r"^(?:[\w ]+ <)?([\w/-]+)>?$", (DOCS / "index.md").read_text(), re.M))
    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")}
    decisions = {page for page in pages if page.startswith("decisions/0")}  # by a pattern, in their own index
    assert pages - decisions - listed - {"index"} == set()


@pytest.mark.parametrize("name", list(public_names()))
def test_every_public_name_has_an_entry_in_the_reference(name: str) -> None:
    assert name in documented()


def test_a_name_without_an_entry_would_be_found() -> None:
    assert "orchclient.Nothing" not in documented()


def test_the_reference_of_commands_is_generated_from_all_of_them() -> None:
    assert (
        ".. click:: orchclient.cli.app:cli\n   :prog: orchclient\n   :nested: full"
        in (REFERENCE / "command-line.md").read_text()
    )


def test_the_reference_has_every_exit_code_by_its_name() -> None:
    told = re.findall(r"^\| (\d+) \| `(\w+)` \|", (REFERENCE / "command-line.md").read_text(), re.M)
    assert told == [(str(code.value), code.name) for code in ExitCode]


@pytest.mark.parametrize(
    ("typed", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_is_told_on_a_page_and_has_help_with_an_example(typed: str, command: click.Command) -> None:
    pages = "\n".join(page.read_text() for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"))
    assert re.search(rf"{typed}\b", pages)
    assert re.search(rf"Examples?:.*orchclient\b.*\b{typed.split()[-1]}\b", command.help or "", re.S)
    nameless = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert nameless == []


# --- Docstrings ---------------------------------------------------------------------------------------------------

RECORDING = {
    orchclient.OrchestratorClient: (
        *("update_task_status", "start_task", "request_clarification", "report_completion"),
        *("escalate_error", "escalate_exception", "resolve_error"),
    ),
    orchclient.Task: ("update", "progress", "ask", "complete", "escalate", "resolve_error"),
    orchclient.Clarification: ("withdraw",),
    orchclient.Escalation: ("resolve",),
}


def public_callables() -> Iterator[tuple[str, object]]:
    """Every function, class, method and property that a public name has."""
    for module in (orchclient, orchclient.aio, orchclient.testing):
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                yield f"{module.__name__}.{name}", value
            for member, inner in vars(value).items() if inspect.isclass(value) else ():
                if not member.startswith("_") and (callable(inner) or isinstance(inner, property | classmethod)):
                    yield f"{module.__name__}.{name}.{member}", inner


def test_every_public_callable_says_what_it_is() -> None:
    assert [name for name, value in public_callables() if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("method", [getattr(kind, name) for kind, names in RECORDING.items() for name in names])
def test_what_records_says_what_is_durable_afterwards(method: object) -> None:
    assert re.search(r"\bdurab(le|ility)\b", inspect.getdoc(method) or "", re.I)


@pytest.mark.parametrize("name", list(RECORDING[orchclient.OrchestratorClient]))
def test_the_client_s_verbs_say_what_they_raise_and_explain_every_argument(name: str) -> None:
    verb = getattr(orchclient.OrchestratorClient, name)
    text = inspect.getdoc(verb) or ""
    assert re.search(r"Raises\s+``\w+``|raises as ``\w+``", text)
    own = set(re.findall(r"^:param (\w+):", text, re.M))
    others = {"self", "task_id"} | ({"error", "context", "fatal", "dedup_key"} if "escalate_error``" in text else set())
    assert set(inspect.signature(verb).parameters) - own - others == set()
