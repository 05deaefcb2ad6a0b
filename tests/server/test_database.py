"""The database: migrations, engines, turns, and models of an application's own."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import JSON, DateTime, ForeignKey, String, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orchclient.core.errors import ConfigError
from orchclient.server import database
from orchclient.server.database import Turns, database_url, make_engine, make_reader, make_session_local
from orchclient.server.dismissing import Dismissal
from orchclient.server.mirror import Mirror
from orchclient.server.models import Base, Event
from orchclient.server.orchestrator import Orchestrator, StoreUnavailable
from orchclient.server.upgrade import VERSION_TABLE, upgrade
from tests.server.events import Outbox
from tests.server.test_tasks import take


def test_the_migrations_lead_to_the_models(database: str) -> None:
    engine = make_engine(database)
    upgrade(engine)
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


OPENER = "import sys; from orchclient.server.orchestrator import Orchestrator; Orchestrator.open(sys.argv[1]).close()"


def test_processes_that_open_a_new_database_at_once_all_succeed(database: str) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", OPENER, database], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [(each.communicate(timeout=60)[1], each.returncode) for each in running] == [("", 0)] * 3


def test_the_file_is_private_and_made_for_whoever_waits(tmp_path: Path) -> None:
    path = tmp_path / "new" / "o.db"
    orchestrator = Orchestrator.open(str(path))
    take(orchestrator, Outbox().status())
    found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    orchestrator.close()
    assert found.keys() >= {"o.db", "o.db-wal"}
    assert set(found.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "://", "http://x"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        database_url(url)


def test_every_connection_is_durable_and_never_checkpoints_by_itself(tmp_path: Path) -> None:
    engine = make_engine(str(tmp_path / "o.db"))
    with engine.connect() as connection:
        found = {name: connection.execute(text(f"PRAGMA {name}")).scalar_one() for name in PRAGMAS}
    engine.dispose()
    assert found == PRAGMAS


PRAGMAS: dict[str, Any] = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}


def test_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    engine = make_engine(str(tmp_path / "o.db"))
    upgrade(engine)
    with make_session_local(engine)() as writing, make_reader(engine)() as reading:
        writing.execute(text("DELETE FROM orch_tokens"))
        assert reading.scalars(select(Event.id)).all() == []
    engine.dispose()


def test_who_writes_too_long_makes_others_give_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "WAIT_S", 0.05)
    orchestrator = Orchestrator.open(str(tmp_path / "o.db"))
    other = Turns(tmp_path / "o.db")  # as another process has it
    other.take()
    with pytest.raises(StoreUnavailable, match="another process"):
        take(orchestrator, Outbox().status())
    other.give()
    assert take(orchestrator, Outbox().status()) == ["accepted"]
    orchestrator.close()


def test_the_wal_is_moved_into_the_file_while_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_MOVE_ABOVE", 100_000)
    monkeypatch.setattr(database, "_CUT_ABOVE", 1_000_000)
    orchestrator = Orchestrator.open(str(tmp_path / "o.db"))
    wal = tmp_path / "o.db-wal"
    outboxes = [Outbox(agent=f"agent-{n}") for n in range(3)]
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            orchestrator.report(outboxes[0].source)

    def write(outbox: Outbox) -> None:
        for _ in range(20):
            take(orchestrator, *(outbox.status(current_step="x" * 500) for _ in range(20)))

    with ThreadPoolExecutor(4) as pool:
        reading = pool.submit(read)
        list(pool.map(write, outboxes))
        is_over.set()
        reading.result()
    assert wal.stat().st_size < 3_000_000
    orchestrator.close()
    with sqlite3.connect(tmp_path / "o.db") as con:
        assert con.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert con.execute("SELECT count(*) FROM orch_events").fetchone() == (1_200,)


# --- Retention ----------------------------------------------------------------------------------------------------


def test_history_beyond_the_retention_goes_and_still_counts_as_held(orchestrator: Orchestrator, clock: Any) -> None:
    outbox = Outbox()
    take(orchestrator, *(outbox.status() for _ in range(30)))
    clock.pass_(1_000)
    recent = clock.now_us
    take(orchestrator, *(outbox.status() for _ in range(5)))
    assert orchestrator.prune(recent) == 60
    assert orchestrator.prune(recent) == 0
    assert orchestrator.report(outbox.source) == {"highest": 35, "gaps": []}
    with orchestrator.reading() as session:
        assert len(session.scalars(select(Event.id)).all()) == 5


# --- An application's own tables ----------------------------------------------------------------------------------


class OwnBase(DeclarativeBase):
    pass


class OwnTask(OwnBase):
    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(256), unique=True)
    state: Mapped[str] = mapped_column(String(32))
    extra: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed: Mapped[Any] = mapped_column(DateTime(timezone=True))
    team: Mapped[str] = mapped_column(String(32), default="core")


class OwnLog(OwnBase):
    __tablename__ = "logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    task: Mapped[str] = mapped_column(ForeignKey("tasks.name"))
    words: Mapped[str] = mapped_column(String(256))


MIRROR = Mirror(
    OwnTask,
    {"name": "task_id", "state": "status", "extra": "task_metadata", "changed": "updated_at"},
    OwnLog,
    {"task": "task_id", "words": "message"},
)


def test_tables_of_an_application_are_written_in_the_same_transaction(database: str) -> None:
    engine = make_engine(database)
    upgrade(engine)
    OwnBase.metadata.create_all(engine.execution_options(orch_writes=True))
    orchestrator = Orchestrator(make_session_local(engine), make_reader(engine), mirror=MIRROR)
    outbox = Outbox()
    take(orchestrator, outbox.status(metadata={"x": 1}), outbox.status("task-2"))
    take(orchestrator, outbox.status(status="failed", metadata={"y": 2}))
    with orchestrator.reading() as session:
        tasks = {each.name: (each.state, each.extra, each.team) for each in session.scalars(select(OwnTask))}
        words = session.scalars(select(OwnLog.words).where(OwnLog.task == "task-1").order_by(OwnLog.id)).all()
    assert tasks == {"task-1": ("failed", {"x": 1, "y": 2}, "core"), "task-2": ("in_progress", {}, "core")}
    assert words == ["in_progress", "failed"]
    error = outbox.error()
    take(orchestrator, error)
    assert orchestrator.dismiss(Dismissal("task-1", error["id"], {"kind": "human", "id": "ada"}))
    with orchestrator.reading() as session:
        assert "ada set" in (session.scalars(select(OwnLog.words).order_by(OwnLog.id.desc())).first() or "")
    OwnBase.metadata.drop_all(engine.execution_options(orch_writes=True))
    with pytest.raises(StoreUnavailable):
        take(orchestrator, outbox.status(status="testing"))
    with orchestrator.reading() as session:
        assert len(session.scalars(select(Event.id)).all()) == 4
    orchestrator.close()


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"state": "status"}, "task_id"), ({"name": "task_id", "state": "mood"}, "mood"), ({"nick": "task_id"}, "nick")],
)
def test_a_mapping_that_cannot_work_is_refused_at_once(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Mirror(OwnTask, fields)
