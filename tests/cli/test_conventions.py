"""What every command keeps to: help with an example, one document, colour where it belongs, tables that fit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from orchclient.cli import status
from orchclient.cli.app import _COMMANDS, cli
from orchclient.cli.colour import STYLES, wanted
from orchclient.cli.output import columns, cut, table
from orchclient.testing.receiver import Fault, Receiver
from tests.cli.inside import Inside, inside
from tests.conftest import MakeClient


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Every command and every command of a group, by what is typed."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for sub in command.list_commands(context):
                found = command.get_command(context, sub)
                assert found is not None
                yield from walk(f"{name} {sub}", found)

    for name in _COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        yield from walk(name, found)


ALL = dict(every_command())
WITHOUT_JSON = {"serve", "serve token", "mcp"}
"""Those that run until they are stopped, and a group that does nothing itself."""


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_help_with_an_example_that_begins_as_it_is_typed(name: str) -> None:
    text = ALL[name].help or ""
    assert re.search(r"Examples?: ", text), f"orchclient {name} has no example"
    assert re.search(rf"orchclient (--db \S+ )?{name}", text)
    for parameter in ALL[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or parameter.metavar or isinstance(parameter.type, click.Choice | click.IntRange)


@pytest.mark.parametrize("name", ALL)
def test_a_command_gives_a_document(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert ("--json" in options) != (name in WITHOUT_JSON)


def test_examples_of_the_help_have_options_that_exist() -> None:
    for name, command in ALL.items():
        for line in re.findall(r"orchclient .*", command.help or ""):
            typed = line.split(" | ")[0].split("#")[0]
            words = re.sub(r"^orchclient( --db \S+)?", "", typed).split()
            named = max((n for n in ALL if words[: len(n.split())] == n.split()), key=len, default=name)
            known = {option for each in ALL[named].params for option in (*each.opts, *each.secondary_opts)}
            used = {word.rstrip(")").split("=")[0] for word in words if word.startswith("--")}
            assert used <= known | {"--help"}, line


# --- colour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "environ", "is_wanted"),
    [
        ("auto", {}, None),
        ("auto", {"NO_COLOR": "1"}, False),
        ("auto", {"NO_COLOR": ""}, None),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("auto", {"TERM": "dumb"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_who_decides_about_colour(choice: str, environ: dict[str, str], is_wanted: bool | None) -> None:
    assert wanted(choice, environ) is is_wanted


def test_there_is_colour_when_it_is_asked_for_and_else_on_a_terminal_only(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("doctor")
    assert "\x1b" not in command("doctor").out
    coloured = command("--color", "always", "doctor").out
    assert "\x1b[32mok" in coloured
    assert click.unstyle(coloured) == command("doctor", FORCE_COLOR="1", NO_COLOR="1").out
    assert "\x1b" in command("doctor", FORCE_COLOR="1").out
    assert "\x1b" not in command("--color", "always", "doctor", "--json").out


def test_a_coloured_table_stands_as_the_plain_one_does() -> None:
    rows = [("a", word, "x") for word in STYLES]
    coloured = table(("NAME", "STATE", "LAST"), rows, states=(1,))
    assert "\x1b" in coloured
    assert click.unstyle(coloured) == table(("NAME", "STATE", "LAST"), rows)


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wide"), [("abc", 3), ("任务", 4), ("é", 1), ("e\u0301", 1), ("🚀", 2), ("a\u200bb", 2)]
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text: str, wide: int) -> None:
    assert columns(text) == wide


@pytest.mark.parametrize(("most", "kept"), [(6, "任务12"), (5, "任务…"), (4, "任…"), (1, "…"), (0, "")])
def test_a_text_is_cut_by_columns(most: int, kept: str) -> None:
    assert cut("任务12", most) == kept


def test_a_table_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("任务" * 10, "dead", "a reason that is long, " * 5), ("x", "ok", "y")]
    for width in (20, 40, 61, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = table(("TASK", "STATE", "REASON"), rows, states=(1,)).splitlines()
        assert max(map(columns, map(click.unstyle, lines))) <= width
    plain = [click.unstyle(line) for line in lines]
    assert len({line.find("dead") + 20 for line in plain if "dead" in line} | {plain[0].find("STATE") + 10}) == 2
    assert columns(plain[1].split("dead")[0]) == plain[0].find("STATE")


@pytest.mark.parametrize(("width", "left_out"), [(100, ""), (72, "EXPIRED"), (64, "OLDEST"), (52, "DELIVERED")])
def test_a_narrow_status_shows_the_state_and_leaves_out_what_is_needed_least(
    outbox_path: Path, width: int, left_out: str
) -> None:
    command = Inside(outbox_path, "http://127.0.0.1:1")
    command("update", "t", "--flush=0")
    text = command("status", COLUMNS=str(width)).out
    head = next(line for line in text.splitlines() if line.startswith("DESTINATION"))
    assert {"PENDING", "DEAD", "STATE"} <= set(head.split())
    assert columns(head) <= width
    assert {"EXPIRED", "OLDEST", "DELIVERED"} - set(head.split()) == {
        "": set(), "EXPIRED": {"EXPIRED"}, "OLDEST": {"EXPIRED", "OLDEST"},
        "DELIVERED": {"EXPIRED", "OLDEST", "DELIVERED"},
    }[left_out]  # fmt: skip


def test_what_an_agent_calls_a_task_steers_no_terminal(outbox_path: Path, make_client: MakeClient) -> None:
    make_client().update_task_status("任务-\u202ex", "testing", None, None, "\x1b]0;title\x07")
    for arguments in (("list",), ("status",), ("doctor",)):
        assert not set(inside("--db", str(outbox_path), *arguments).out) & {"\x1b", "\x07", "\u202e"}


# --- what was meant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("stauts",), "Did you mean status?"),
        (("config", "shwo"), "Did you mean show?"),
        (("flush", "--tiemout", "3"), "--timeout"),
        (("list", "--to", "orchestrato"), "Did you mean orchestrator?"),
        (("prune", "--dead", "--to", "orchestrato"), "Did you mean orchestrator?"),
        (("qqq",), "Commands: demo, status"),
        (("update", "t", "in-progress"), "Did you mean in_progress?"),
        (("list", "--state", "Ded"), "Did you mean dead?"),
        (("flush", "-q"), "As in: orchclient -q flush"),
        (("serve", "token", "--color", "never"), "As in: orchclient --color always serve token"),
        (("-q", "-v", "status"), "either --quiet or --verbose"),
        (("list", "--since", "99999999999d"), "neither a duration"),
        (("prune", "--older-than", "99999999999d"), "not a duration such as 90, 90s, 15m, 2h or 7d\n"),
    ],
)
def test_a_typing_error_is_answered_with_what_was_probably_meant(
    outbox_path: Path, arguments: tuple[str, ...], hint: str
) -> None:
    command = Inside(outbox_path, "http://127.0.0.1:1")
    command("update", "t")
    ended = command(*arguments)
    assert (ended.code, ended.out, hint in ended.err) == (2, "", True), ended.err


def test_an_option_in_front_that_belongs_behind_is_told_so_in_a_document() -> None:
    ended = inside("--json", "status")
    assert (ended.code, ended.document["error"]["hint"]) == (2, "As in: orchclient status --json")


@pytest.mark.parametrize("group", [(), ("serve", "token")])
def test_a_group_alone_shows_its_help_and_no_error(group: tuple[str, ...]) -> None:
    ended = inside(*group)
    assert (ended.code, ended.out, ended.err.startswith("Usage: orchclient")) == (2, "", True)
    assert "\nCommands:" in ended.err


@pytest.mark.parametrize(
    ("typed_words", "as_"),
    [(("help",), ("--help",)), (("help", "flush"), ("flush", "--help")), (("version",), ("--version",))],
)
def test_what_many_type_first_is_understood(typed_words: tuple[str, ...], as_: tuple[str, ...]) -> None:
    ended = inside(*typed_words)
    assert (ended.code, ended.out) == (0, inside(*as_).out)


# --- streams that are not there ---------------------------------------------------------------------------------------


def typed(command: Inside, words: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of a line, redirections included."""
    environment = {**os.environ, **command.environment, "PYTHON": sys.executable}
    line = f'o() {{ "$PYTHON" -m orchclient "$@"; }}; {words}'
    return subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["list", "list --json", "update t", "export"])
