"""The floors of the design, held by reading the imports: who may know whom, and what an import may cost.

What counts as an import: the statement wherever it stands, also inside a function, and a text that is the name of a
module of the package, since that is how ``import_module`` is told. What stands under ``TYPE_CHECKING`` is never run:
it must keep to the floors as well, but closes no circle.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from attrs import frozen

import orchclient

PACKAGE = "orchclient"
ROOT = Path(orchclient.__file__).parent

FOLDERS = {"core": 0, "outbox": 1, "sinks": 1, "delivery": 2, "aio": 4, "cli": 4, "testing": 4, "server": 2}
FILES = {
    "config": 3,
    "origins": 3,
    "opened": 3,
    "destinations": 3,
    "dialects": 3,
    "sink_options": 3,
    "recorder": 3,
    "people": 3,
    "station": 3,
    "reporting": 3,
    "recordings": 3,
    "handles": 3,
    "recovery": 3,
    "escalating": 3,
    "task": 3,
    "client": 3,
    "tracing": 3,
    "otel": 4,
    "__main__": 4,
}
FACADE, EDGES = 3, 4

NOT_IN_CORE = frozenset(["sqlite3", "requests", "click", "threading", "time", "random", "os", "logging", "socket"])
NOT_AT_IMPORT = frozenset(
    ["requests", "urllib3", "click", "sqlite_utils", "cattrs", "platformdirs", "jsonschema", "opentelemetry"]
)

# Outside outbox/ a connection is a type, and SQLite a version.
SQLITE_NAMES = frozenset({"Connection", "sqlite_version", "sqlite_version_info"})
SQL_CALLS = frozenset({"execute", "executemany", "executescript"})
SQL = re.compile(
    r"\s*(?:SELECT\s|INSERT\s+(?:OR\s+\w+\s+)?INTO\s|REPLACE\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|PRAGMA\s"
    r"|(?:CREATE|DROP|ALTER)\s+(?:TABLE|INDEX|TRIGGER|VIEW)\s"
    r"|(?:BEGIN(?:\s+(?:IMMEDIATE|EXCLUSIVE|DEFERRED))?|COMMIT|ROLLBACK|VACUUM)\s*;?\s*\Z)"
)


# --- Reading ------------------------------------------------------------------------------------------------------


@frozen
class Import:
    """One module names another. ``is_run`` is false for what only a type checker reads."""

    importer: str
    imported: str
    line: int
    is_run: bool = True

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


@frozen
class Module:
    """One file of the package, by its dotted name."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def folder(self) -> str:
        """The folder that it belongs to; of a file at the top, the name of the file."""
        return self.name.split(".")[1] if self.name != PACKAGE else ""


