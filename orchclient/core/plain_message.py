"""A message as plain text: for a terminal and for the documentation. Knows no service and no markup."""

from __future__ import annotations

from orchclient.core.message import Message


def plain_text(message: Message) -> str:
    """Every line of a message, in the order in which people read it."""
    lines = [message.headline]
    for text in message.lines:
        lines += ["", *text.split("\n")]
    if message.links:
        lines += ["", *(f"{link.label}: {link.url}" for link in message.links)]
    if message.facts:
        width = max(len(fact.name) for fact in message.facts)
        lines += ["", *(f"{fact.name.ljust(width)}  {fact.value}" for fact in message.facts)]
    return "\n".join([*lines, "", message.footer]) if message.footer else "\n".join(lines)