def test_a_result_that_cannot_be_written_is_told_in_one_line(outbox_path: Path, words: str) -> None:
    command = Inside(outbox_path)
    command("update", "t")
    ended = typed(command, f"o {words} > /dev/full")
    message = "the result cannot be written to stdout: No space left on device; what was done stays done"
    assert (ended.returncode, ended.stderr) == (1, f"Error: {message}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_so_is_a_help_that_cannot_be_written(outbox_path: Path) -> None:
    ended = typed(Inside(outbox_path), "o --help > /dev/full")
    assert (ended.returncode, ended.stderr.count("\n"), "No space left" in ended.stderr) == (1, 1, True)


def test_a_reader_that_has_enough_is_no_error_to_tell(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "t")
    for words in ("list", "list --json", "export", "--help"):
        assert typed(command, f"o {words} | true").stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("update t --metadata-json - <&-", 2, "--metadata-json: stdin is closed"),
        ("import - <&-", 2, "stdin is closed"),
        ("list >&-", 0, ""),
        ("flush --timeout 0 2>&-", 3, ""),
        ("nonsense 2>&-", 2, ""),
    ],
)
def test_a_stream_that_is_closed_makes_no_traceback(outbox_path: Path, words: str, code: int, told: str) -> None:
    command = Inside(outbox_path, "http://127.0.0.1:1")
    command("update", "t")
    ended = typed(command, f"o {words}")
    assert (ended.returncode, told in ended.stderr, "Traceback" in ended.stderr) == (code, True, False)


