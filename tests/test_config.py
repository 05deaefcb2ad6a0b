"""Settings: which source wins, what is refused, and that nothing is read from the current directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchclient import config
from orchclient.core.errors import ConfigError


def test_a_keyword_wins_over_the_environment_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('agent = "file"\nretention = "2d"\nmode = "offline"\n')
    environ = {"ORCHCLIENT_CONFIG": str(file), "ORCHCLIENT_AGENT": "environment", "ORCHCLIENT_MODE": "online"}
    settings = config.load(environ, agent="keyword")
    assert (settings.agent, settings.mode, settings.retention) == ("keyword", "online", 172_800)
    assert settings.origins == {"agent": "argument", "mode": "ORCHCLIENT_MODE", "retention": f"{file}:2"}


def test_the_current_directory_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("orchclient.toml", ".orchclient.toml", "config.toml", ".env"):
        (tmp_path / name).write_text('url = "https://evil.example"\n')
    monkeypatch.chdir(tmp_path)
    assert config.load().url is None


def test_an_empty_variable_counts_as_unset() -> None:
    assert config.load({"ORCHCLIENT_URL": "", "ORCHCLIENT_CONFIG": ""}).url is None


@pytest.mark.parametrize(
    ("environ", "given", "message"),
    [
        ({"ORCHCLIENT_MODE": "sometimes"}, {}, "ORCHCLIENT_MODE is not usable: expected one of online"),
        ({"ORCHCLIENT_RETENTION": "soon"}, {}, "ORCHCLIENT_RETENTION is not usable: expected a duration"),
        ({"ORCHCLIENT_MAX_EVENT_BYTES": "2000000"}, {}, "1024 to 1048576"),
        ({}, {"max_event_bytes": 5}, "max_event_bytes"),
        ({}, {"retenton": 5}, "did you mean retention?"),
        ({"ORCHCLIENT_RETENTION": "99999999999d"}, {}, "ORCHCLIENT_RETENTION is not usable"),
        ({}, {"durability": "half"}, "durability"),
        ({"ORCHCLIENT_TOKEN": "a", "ORCHCLIENT_TOKEN_FILE": "/b"}, {}, "both token and token_file"),
        ({"ORCHCLIENT_TOKEN_FILE": "/nowhere/token"}, {}, "/nowhere/token cannot be read"),
    ],
)
def test_an_unusable_setting_is_refused_by_name_and_form(
    environ: dict[str, str], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(environ, **given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("agent = ", "is not TOML"), ("agnet = 'x'", "did you mean agent?"), ("token = 'x'", "token_file")],
)
def test_a_file_that_is_wrong_is_refused_by_its_path(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        config.load({}, config_file=str(file))
    assert str(file) in str(caught.value)


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        config.load({"ORCHCLIENT_TOKEN_FILE": str(file)})
    assert "s3cret" not in str(caught.value)
    file.chmod(0o600)
    assert config.load({"ORCHCLIENT_TOKEN_FILE": str(file)}).token_now() == "s3cret-token"


@pytest.mark.parametrize("token", ["a\nb", "tok en", "töken"])
def test_a_token_that_no_header_can_carry_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({}, token=token).token_now()
    assert token not in str(caught.value)


def test_a_token_does_not_show_and_may_come_from_a_callable() -> None:
    settings = config.load({}, token=lambda: "from-a-vault")
    assert settings.token_now() == "from-a-vault"
    assert "secret-in-text" not in repr(config.load({}, token="secret-in-text"))


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("30d", 2_592_000), ("250ms", 0.25)]
)
def test_durations_take_units(text: str, value: float) -> None:
    assert config.seconds(text) == value
