"""One of some words, as an argument: a word that is none is answered with the one that was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click


class OneOf(click.Choice[str]):
    """As click's, with a suggestion."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """What is wrong, and what was probably meant."""
        near = get_close_matches(str(value).lower(), map(str, self.choices), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return super().get_invalid_choice_message(value, ctx) + hint