# --- quiet ------------------------------------------------------------------------------------------------------------


def test_quiet_leaves_the_result_and_the_errors(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    ask = ("ask", "t", "Which port?", "--wait=0")
    assert "Still open" in command(*ask).err
    waited = command("-q", *ask)
    assert (waited.code, waited.out, waited.err) == (3, "", "")
    db = command.environment["ORCHCLIENT_DB"]
    assert "Recorded" in inside("update", "t", on_terminal=True, ORCHCLIENT_DB=db).err
    told = inside("-q", "update", "t", on_terminal=True, ORCHCLIENT_DB=db)
    assert (told.code, told.out.count("\n"), told.err) == (0, 1, "")
    assert "no destination" in inside("-q", "list", "--to", "x", on_terminal=True, ORCHCLIENT_DB=db).err


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", "complete -o"),
        ("zsh", "#compdef"),
        ("fish", "complete --no"),
        ("powershell", "Register-ArgumentCompleter -Native -CommandName orchclient"),
    ],
)
def test_a_shell_gets_its_script(shell: str, words: str) -> None:
    ended = inside("completion", shell)
    assert (ended.code, words in ended.out, "_ORCHCLIENT_COMPLETE" in ended.out) == (0, True, True)


def completed(command: Inside, *typed: str) -> list[str]:
    """What bash is offered behind some words; the last one is incomplete."""
    environment = {**os.environ, **command.environment, "_ORCHCLIENT_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": " ".join(("orchclient", *typed)), "COMP_CWORD": str(len(typed))}
    done = subprocess.run([sys.executable, "-m", "orchclient"], env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_a_click_that_knows_no_powershell_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.shell_completion.get_completion_class", lambda shell: None)
    ended = inside("completion", "powershell")
    assert (ended.code, "pip install --upgrade 'click>=8.5'" in ended.err) == (2, True)


def test_powershell_is_offered_three_lines_for_each_word(outbox_path: Path) -> None:
    asked = {"_ORCHCLIENT_COMPLETE": "powershell_complete", "COMP_WORDS": "orchclient with", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "orchclient"],
        env={**os.environ, **Inside(outbox_path, "http://127.0.0.1:1").environment, **asked},
        capture_output=True,
        text=True,
    )
    assert (done.stderr, done.stdout.splitlines()[:2]) == ("", ["plain", "withdraw"])


def test_commands_options_destinations_tasks_and_ids_are_completed(outbox_path: Path) -> None:
    command = Inside(outbox_path, "http://127.0.0.1:1")
    first = command("update", "build-42").out.strip()
    question = command("ask", "deploy", "q?").out.strip()
    assert completed(command, "st") == ["status"]
    assert completed(command, "flush", "--tim") == ["--timeout"]
    assert completed(command, "flush", "--to", "or") == ["orchestrator"]
    assert completed(command, "list", "--task", "bu") == ["build-42"]
    assert completed(command, "show", first[:8]) == [question, first]
    assert completed(command, "answer", "0") == [question]
    assert completed(command, "update", "de") == ["deploy"]
    assert completed(command, "update", "t", "tes") == ["testing"]