@frozen
class Tree:
    """A package as its files say it is."""

    modules: dict[str, Module]

    @cached_property
    def imports(self) -> list[Import]:
        return [found for module in self.modules.values() for found in self._imports_of(module)]

    @property
    def internal(self) -> list[Import]:
        """Imports of the package's own modules; a name of the front door counts as the module behind it."""
        return [each for each in self.imports if each.imported in self.modules]

    def _imports_of(self, module: Module) -> Iterator[Import]:
        for node, is_run in _statements(module.tree):
            for name in self._named(module, node):
                yield Import(module.name, name, node.lineno, is_run)

    def _named(self, module: Module, node: ast.stmt | ast.expr) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = _absolute(module, node)
            yield from (self._resolved(parent, alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant) and module.name != PACKAGE and _names_a_module(node.value):
            yield str(node.value)

    def _resolved(self, parent: str, name: str) -> str:
        """The module that ``from parent import name`` reaches."""
        if f"{parent}.{name}" in self.modules:
            return f"{parent}.{name}"
        return self._behind_the_door().get(name, parent) if parent == PACKAGE else parent

    def _behind_the_door(self) -> dict[str, str]:
        for node in self.modules[PACKAGE].tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["_HOMES"]:
                return dict(ast.literal_eval(node.value))
        return {}


def _names_a_module(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"{PACKAGE}(\.\w+)+", value) is not None


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _statements(tree: ast.AST, is_run: bool = True) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    """Every import and every text below a node, and whether it is ever run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Constant):
            yield node, is_run
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _statements(ast.Module(node.body, []), False)
            yield from _statements(ast.Module(node.orelse, []), is_run)
        else:
            yield from _statements(node, is_run)


def read(root: Path) -> Tree:
    modules = (_module(root, path) for path in sorted(root.rglob("*.py")))
    return Tree({module.name: module for module in modules})


def _module(root: Path, path: Path) -> Module:
    parts = path.relative_to(root).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join([PACKAGE, *(parts[:-1] if is_package else parts)])
    return Module(name, is_package, ast.parse(path.read_text(encoding="utf-8"), str(path)))


# --- The rules: each gives what breaks it -------------------------------------------------------------------------


def floor(module: str) -> int | None:
    """The floor of a module; None for one that has no place yet. The front door belongs to the facade."""
    _, *parts = module.split(".")
    if not parts:
        return FACADE
    return FOLDERS.get(parts[0], FILES.get(parts[0]) if len(parts) == 1 else None)


def homeless(tree: Tree) -> list[str]:
    return [name for name in tree.modules if floor(name) is None]


def upward(tree: Tree) -> list[str]:
    """Imports from a higher floor. The front door itself may be named by all: it runs no import."""
    return [
        str(each)
        for each in tree.internal
        if each.imported != PACKAGE and (floor(each.importer) or 0) < (floor(each.imported) or 0)
    ]


def across(tree: Tree) -> list[str]:
    """Imports from another folder of the same floor, where the floor is made of folders that must not meet."""
    return [
        str(each)
        for each in tree.internal
        if floor(each.importer) == floor(each.imported)
        and floor(each.importer) not in (FACADE, EDGES)
        and tree.modules[each.importer].folder != tree.modules[each.imported].folder
    ]


def users_of_testing(tree: Tree) -> list[str]:
    """The receiver and its faults serve tests and the demo, nothing that runs in earnest."""
    return [
        str(each)
        for each in tree.internal
        if tree.modules[each.imported].folder == "testing"
        and tree.modules[each.importer].folder != "testing"
        and not each.importer.startswith(f"{PACKAGE}.cli.demo")
    ]


def circle(tree: Tree) -> list[str]:
    """The modules of one circle of imports, empty when there is none."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for each in tree.internal:
        if each.is_run and each.imported != each.importer:
            sorter.add(each.importer, each.imported)
    try:
        sorter.prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def impure(tree: Tree) -> list[str]:
    """Imports of the core from which time, chance, files or the network could come."""
    return [
        str(each)
        for each in tree.imports
        if tree.modules[each.importer].folder == "core" and each.imported.split(".")[0] in NOT_IN_CORE
    ]


def hasty(tree: Tree) -> list[str]:
    """What the front door imports of the package before a name is asked for."""
    return [str(each) for each in tree.internal if each.importer == PACKAGE and each.is_run]


def sql_outside_the_outbox(tree: Tree) -> list[str]:
    modules = (each for each in tree.modules.values() if each.folder not in ("outbox", "server"))
    return [f"{module.name}:{line} {what}" for module in modules for line, what in _sql_in(module.tree)]


def _sql_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    documentation = {id(text) for text in _docstrings(tree)}
    for node in ast.walk(tree):
        what = _sql_of(node)
        if what and id(node) not in documentation:
            yield getattr(node, "lineno", 0), what


def _sql_of(node: ast.AST) -> str:
    """How one node speaks SQL, empty when it does not."""
    match node:
        case ast.Import(names=names) if any(alias.name == "sqlite3" and alias.asname for alias in names):
            return "imports sqlite3 under another name"
        case ast.ImportFrom(module="sqlite3", names=names) if {alias.name for alias in names} - SQLITE_NAMES:
            return f"imports {', '.join(alias.name for alias in names)} from sqlite3"
        case ast.Attribute(value=ast.Name(id="sqlite3"), attr=name) if name not in SQLITE_NAMES:
            return f"uses sqlite3.{name}"
        case ast.Call(func=ast.Attribute(attr=name)) if name in SQL_CALLS:
            return f"calls {name}()"
        case ast.Constant(value=str(text)) if SQL.match(text):
            return f"says {text.split()[0]}"
    return ""


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


RULES = (homeless, upward, across, users_of_testing, circle, impure, hasty, sql_outside_the_outbox)


# --- The package keeps them ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Tree:
    return read(ROOT)


def test_every_module_has_a_floor(package: Tree) -> None:
    assert homeless(package) == []


def test_a_module_imports_from_its_own_floor_or_a_lower_one(package: Tree) -> None:
    assert upward(package) == []


def test_outbox_and_sinks_never_meet(package: Tree) -> None:
    assert across(package) == []


def test_only_the_demo_uses_the_test_kit(package: Tree) -> None:
    assert users_of_testing(package) == []


def test_no_imports_go_in_a_circle(package: Tree) -> None:
    assert circle(package) == []


def test_the_core_imports_no_clock_no_chance_no_file_and_no_network(package: Tree) -> None:
    assert impure(package) == []


def test_the_front_door_imports_nothing_of_the_package_by_itself(package: Tree) -> None:
    assert hasty(package) == []


def test_sql_is_spoken_in_the_outbox_only(package: Tree) -> None:
    assert sql_outside_the_outbox(package) == []


@pytest.mark.parametrize("statement", ["import orchclient", "from orchclient import OrchestratorClient"])
def test_importing_the_client_loads_no_dependency_that_can_wait(statement: str) -> None:
    assert loaded_by(statement) & NOT_AT_IMPORT == frozenset()


def test_importing_the_package_loads_nothing_but_the_package() -> None:
    own = {name for name in loaded_by("import orchclient", full=True) if name.startswith(PACKAGE)}
    assert own == {PACKAGE}


def loaded_by(statement: str, *, full: bool = False) -> frozenset[str]:
    """The modules that a statement loads in a fresh interpreter, by their first names unless ``full``."""
    code = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return frozenset(name if full else name.split(".")[0] for name in done.stdout.split())


# --- And breaking them is found -----------------------------------------------------------------------------------

PLANTED = {
    "homeless": ("helpers.py", "VALUE = 1"),
    "upward": ("outbox/gate.py", "from orchclient.delivery.worker import Worker"),
    "upward, inside a function": ("core/backoff.py", "def late():\n    import orchclient.outbox.journal"),
    "upward, for a type only": ("core/ids.py", "if typing.TYPE_CHECKING:\n    from orchclient import client"),
    "upward, relative": ("sinks/sink.py", "from ..delivery import transport"),
    "upward, through the front door": ("delivery/clock.py", "from orchclient import OrchestratorClient"),
    "upward, by a name in a text": ("delivery/clock.py", "import_module('orchclient.station')"),
    "upward, from the facade": ("client.py", "from orchclient.cli import main"),
    "across": ("sinks/sink.py", "from orchclient.outbox import journal"),
    "users_of_testing": ("cli/app.py", "from orchclient.testing.receiver import Receiver"),
    "circle": ("core/timestamps.py", "from orchclient.core import policy"),
    "circle, inside a function": ("core/timestamps.py", "def late():\n    from orchclient.core import policy"),
    "impure": ("core/envelope.py", "import time"),
    "impure, a part of a module": ("core/envelope.py", "from os.path import join"),
    "hasty": ("__init__.py", "from orchclient.client import OrchestratorClient"),
    "sql_outside_the_outbox, a statement": (
        "reporting.py",
        "QUERY = '''\n  INSERT OR REPLACE INTO events VALUES (1)'''",
    ),
    "sql_outside_the_outbox, a call": ("station.py", "def late(con):\n    con.execute(QUERY)"),
    "sql_outside_the_outbox, a connection": ("client.py", "con = sqlite3.connect('x')"),
    "sql_outside_the_outbox, imported": ("task.py", "from sqlite3 import connect"),
    "sql_outside_the_outbox, renamed": ("task.py", "import sqlite3 as store"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_breach_is_found_by_its_rule(package: Tree, planted: str) -> None:
    file, code = PLANTED[planted]
    rule = next(rule for rule in RULES if rule.__name__ == planted.split(",")[0])
    name = _module(ROOT, ROOT / file).name if (ROOT / file).exists() else f"{PACKAGE}.{file.removesuffix('.py')}"
    assert new_findings(package, planted_in(package, name, code), rule)


def test_imports_for_types_only_make_no_circle(package: Tree) -> None:
    code = "if TYPE_CHECKING:\n    from orchclient.core import policy"
    assert not new_findings(package, planted_in(package, f"{PACKAGE}.core.timestamps", code), circle)


def planted_in(tree: Tree, name: str, code: str) -> Tree:
    """The package with code added at the end of one module; nothing on the disk is touched."""
    before = tree.modules.get(name, Module(name, False, ast.Module([], [])))
    body = [*before.tree.body, *ast.parse(code).body]
    return Tree({**tree.modules, name: Module(name, before.is_package, ast.Module(body, []))})


def new_findings(before: Tree, after: Tree, rule: object) -> set[str]:
    assert callable(rule)
    return set(rule(after)) - set(rule(before))
