"""What an agent wants to be told by callbacks of its own: of its events, and of what people said."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from orchclient.core.settled import Settled
from orchclient.outbox.inbox import Received

Callback = Callable[[Settled], object]
Hearer = Callable[[Received], object]


@frozen
class Callbacks:
    """None for what it does not want to know."""

    on_delivered: Callback | None = None
    on_dead: Callback | None = None
    on_answer: Hearer | None = None
    on_cancel: Hearer | None = None
    on_message: Hearer | None = None


NONE = Callbacks()