def test_completion_says_nothing_when_the_outbox_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "o.db"
    broken.write_text("no database")
    broken.chmod(0o644)
    assert completed(Inside(broken), "show", "0") == []


# --- watching ---------------------------------------------------------------------------------------------------------


def test_status_watches_until_somebody_has_enough(outbox_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Inside(outbox_path)
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt
        command("update", "t")

    monkeypatch.setattr(status.time, "sleep", sleep)
    ended = command("status", "--watch=5s")
    assert (ended.code, ended.err, looks) == (130, "", [5, 5, 5])
    assert [int(n) for n in re.findall(r"(\d) events? recorded", ended.out)] == [1, 2]
    assert "No outbox yet" in ended.out


@pytest.mark.parametrize(("term", "is_taken_back"), [("xterm", True), ("dumb", False)])
def test_nothing_is_taken_back_on_a_dumb_terminal(
    outbox_path: Path, receiver: Receiver, term: str, is_taken_back: bool
) -> None:
    command = Inside(outbox_path, receiver.url)
    command("update", "t")
    receiver.always(Fault.hang())  # so that it waits for what is under way
    told = inside("flush", "--timeout", "1s", on_terminal=True, TERM=term, **command.environment)
    assert (told.code, "\x1b[K" in told.err) == (3, is_taken_back)


@pytest.mark.parametrize("other", ["--json", "--check"])
def test_what_ends_is_not_watched(other: str) -> None:
    assert inside("status", "--watch", other).code == 2


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_an_interrupted_wait_for_people_ends_with_130_and_leaves_the_question_open(
    outbox_path: Path, receiver: Receiver
) -> None:
    command = Inside(outbox_path, receiver.url)
    arguments = [sys.executable, "-m", "orchclient", "ask", "t", "Which port?", "--wait=60s", "--json"]
    environment = {**os.environ, **command.environment}
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert receiver.wait_for(1, 30)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert '"interrupted"' in out
    assert len(command.json("answer")["open"]) == 1


def test_list_filters_by_type_and_time(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "t")
    command("escalate", "t", "e", "m")
    assert [each["type"] for each in command.json("list", "--type", "task.status")["events"]] == ["task.status.v1"]
    assert len(command.json("list", "--type", "task.status", "--type", "error.escalated.v1")["events"]) == 2
    assert len(command.json("list", "--since", "1h")["events"]) == 2
    assert command.json("list", "--since", "0s")["events"] == []


def test_list_gives_a_line_of_json_or_of_the_table_for_each_event(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    for words in (("--jsonl",), ("--no-header",)):
        assert command("list", *words).out == ""  # before the first record
    for number in range(3):
        command("update", f"t-{number}")
    lines = [json.loads(line) for line in command("list", "--jsonl").out.splitlines()]
    assert lines == command.json("list")["events"]
    plain = command("list").out.splitlines()
    assert (command("list", "--no-header").out.splitlines(), len(plain)) == (plain[1:], 4)
    for words in (("--jsonl",), ("--no-header",)):
        for state in ("dead", "expired"):
            assert command("list", "--state", state, *words).out == ""
    assert command("list", "--jsonl", "--json").code == 2


def test_a_narrow_list_keeps_the_task(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "build-42")
    for width in (40, 50, 60, 80):
        (line,) = command("list", "--no-header", COLUMNS=str(width)).out.splitlines()
        assert line.endswith("build-42")
        assert columns(line) <= width


def test_list_filters_by_agent_and_refuses_a_type_that_is_none(outbox_path: Path) -> None:
    command = Inside(outbox_path)
    command("update", "t", "--agent", "a-1")
    command("update", "t", "--agent", "a-2")
    (event,) = command.json("list", "--agent", "a-2")["events"]
    assert command.json("show", event["id"])["event"]["agentid"] == "a-2"
    assert command.json("list", "--agent", "a-3")["events"] == []
    ended = command("list", "--type", "task.statos.v1")
    assert (ended.code, "Did you mean task.status?" in ended.err) == (2, True)
