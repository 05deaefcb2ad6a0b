"""A group of commands that says which one was probably meant."""

from __future__ import annotations

import click


class Group(click.Group):
    """As click's, with a suggestion for a name that is none."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raise a usage error that names the nearest command, or all of them."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(args[0], names, 1)
            hint = f" Did you mean {near[0]}?" if near else f" Commands: {', '.join(names)}."
            raise click.UsageError(f"no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)
