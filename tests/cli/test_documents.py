"""Every command prints one document, on success and on failure, and it is the one that is published."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

from orchclient.cli.app import _COMMANDS
from orchclient.testing.receiver import Receiver
from tests.cli.documents import complaints, schema
from tests.cli.inside import Inside, inside
from tests.cli.test_conventions import ALL

WITHOUT = {"serve", "mcp"}
"""Those that run until they are stopped print no document; the commands below serve do."""


@pytest.mark.parametrize("name", ["common", *sorted(set(_COMMANDS) - {"mcp"})])
def test_a_command_publishes_a_schema_that_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schema(name))


SUCCESSES = {
    "answer": ("answer",),
    "ask": ("ask", "t", "q?"),
    "complete": ("complete", "t"),
    "completion": ("completion", "zsh"),
    "config": ("config",),
    "config init": ("config", "init"),
    "config path": ("config", "path"),
    "config show": ("config", "show"),
    "doctor": ("doctor",),
    "escalate": ("escalate", "t", "e", "m"),
    "withdraw": ("withdraw", "{question}"),
    "withdraw, withdrawn": ("withdraw", "{withdrawn}"),
    "resolve": ("resolve", "{error}"),
    "resolve, nothing": ("resolve", "t", "--dedup-key", "k"),
    "export": ("export", "-o", "{dir}/r.jsonl"),
    "flush": ("flush",),
    "flush, dry": ("flush", "--dry-run"),
    "import": ("--db", "{dir}/carried/o.db", "import", "{recording}"),
    "import, dry": ("--db", "{dir}/carried/o.db", "import", "{recording}", "--dry-run"),
    "list": ("list",),
    "list, expired": ("list", "--state", "expired"),
    "prune": ("prune", "--dead"),
    "report": ("report", "t", "-o", "{dir}/t.html"),
    "resend, dry": ("resend", "--to", "orchestrator", "--since", "1h", "--dry-run"),
    "resend": ("resend", "--to", "orchestrator", "--since", "1h"),
    "retry": ("retry", "--all"),
    "retry, dry": ("retry", "--all", "--dry-run"),
    "serve token add": ("serve", "--db", "{dir}/serve.db", "token", "add", "ada"),
    "serve token list": ("serve", "--db", "{dir}/serve.db", "token", "list"),
    "serve token revoke": ("serve", "--db", "{dir}/serve.db", "token", "revoke", "bob"),
    "show": ("show", "{id}"),
    "status": ("status",),
    "status, checked": ("status", "--check"),
    "update": ("update", "t"),
    "verify": ("verify",),
}


@pytest.mark.parametrize("name", SUCCESSES)
def test_what_a_command_prints_is_as_published(name: str, outbox_path: Path, receiver: Receiver) -> None:
    command = Inside(outbox_path, receiver.url)
    made = {"dir": str(outbox_path.parent), "id": command("update", "t", "--flush=20s").out.strip()}
    if "withdraw" in name:
        made |= {"question": command("ask", "t", "q?").out.strip(), "withdrawn": command("ask", "t", "r?").out.strip()}
        command("withdraw", made["withdrawn"])
    if "resolve" in name:
        made["error"] = command("escalate", "t", "e", "m").out.strip()
    if "import" in name:
        command("export", "-o", made.setdefault("recording", f"{made['dir']}/carried.jsonl"))
    if "retry" in name:
        receiver.reject("bad")
        assert command("update", "bad", "--flush=20s").code == 4
    if "serve" in name:
        command("serve", "--db", f"{made['dir']}/serve.db", "token", "add", "bob")
    words = (word.format_map(made) for word in SUCCESSES[name])
    ended = command(*words, "--json", XDG_CONFIG_HOME=made["dir"])
    assert (ended.code, ended.document["ok"], ended.err) == (0, True, "")


def test_every_command_with_a_document_is_among_them() -> None:
    shown = {name.partition(",")[0] for name in SUCCESSES} | {"demo"}  # whose run of seconds has tests of its own
    assert {name for name, command in ALL.items() if has_document(command)} == shown


def has_document(command: click.Command) -> bool:
    return any("--json" in parameter.opts for parameter in command.params)


BEFORE = ["answer", "flush", "list", "prune", "resend", "retry", "show", "status", "verify", "doctor", "report"]


@pytest.mark.parametrize("name", BEFORE)
def test_before_the_first_record_there_is_a_document_too(name: str, tmp_path: Path) -> None:
    more = {"resend": ("--to", "a", "--since", "1h"), "retry": ("--all",), "show": ("0",), "report": ("t",)}
    ended = inside("--db", str(tmp_path / "none.db"), name, *more.get(name, ()), "--json")
    assert ended.code in (0, 1)
    assert ended.document["ok"] == (ended.code == 0)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("name", [name for name in ALL if name != "mcp"])
def test_a_wrong_option_is_a_document_too(name: str, outbox_path: Path) -> None:
    ended = inside("--db", str(outbox_path), *name.split(), "--no-such-option", "--json")
    assert (ended.code, ended.document["error"]["code"], ended.err) == (2, "usage", "")


@pytest.mark.parametrize("name", sorted(set(_COMMANDS) - {"serve", "mcp", "completion", "config", "demo"}))
def test_an_unusable_setting_is_a_document_too(name: str, outbox_path: Path) -> None:
    ended = inside("--db", str(outbox_path), name, "--json", ORCHCLIENT_MODE="sometimes")
    assert ended.code in (1, 2)  # doctor tells it as a finding
    assert ended.document["ok"] is False


def test_a_bug_is_a_document_too(outbox_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchclient.cli.status.whole_report", lambda *_: 1 / 0)
    command = Inside(outbox_path)
    command("update", "t")
    ended = command("status", "--json")
    assert (ended.code, ended.document["error"]["code"]) == (1, "unexpected")
    assert "Traceback" in ended.err


@pytest.mark.parametrize(
    ("typed", "document"),
    [
        ("flush", {"ok": True, "delivered": 3}),
        ("flush", {"ok": True, "exists": False, "path": "/x", "more": 1}),
        ("list", {"ok": True, "exists": True, "events": [{"id": "x"}]}),
        ("status", {"ok": False, "error": {"code": "usage", "message": "m"}}),
    ],
)
def test_a_document_that_says_more_or_less_than_is_published_is_found(typed: str, document: dict[str, object]) -> None:
    assert complaints((typed,), document)
