"""The tree of errors that orchclient raises. Every message says what happened, on which object, and what to do."""

from __future__ import annotations


class OrchClientError(Exception):
    """Root of everything orchclient raises on purpose."""


class InvalidEvent(OrchClientError, ValueError):
    """An argument of a verb cannot be recorded; nothing was stored.

    ``argument`` names the argument of the call, ``path`` the place inside it as a JSON path such as
    ``$.artifacts[2].size`` (``$`` is the argument itself).
    """

    def __init__(self, argument: str, problem: str, path: str = "$") -> None:
        self.argument = argument
        self.path = path
        self.problem = problem
        where = argument if path == "$" else f"{argument} at {path}"
        super().__init__(f"{where}: {problem}")

    def __reduce__(self) -> tuple[type[InvalidEvent], tuple[str, str, str]]:
        return (type(self), (self.argument, self.problem, self.path))


class ConfigError(OrchClientError, ValueError):
    """A setting is unusable: the message names the setting, where it came from, and the allowed form."""


class OutboxError(OrchClientError):
    """The outbox file cannot store or be read: the message names the file and the cure."""


class OutboxFull(OutboxError):
    """The outbox refused a new event because a limit is reached; everything recorded before is kept."""


class OutboxUnsafe(OutboxError):
    """The outbox path is not safe to use: a link, a foreign owner, a network file system, open permissions."""


class OutboxBusy(OutboxError):
    """Another process held the outbox longer than the stated total; nothing was lost by it."""


class UnknownEvent(OrchClientError, LookupError):
    """No event has this id, or the prefix names more than one."""


class InvalidRecording(OrchClientError, ValueError):
    """A recording cannot be read or taken in. ``line`` is the line that is wrong, 0 when it is the whole.

    The message names the line and what to do; see docs/offline-hosts.md.
    """

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(f"line {line}: {problem}" if line else problem)

    def __reduce__(self) -> tuple[type[InvalidRecording], tuple[int, str]]:
        return (type(self), (self.line, self.problem))
