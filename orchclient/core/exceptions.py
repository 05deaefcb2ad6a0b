"""What an exception says in an escalation: type, message, traceback. Pure; a broken exception breaks nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from orchclient.core.limits import ID_CHARS, shortened

TRACEBACK_CHARS = 16_000


def error_type_of(error: BaseException) -> str:
    """The class's ``error_type`` when it has one that is a text, else the name of the class.

    So an exception of the agent's own says which row of the escalation matrix it belongs to:
    ``class GitHubLoginError(Exception): error_type = "github_api_auth"``.
    """
    named = getattr(type(error), "error_type", None)
    return named if isinstance(named, str) and 0 < len(named) <= ID_CHARS else type(error).__name__[:ID_CHARS]


def message_of(error: BaseException) -> str:
    """What it says; a ``__str__`` that raises says nothing."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  other people's code
        return f"({type(error).__name__} without a readable message)"


def described(error: BaseException | str) -> str:
    """Type and message in one line."""
    return f"{type(error).__name__}: {message_of(error)}" if isinstance(error, BaseException) else error


def traceback_of(error: BaseException, clean_text: Callable[[str], str]) -> str:
    """Its traceback with its causes, the middle left out when it is long.

    ``clean_text`` takes secrets out of what is cut: half a secret would not be recognised later.
    """
    text = "".join(traceback.format_exception(error))
    return shortened(clean_text(text), TRACEBACK_CHARS) if len(text) > TRACEBACK_CHARS else text


_ESCALATED = "__orchclient_escalated__"


def mark_escalated(error: BaseException, task_id: str) -> None:
    """Note on an exception that a task called for help because of it, so that it does so once."""
    try:
        setattr(error, _ESCALATED, task_id)
    except Exception:  # noqa: BLE001  a class that refuses attributes is escalated again at worst
        return


def is_escalated(error: BaseException, task_id: str) -> bool:
    """Whether the task called for help because of it already."""
    return getattr(error, _ESCALATED, None) == task_id
