"""Tables of an application's own: what happens to tasks is also written there, in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Session

from orchclient.core.errors import ConfigError
from orchclient.core.timestamps import instant
from orchclient.server.folding import TaskFold
from orchclient.server.models import Log

TASK_FIELDS: Final = (
    "task_id",
    "agent_id",
    "status",
    "progress_percentage",
    "current_step",
    "task_metadata",
    "attempt",
    "pr_url",
    "quality_score",
    "result",
    "created_at",
    "updated_at",
    "completed_at",
)
LOG_FIELDS: Final = ("task_id", "agent_id", "level", "message", "log_metadata", "logged_at")
_LOG_COLUMNS: Final = [column.name for column in Log.__table__.columns]


@frozen
class Mirror:
    """An application's models for tasks and logs, and which of their attributes take which of our values.

    ``task_fields`` and ``log_fields`` map attributes of the models to names in ``TASK_FIELDS`` and ``LOG_FIELDS``; the
    attribute that takes ``task_id`` must be there, since a task's row is found by it. Instants are aware ``datetime``.
    """

    task_model: type[DeclarativeBase]
    task_fields: Mapping[str, str]
    log_model: type[DeclarativeBase] | None = None
    log_fields: Mapping[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        _check("task_fields", self.task_model, self.task_fields, TASK_FIELDS)
        if "task_id" not in self.task_fields.values():
            raise ConfigError("task_fields: no attribute takes task_id")
        if self.log_model is not None:
            _check("log_fields", self.log_model, self.log_fields, LOG_FIELDS)

    def reflect(self, session: Session, tasks: Sequence[TaskFold], logs: Sequence[tuple[Any, ...]]) -> None:
        """Write the tasks as they are now, and one row for each line of the trail."""
        self._reflect_tasks(session, tasks)
        session.flush()  # a log may refer to its task
        if self.log_model is not None:
            values = [_log_values(row) for row in logs]
            session.add_all(
                self.log_model(**{name: each[ours] for name, ours in self.log_fields.items()}) for each in values
            )
        session.flush()

    def _reflect_tasks(self, session: Session, tasks: Sequence[TaskFold]) -> None:
        key = next(name for name, ours in self.task_fields.items() if ours == "task_id")
        column = getattr(self.task_model, key)
        rows = session.scalars(select(self.task_model).where(column.in_([task.task_id for task in tasks])))
        known = {getattr(row, key): row for row in rows}
        for task in tasks:
            values = {name: _task_value(task, ours) for name, ours in self.task_fields.items()}
            row = known.get(task.task_id)
            if row is None:
                session.add(self.task_model(**values))
            else:
                for name, value in values.items():
                    setattr(row, name, value)


def _check(argument: str, model: type, fields: Mapping[str, str], known: Sequence[str]) -> None:
    for name, ours in fields.items():
        if ours not in known:
            raise ConfigError(f"{argument}: {ours!r} is not known; known are {', '.join(known)}")
        if not hasattr(model, name):
            raise ConfigError(f"{argument}: {model.__name__} has no attribute {name!r}")


def _task_value(task: TaskFold, name: str) -> Any:
    if not name.endswith("_at"):
        value = getattr(task, name)
        return dict(value) if isinstance(value, dict) else value
    us = getattr(task, name.removesuffix("_at") + "_us")
    return None if us is None else instant(us)


def _log_values(row: tuple[Any, ...]) -> dict[str, Any]:
    found = dict(zip(_LOG_COLUMNS, row, strict=True))
    return found | {"log_metadata": json.loads(found["metadata"]), "logged_at": instant(found["time_us"])}
