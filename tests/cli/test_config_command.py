"""``orchclient config``: where values come from, secrets hidden, a file that is never overwritten."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from orchclient import config
from orchclient.cli.config import strangers
from orchclient.cli.config_file import EXAMPLES, PAGE, SPOKEN
from orchclient.cli.serve import serve_command
from tests.cli.inside import inside


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "c.toml"


def test_each_value_is_shown_with_where_it_came_from(file: Path) -> None:
    file.write_text('# mine\nmode = "offline"\nretention = "36h"\n\n[sinks.audit]\nkind = "webhook"\n')
    told = inside(
        "--config", str(file), "--db", "/x/o.db", "config", "show", "--json", ORCHCLIENT_URL="https://o.example"
    ).document
    found = {name: (each["value"], each["origin"]) for name, each in told["settings"].items()}
    assert found["db"] == ("/x/o.db", "argument")
    assert found["url"] == ("https://o.example", "ORCHCLIENT_URL")
    assert found["mode"] == ("offline", f"{file}:2")
    assert found["retention"] == (129_600.0, f"{file}:3")
    assert found["sinks"] == ({"audit": {"kind": "webhook"}}, f"{file}:5")
    assert found["durability"] == ("auto", "default")
    assert found["reminders"] == ("15m,1h,4h", "default")
    assert told["files"][0] == {"path": str(file), "exists": True}


def test_secrets_are_never_shown(file: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("s3cret-token-text")
    token_file.chmod(0o600)
    file.write_text(f'token_file = "{token_file}"\nproxy = "http://me:s3cret-proxy@p.example:1"\n')
    environment = {
        "ORCHCLIENT_CONFIG": str(file),
        "ORCHCLIENT_DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/s3cret-hook",
        "ORCHCLIENT_WEBHOOK_SECRET": "whsec_s3cret",
    }
    for arguments in (("config",), ("config", "show", "--json")):
        ended = inside(*arguments, **environment, COLUMNS="400")
        assert ended.code == 0
        assert "s3cret" not in ended.out
        assert f"{token_file} (token_file of {file}:1)" in ended.out
        assert ended.out.count("(hidden)") == 4


def test_a_variable_with_a_typing_error_is_named() -> None:
    ended = inside("config", ORCHCLIENT_TOKNE="x", ORCHCLIENT_SERVE_PORT="1", ORCHCLIENT_SERVE_LOG="json")
    assert "ORCHCLIENT_TOKNE is no setting: did you mean ORCHCLIENT_TOKEN?" in ended.out
    other = inside("config", ORCHCLIENT_FLUSH_INTERVAL="2s").out  # like others by its prefix only
    assert "ORCHCLIENT_FLUSH_INTERVAL is no setting: orchclient config show names" in other
    assert "SERVE" not in ended.out


def test_init_writes_a_private_file_once(tmp_path: Path) -> None:
    path = Path(inside("config", "path").out.strip())
    assert inside("config", "init").out == f"Written: {path}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o022 == 0
    path.write_text('mode = "offline"\n')
    again = inside("config", "init", "--json")
    assert (again.code, again.document["ok"], path.read_text()) == (1, False, 'mode = "offline"\n')
    assert inside("config", "show", "--json").document["settings"]["mode"]["origin"] == f"{path}:1"


def test_init_does_not_write_through_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link.toml", tmp_path / "target"
    link.symlink_to(target)
    assert inside("--config", str(link), "config", "init").code == 1
    assert not target.exists()


def test_the_written_file_says_nothing_until_it_is_edited_and_is_usable_then(file: Path, tmp_path: Path) -> None:
    assert tomllib.loads(PAGE) == {}
    lines = [line.removeprefix("# ") for line in PAGE.splitlines() if line.startswith("# ") and " = " in line]
    settings = "\n".join(line for line in lines if line.split(" = ")[0] in EXAMPLES and "token_file" not in line)
    file.write_text(settings)
    assert config.load({}, config_file=str(file)).retention == config.load({}).retention
    assert len(settings.splitlines()) == len(EXAMPLES) - 1


def test_every_setting_is_explained_and_every_one_for_files_is_in_the_file() -> None:
    assert set(SPOKEN) == set(config.names())
    in_files = {name for name, setting in config._SETTINGS.items() if setting.in_files}
    assert set(EXAMPLES) | {"sinks"} == in_files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nretention = [1]", "retention ({file}:2) is not usable: expected a duration such as 90, 90s, "
         "15m, 2h or 30d, not a list"),
        ("max_pending = 0.5", "max_pending ({file}:1) is not usable: expected a whole number of events, "
         "1 or more, not a number"),
        ("min_free_bytes = 0", "min_free_bytes ({file}:1) is not usable: expected a whole number of bytes, "
         "1 or more, not zero"),
        ("modus = 'x'", "unknown setting 'modus' ({file}:1); did you mean mode?"),
        ("agent = 'a'\ntoken = 's3cret'", "{file}:2: token is a secret and must not stand in this file; use token"),
        ("[sinks.a]\nkind = 'discrod'", "[sinks.a]: unknown kind 'discrod'; did you mean discord?"),
        ("[sinks.a]\nkind = 'orchestrator'\nurl = 'https://x.example'\ntokn = 1", "did you mean token?"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told_with_its_line_and_never_with_the_value(
    file: Path, outbox_path: Path, text: str, message: str
) -> None:
    file.write_text(text)
    ended = inside("--config", str(file), "--db", str(outbox_path), "flush")
    assert (ended.code, message.format(file=file) in ended.err, "s3cret" in ended.err) == (2, True, False), ended.err


def test_no_variable_of_the_server_is_taken_for_a_typing_error() -> None:
    variables = [option.envvar for option in serve_command.params if option.envvar]
    assert len(variables) >= 7
    assert strangers(config.Settings(), dict.fromkeys(map(str, variables), "x")) == []


def test_the_null_device_names_no_file_at_all(tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    (tmp_path / "orchclient").mkdir()
    (tmp_path / "orchclient" / "config.toml").write_text('agent = "mine"\n')
    assert "mine" in inside("config", "show", **home).out
    shown = inside("config", "show", **home, ORCHCLIENT_CONFIG="/dev/null")
    assert "mine" not in shown.out
    assert "File     none (/dev/null is named)" in shown.out
    for command in ("path", "init"):
        ended = inside("config", command, **home, ORCHCLIENT_CONFIG="/dev/null")
        assert (ended.code, "unset ORCHCLIENT_CONFIG" in ended.err) == (2, True)
