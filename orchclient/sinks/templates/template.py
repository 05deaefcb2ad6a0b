"""How one service is told: what a request to it is made of. Knows no service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import field, frozen

from orchclient.core.message import Message

Body = dict[str, Any]


@frozen
class Given:
    """What of the settings stands in a body: the token of the table, and the path of its URL."""

    token: str = field(default="", repr=False)
    path: str = field(default="", repr=False)


NOTHING = Given()


def as_given(url: str) -> str:
    """The address of the settings."""
    return url


@frozen
class Template:
    """Values become JSON values and are never pasted into a text of another meaning."""

    body: Callable[[Message, Given], Body]
    plain: Callable[[Message, Given], Body]  # once more as simply as possible, when ``body`` was refused
    post_to: Callable[[str], str] = as_given
    has_bearer: bool = False  # the token goes into a header
    needs: str = ""  # what its token is, when there is no telling without
    default_url: str = ""
    types: frozenset[str] = field(factory=frozenset)  # none: all that people are told of
    is_idempotent: bool = False  # the same message twice is shown once
