"""What is chosen by a name: one of some words, or a destination. Another name is answered with the nearest one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click

from orchclient.cli import completion

Function = TypeVar("Function", bound=Callable[..., Any])


class OneOf(click.Choice[str]):
    """As click's, with a suggestion."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is wrong, and what was probably meant."""
        hint = _nearest(str(value).lower(), list(map(str, self.choices)))
        return super().get_invalid_choice_message(value, ctx) + hint


def _nearest(word: str, known: Collection[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f" Did you mean {near[0]}?" if near else ""


def sink_option(help_text: str) -> Callable[[Function], Function]:
    """``--to NAME``, once."""
    return click.option("--to", "sink", metavar="NAME", help=help_text, shell_complete=completion.destinations)


def sinks_option(help_text: str) -> Callable[[Function], Function]:
    """``--to NAME``, repeatable."""
    return click.option(
        "--to", "sinks", metavar="NAME", multiple=True, help=help_text, shell_complete=completion.destinations
    )


def refuse_unknown(kind: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise a usage error for a destination, say, that is not known, with the one that was probably meant."""
    for name in names:
        if name not in known:
            names_known = ", ".join(sorted(known)) or "none yet"
            raise click.UsageError(f"no {kind} {name!r}. Known: {names_known}.{_nearest(name, known)}")
