"""The asynchronous surface is the synchronous one: every public name, with the same arguments, awaitable."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from orchclient import aio, client, handles, task

PAIRS = [
    (client.OrchestratorClient, aio.OrchestratorClient),
    (task.Task, aio.Task),
    (handles.Clarification, aio.Clarification),
    (handles.Completion, aio.Completion),
    (handles.Review, aio.Review),
    (handles.Escalation, aio.Escalation),
]
BLOCKS = {"task", "transaction", "recovering"}
"""Verbs that do nothing yet: they give what ``async with`` enters."""


def public(surface: type) -> Iterator[tuple[str, Any]]:
    """Names that users may use: of methods, of properties, and of what an attrs class holds."""
    held = {field.name: field for field in getattr(surface, "__attrs_attrs__", ())}
    names = {**held, **{name: inspect.getattr_static(surface, name) for name in dir(surface)}}
    return ((name, value) for name, value in names.items() if not name.startswith("_"))


def differences(model: type, surface: type) -> list[str]:
    """What a user of the synchronous surface would miss, or find to be another thing, in the asynchronous one."""
    return [text for name, value in public(model) if (text := _difference(name, value, surface))]


def _difference(name: str, value: Any, surface: type) -> str:
    if not hasattr(surface, name):
        return f"{name} is missing"
    if not inspect.isfunction(value):
        return ""
    other = inspect.getattr_static(surface, name)
    if not (name in BLOCKS or inspect.iscoroutinefunction(other)):
        return f"{name} is not awaitable"
    if arguments(value) != arguments(other):
        return f"{name} has other arguments: {arguments(other)}"
    return "" if other.__doc__ else f"{name} is not documented"


def arguments(function: Any) -> list[inspect.Parameter]:
    """Its parameters behind ``self``, with names, kinds, defaults and types."""
    return list(inspect.signature(function).parameters.values())[1:]


@pytest.mark.parametrize(("model", "surface"), PAIRS)
def test_every_public_name_is_there_awaitable_and_has_the_same_arguments(model: type, surface: type) -> None:
    assert differences(model, surface) == []


def test_a_client_is_made_with_the_same_arguments() -> None:
    made = client.OrchestratorClient.__init__, aio.OrchestratorClient.__init__
    assert arguments(made[0]) == arguments(made[1])


def test_a_verb_that_is_added_or_changed_on_one_side_only_is_found() -> None:
    class Grown(client.OrchestratorClient):
        def new_verb(self) -> None: ...

        def flush(self, timeout: float | None = None, more: int = 0) -> Any: ...

    class Careless(aio.OrchestratorClient):
        def health(self) -> Any: ...  # type: ignore[override]

    found = "; ".join(differences(Grown, aio.OrchestratorClient))
    assert "new_verb is missing" in found
    assert "flush has other arguments" in found
    assert differences(client.OrchestratorClient, Careless) == ["health is not awaitable"]
