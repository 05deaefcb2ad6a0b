"""How a verb of the synchronous surface becomes an awaitable one, with its name, signature and documentation.

``recorded`` makes the call in the client's thread, ``waited`` in a thread of its own; ``into`` wraps a handle.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from orchclient.aio.calls import Calls

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class Remote(Generic[S]):
    """Something of the synchronous surface, used by the client's thread only."""

    _calls: Calls

    def _target(self) -> S:
        """What the calls are made on; asked for in the thread."""
        raise NotImplementedError


class Handle(Remote[S]):
    """A handle that a verb returned. True, like the one it stands for."""

    def __init__(self, calls: Calls, target: S) -> None:
        self._calls = calls
        self._sync = target

    def _target(self) -> S:
        return self._sync

    def __repr__(self) -> str:
        return f"aio.{self._sync!r}"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._sync == self._sync

    def __hash__(self) -> int:
        return hash(self._sync)


Verb = Callable[Concatenate[Remote[S], P], Coroutine[Any, Any, T]]


def recorded(verb: Callable[Concatenate[S, P], T]) -> Verb[S, P, T]:
    """The verb, made in the order of the calls."""

    @wraps(verb)
    async def call(self: Remote[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._calls.run(lambda: verb(self._target(), *args, **kwargs))

    return call


def into(handle: Callable[[Calls, T], U], verb: Callable[Concatenate[S, P], T]) -> Verb[S, P, U]:
    """The verb, made in the order of the calls, whose result becomes an awaitable handle."""

    @wraps(verb)
    async def call(self: Remote[S], /, *args: P.args, **kwargs: P.kwargs) -> U:
        return handle(self._calls, await self._calls.run(lambda: verb(self._target(), *args, **kwargs)))

    return call


def waited(verb: Callable[Concatenate[S, P], T]) -> Verb[S, P, T]:
    """The verb, begun when the calls before it are done; others go on while it waits."""

    @wraps(verb)
    async def call(self: Remote[S], /, *args: P.args, **kwargs: P.kwargs) -> T:
        target = await self._calls.run(self._target)
        return await self._calls.wait(lambda: verb(target, *args, **kwargs))

    return call
