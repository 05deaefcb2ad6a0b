"""The pytest plugin: an agent is tested without a network, and what it says is recorded and compared.

Loaded at every start of pytest where orchclient is installed, so it imports nothing but pytest; each fixture imports
what it needs. No fixture is automatic, and nothing is patched for tests that use none. Off: ``-p no:orchclient``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from orchclient import OrchestratorClient
    from orchclient.testing.clock import ManualClock
    from orchclient.testing.receiver import Receiver
    from orchclient.testing.recorded import Recorded
    from orchclient.testing.replay import Replay

MODES = ("none", "once", "rewrite")
FLUSH_S = 5.0
LONGEST = 150


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("orchclient", "recordings of what agents say")
    group.addoption(
        "--orch-record",
        choices=MODES,
        default="none",
        help="none (default): compare, and fail when a recording is missing; once: write what is missing; "
        "rewrite: write all anew",
    )
    group.addoption(
        "--orch-recordings",
        metavar="DIR",
        default=None,
        help="where recordings are (default: recordings/ beside the test)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", "orch_agent(name): the agent id of orch_client (default: agent)")


# --- expectations -------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that ended well fails when a receiver was expected to get what never came."""
    try:
        result = yield
    except BaseException:
        unmet = _unmet(item, deliver=False)
        if unmet:
            item.add_report_section("call", "orchclient", unmet)
        raise
    unmet = _unmet(item, deliver=True)
    if unmet:
        pytest.fail(unmet, pytrace=False)
    return result


def _unmet(item: pytest.Item, *, deliver: bool) -> str:
    """What the receivers among the test's fixtures miss; what the fixtures' client recorded is delivered first."""
    home = sys.modules.get("orchclient.testing.receiver")
    if home is None:  # no fixture made one
        return ""
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    receivers = [each for each in arguments.values() if isinstance(each, home.Receiver)]
    client = arguments.get("orch_client")
    if deliver and client is not None and any(each.expects_something for each in receivers):
        client.flush(FLUSH_S)
    told = [unmet for each in receivers if (unmet := each.unmet(wait=deliver))]
    for each in receivers:
        each.drop_expectations()
    return "\n".join(told)


# --- fixtures -----------------------------------------------------------------------------------------------------


@pytest.fixture
def orch_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty outbox of the test's own, also for clients that the agent makes itself; the path of its file.

    No setting of the person who runs the tests reaches a client, nor one in a process that the test starts: neither
    ``ORCHCLIENT_*`` nor the user's file.
    """
    for name in [name for name in os.environ if name.startswith("ORCHCLIENT_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "orchclient" / "outbox.db"
    monkeypatch.setenv("ORCHCLIENT_DB", str(path))
    monkeypatch.setenv("ORCHCLIENT_CONFIG", os.devnull)
    return path


@pytest.fixture
def orch_clock() -> ManualClock:
    """A clock that the test moves: ``orch_clock.advance("5m")``."""
    from orchclient.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def orch_server(orch_env: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """An orchestrator on loopback, to which every client of the test delivers. What it ``expect``s must come."""
    from orchclient.testing.receiver import Receiver

    with Receiver() as receiver:
        monkeypatch.setenv("ORCHCLIENT_URL", receiver.url)
        yield receiver
        receiver.drop_expectations()


@pytest.fixture
def orch_client(
    request: pytest.FixtureRequest, orch_env: Path, orch_clock: ManualClock
) -> Iterator[OrchestratorClient]:
    """A client on the test's outbox, without threads; ``flush()`` delivers to ``orch_server`` when the test has it.

    Ids and times are the same in every run.
    """
    from orchclient.client import OrchestratorClient

    url = request.getfixturevalue("orch_server").url if "orch_server" in request.fixturenames else None
    client = OrchestratorClient(_agent_of(request), outbox=orch_env, url=url, clock=orch_clock, background=False)
    yield client
    client.close(0)


def _agent_of(request: pytest.FixtureRequest) -> str:
    marker = request.node.get_closest_marker("orch_agent")
    if marker is None:
        return "agent"
    named = [*marker.args, *marker.kwargs.values()]
    if len(named) != 1 or not isinstance(named[0], str):
        pytest.fail('orch_agent takes the name of the agent: @pytest.mark.orch_agent("reviewer")', pytrace=False)
    return named[0]


@pytest.fixture
def orch_outbox(orch_client: OrchestratorClient) -> Recorded:
    """What ``orch_client`` recorded, delivered or not."""
    from orchclient.testing.recorded import Recorded

    return Recorded(orch_client)


@pytest.fixture
def orch_replay(request: pytest.FixtureRequest, orch_env: Path, tmp_path: Path) -> Replay:
    """Recordings: ``with orch_replay():`` compares with the one of this test, ``orch_replay.deliver()`` sends one."""
    from orchclient.testing.replay import Replay

    named = request.config.getoption("--orch-recordings")
    directory = Path(named) if named else request.path.parent / "recordings"
    return Replay(
        directory,
        _recording_name(request),
        mode=request.config.getoption("--orch-record"),
        client=lambda: request.getfixturevalue("orch_client"),
        names={str(tmp_path): "<tmp>", str(request.config.rootpath): "<root>"},
        workspace=orch_env.parent,
    )


def _recording_name(request: pytest.FixtureRequest) -> str:
    """After the test, its class and its parameters.

    Characters that a file may not have become dashes; where that, or a cut, could make two tests one, a hash follows.
    """
    within = (request.node.nodeid.partition("::")[2] or request.node.name).replace("::", ".")
    shown = within.replace("[", "-", 1)
    shown = f"{shown[:-1]}-" if shown.endswith("]") else shown
    plain = "".join(char if char.isalnum() or char in "-_." else "-" for char in shown)[:LONGEST]
    if plain != shown:
        plain += f"-{sha256(within.encode()).hexdigest()[:8]}"
    return f"{_home(request)}/{plain}.jsonl"


def _home(request: pytest.FixtureRequest) -> str:
    """The file of the test; with one directory for all of them, as seen from where pytest runs."""
    path, root = request.path.with_suffix(""), request.config.rootpath
    if request.config.getoption("--orch-recordings") and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path.name
