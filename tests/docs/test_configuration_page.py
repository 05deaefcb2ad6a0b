"""The page about configuration: its commands print what it says, and its table has every setting."""

from __future__ import annotations

import re

from orchclient import config
from orchclient.origins import variable_of
from tests.docs.console import DOCS, blocks, differences

PAGE = "configuration.md"


def test_its_commands_print_what_it_says() -> None:
    (block,) = blocks(PAGE)
    assert differences(block, {"ORCHCLIENT_DB": "/a/short/path.db"}) == []


def test_its_table_has_every_setting() -> None:
    rows = re.findall(r"^\| `(ORCHCLIENT_\w+)`", (DOCS / PAGE).read_text(), re.M)
    assert sorted(rows) == sorted(variable_of(name) for name in config.names() if name != "sinks")
