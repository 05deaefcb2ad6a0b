"""The page on notifications shows what is really told: every kind, as the code renders it today."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchclient.core.event_message import message_of
from orchclient.core.message import Kind, digest, trial
from orchclient.core.plain_message import plain_text
from orchclient.sinks.templates.known import TEMPLATES
from orchclient.sinks.templates.template import Given
from tests.sinks.events import ERROR, KINDS, ONE_QUESTION, PUBLIC, QUESTION, STATUS

PAGE = Path(__file__).parents[2] / "docs" / "notifications.md"
SHOWN = dict(re.findall(r"^```text (\S+)\n(.*?)\n```$", PAGE.read_text(), re.M | re.S))


TEMPLATED = dict(re.findall(r"^```json (\S+)\n(.*?)\n```$", PAGE.read_text(), re.M | re.S))


def templated() -> dict[str, str]:
    """The one question in the body of every template."""
    message = message_of(ONE_QUESTION, PUBLIC)
    assert message is not None
    bodies = {name: each.body(message, Given("…", "my-secret-topic")) for name, each in TEMPLATES.items()}
    return {name: json.dumps(body, indent=1, ensure_ascii=False) for name, body in bodies.items()}


def rendered() -> dict[str, str]:
    """Every kind by its name, and two that are told of several events."""
    told = {kind: message_of(event, PUBLIC) for kind, event in KINDS.items()}
    held = [message for event in (STATUS, QUESTION) if (message := message_of(event, PUBLIC))]
    told["one-question"] = message_of(ONE_QUESTION, PUBLIC)
    told |= {
        "after-an-outage": message_of(STATUS, PUBLIC, count=120),
        "counted-error": message_of(ERROR, PUBLIC, count=14),
    }
    told |= {"digest": digest(held), "test": trial()}
    return {name: plain_text(message) for name, message in told.items() if message}


@pytest.mark.parametrize("name", rendered())
def test_the_page_shows_what_is_told(name: str) -> None:
    assert SHOWN.get(name) == rendered()[name]


def test_the_page_shows_every_template() -> None:
    assert templated() == TEMPLATED


def test_the_page_shows_every_kind_and_nothing_else() -> None:
    assert set(SHOWN) == set(rendered())
    assert {kind.value for kind in Kind} <= set(SHOWN)
