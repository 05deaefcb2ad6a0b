"""Where the values of settings come from, and how that is told: an argument, a variable, a line of a file.

Knows no setting: ``config`` says which there are and what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from orchclient.core.errors import ConfigError

PREFIX = "ORCHCLIENT_"
ARGUMENT = "argument"
DEFAULT = "default"


@frozen
class Values:
    """What one source says, and where each value of it stands."""

    values: Mapping[str, Any]
    where: str = ""
    lines: Mapping[str, int] = field(factory=dict)

    def origin(self, name: str) -> str:
        """For ``orchclient config show`` and for errors: ``argument``, a variable's name, or ``file:line``."""
        if self.where == ARGUMENT:
            return ARGUMENT
        if not self.where:
            return variable_of(name)
        return f"{self.where}:{self.lines[name]}" if name in self.lines else self.where


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def given(values: Mapping[str, Any]) -> Values:
    """Keywords or flags; None means not given."""
    return Values({name: value for name, value in values.items() if value is not None}, ARGUMENT)


def of_environment(environ: Mapping[str, str], names: Collection[str]) -> Values:
    """Variables. An empty one counts as unset, as OpenTelemetry's specification has it."""
    found = {name: environ.get(variable_of(name), "") for name in names}
    return Values({name: value for name, value in found.items() if value})


def of_file(path: Path, *, must_exist: bool) -> Values:
    """A TOML file. Raises ``ConfigError`` naming the file, and what of it cannot be read."""
    if not must_exist and not path.is_file():
        return Values({}, str(path))
    import tomllib

    try:
        text = path.read_text()
        return Values(tomllib.loads(text), str(path), _lines(text))
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"config file {path} is not TOML: it is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"config file {path} is not TOML: {error}") from None


_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))\s*[=.]""")
_TABLE = re.compile(r"""\s*\[+\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))""")


def _lines(text: str) -> dict[str, int]:
    """The line of each key and table at the top: tomllib tells none."""
    lines: dict[str, int] = {}
    is_top = True
    for number, line in enumerate(text.splitlines(), 1):
        table = _TABLE.match(line) if not line.lstrip().startswith("#") else None
        match = table or (_KEY.match(line) if is_top else None)
        is_top = is_top and table is None
        if match is not None:
            name = match[1] or match[2] or match[3]
            lines.setdefault(name, number)
    return lines


def shape(value: Any) -> str:
    """What was given, without what it says: it may be a secret in the wrong place."""
    if isinstance(value, str):
        return f"text of {len(value)} characters" if len(value) != 1 else "text of 1 character"
    if type(value) is int:
        return "another whole number" if value > 0 else "a negative number" if value else "zero"
    words = {bool: "true or false", float: "a number", list: "a list", dict: "a table"}
    return words.get(type(value), f"a {type(value).__name__}")


def nearest(name: str, known: Collection[str]) -> str:
    """A hint for a name that is not known."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
