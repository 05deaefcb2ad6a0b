"""The life of a client in a process: when it starts, what an end costs, and the servers that agents live in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.testing import Fault, Receiver
from tests.faults.program import REPOSITORY
from tests.stopwatch import Stopwatch

QUICK_S = 60
EXIT_S = 2.0
TEARDOWN_S = 3.0
"""For the interpreter, on a machine that has other things to do; what must not be waited for takes a minute."""


def needs(module: str) -> pytest.MarkDecorator:
    reason = f"{module} is not installed (dependency group lifecycle of pyproject.toml)"
    return pytest.mark.skipif(find_spec(module) is None, reason=reason)


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, of which nothing outlives the test."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a program printed, which ended with this code and said nothing on stderr."""
    out, errors = process.communicate(timeout=QUICK_S)
    assert (process.returncode, errors) == (code, "")
    return out


def told(script: str, *arguments: object) -> Any:
    """The JSON that a script printed; it ended well and printed nothing else."""
    with running("-c", PREAMBLE + script, *map(str, arguments)) as process:
        return json.loads(ended(process))


def recorded_in(path: Path) -> int:
    with OrchestratorClient("judge", outbox=path, mode="offline") as judge:
        return judge.health().recorded


PREAMBLE = """
import atexit, json, logging, os, signal, sys, threading, time, warnings
path, url = sys.argv[1:3]
def threads():
    return sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
"""

# --- Beginning ------------------------------------------------------------------------------------------------------


def test_nothing_starts_before_the_first_record(outbox_path: Path, receiver: Receiver) -> None:
    script = """
import orchclient
seen = {"import": threads(), "requests at import": "requests" in sys.modules}
client = orchclient.OrchestratorClient("agent", outbox=path, url=url)
seen["construction"] = threads()
client.health(), client.get_communication_stats(), client.task_state("task"), repr(client)
seen["look"] = threads()
try:
    client.update_task_status("", "testing")
except orchclient.InvalidEvent:
    seen["refused"] = threads()
client.update_task_status("task", "testing")
started = threads()
client.close()
seen["closed"] = [name for name in threads() if name.startswith("orchclient-")]
print(json.dumps([seen, started]))
"""
    seen, started = told(script, outbox_path, receiver.url)
    assert seen == {"import": [], "requests at import": False, **{at: [] for at in seen if "import" not in at}}
    assert set(seen) >= {"construction", "look", "refused", "closed"}
    assert {"orchclient-orchestrator", "orchclient-housekeeper"} <= set(started)


@pytest.mark.parametrize("mode", ["disabled", "background=False"])
def test_a_client_that_is_to_have_no_threads_has_none(mode: str, outbox_path: Path, receiver: Receiver) -> None:
    setting = {"disabled": "mode='disabled'"}.get(mode, mode)
    script = f"""
from orchclient import OrchestratorClient
client = OrchestratorClient("agent", outbox=path, url=url, {setting})
client.update_task_status("task", "testing")
print(json.dumps(threads()))
"""
    assert told(script, outbox_path, receiver.url) == []


@pytest.mark.parametrize(("planted", "found"), [("", []), ("signal.signal(signal.SIGTERM, print)", ["signals"])])
def test_a_client_changes_nothing_of_the_process_it_lives_in(
    planted: str, found: list[str], outbox_path: Path, receiver: Receiver
) -> None:
    script = """
import socket
import requests  # which adds warning filters of its own
def state():
    umask = os.umask(0)
    os.umask(umask)
    handlers = {name.name: repr(signal.getsignal(name)) for name in signal.valid_signals() if hasattr(name, "name")}
    log = logging.getLogger("orchclient")
    return {
        "signals": handlers, "umask": umask, "directory": os.getcwd(), "timeout": socket.getdefaulttimeout(),
        "hooks": [repr(hook) for hook in (sys.excepthook, threading.excepthook, sys.unraisablehook, sys.settrace)],
        "root handlers": len(logging.root.handlers), "level": log.level, "warnings": len(warnings.filters),
        "environment": dict(os.environ), "path": sys.path, "switch": sys.getswitchinterval(),
        "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))), "wakeup": signal.set_wakeup_fd(-1),
    }
before = state()
from orchclient import OrchestratorClient
states = []
with OrchestratorClient("agent", outbox=path, url=url) as client:
    states.append(state())
    client.update_task_status("task", "completed")
    assert client.flush(30)
    states.append(state())
exec(sys.argv[3])
states.append(state())
print(json.dumps([[key for key in before if state[key] != before[key]] for state in states]))
"""
    assert told(script, outbox_path, receiver.url, planted) == [[], [], found]


# --- End ------------------------------------------------------------------------------------------------------------

AN_END = """
from orchclient import OrchestratorClient
client = OrchestratorClient("agent", outbox=path, url=url, request_timeout=60, {settings})
client.update_task_status("task", "testing")
{before}
print(json.dumps(time.monotonic()), flush=True)
{ending}
"""
ENDS = {"return": ("", 0), "sys.exit": ("sys.exit(3)", 3), "close": ("client.close()", 0)}


def seconds_of_the_end(script: str, code: int, *arguments: object) -> float:
    """From the moment that the script printed until its process is gone; it printed nothing else."""
    with running("-c", PREAMBLE + script, *map(str, arguments)) as process:
        with Stopwatch() as watch:
            out = ended(process, code)
        return time.monotonic() - float(json.loads(out)) - watch.late_s


@pytest.mark.parametrize("end", ENDS)
def test_an_end_waits_two_seconds_at_most_for_a_receiver_that_hangs(
    end: str, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.always(Fault.hang())
    ending, code = ENDS[end]
    script = AN_END.format(settings="", before="", ending=ending)
    assert seconds_of_the_end(script, code, outbox_path, receiver.url) < EXIT_S + TEARDOWN_S
    assert recorded_in(outbox_path) == 1


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("trouble", ["down", "refuse", "throttle"])
def test_an_end_waits_for_no_receiver_that_is_known_to_be_in_trouble(
    end: str, trouble: str, outbox_path: Path, receiver: Receiver
) -> None:
    if trouble == "down":
        receiver.stop()
    receiver.always(Fault.status(401) if trouble == "refuse" else Fault.status(503, retry_after="3000"))
    ending, code = ENDS[end]
    script = AN_END.format(settings="shutdown_timeout=60", before="client.flush(30)", ending=ending)
    assert seconds_of_the_end(script, code, outbox_path, receiver.url) < TEARDOWN_S
    assert recorded_in(outbox_path) == 1


def test_an_end_that_waits_is_measured(outbox_path: Path, receiver: Receiver) -> None:
    """The control of the two above: with the waits taken away from them, they would see it."""
    receiver.always(Fault.hang())
    script = AN_END.format(settings=f"shutdown_timeout={EXIT_S + TEARDOWN_S + 1}", before="", ending="")
    assert seconds_of_the_end(script, 0, outbox_path, receiver.url) > EXIT_S + TEARDOWN_S


def test_an_interrupt_ends_the_wait_at_the_end_in_silence(outbox_path: Path, receiver: Receiver) -> None:
    receiver.always(Fault.hang())
    script = """
from orchclient import OrchestratorClient
client = OrchestratorClient("agent", outbox=path, url=url, request_timeout=60, shutdown_timeout=60)
client.update_task_status("task", "testing")
station = client._station
wait = station._wait
station._wait = lambda *arguments: (print("waits", flush=True), wait(*arguments))
"""
    with running("-c", PREAMBLE + script, str(outbox_path), receiver.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        with Stopwatch() as took:
            process.send_signal(signal.SIGINT)
            assert ended(process) == ""
        assert took.s < TEARDOWN_S
    assert recorded_in(outbox_path) == 1


@pytest.mark.parametrize("registered", ["before the import", "before the record", "after the record"])
def test_an_exit_handler_records_whenever_it_was_registered(
    registered: str, outbox_path: Path, receiver: Receiver
) -> None:
    script = """
def handler():
    print(json.dumps(client.update_task_status("late", "completed").event_id))
at = sys.argv[3]
if at == "before the import":
    atexit.register(handler)
from orchclient import OrchestratorClient
client = OrchestratorClient("agent", outbox=path, url=url)
if at == "before the record":
    atexit.register(handler)
client.update_task_status("task", "completed")
if at == "after the record":
    atexit.register(handler)
"""
    late = told(script, outbox_path, receiver.url, registered)
    with OrchestratorClient("next", outbox=outbox_path, url=receiver.url) as client:
        assert client.flush(30).pending == 0
    assert [event["id"] for event in receiver.by_task()["late"]] == [late]
    assert recorded_in(outbox_path) == 2


# --- Servers --------------------------------------------------------------------------------------------------------


def deliver_the_rest(path: Path, receiver: Receiver) -> list[str]:
    """What a worker could not deliver before its end, the next process does. The ids that the receiver has."""
    with OrchestratorClient("next", outbox=path, url=receiver.url) as client:
        assert client.flush(30).pending == 0
        sink = client.health().sinks[0]
        assert (client.health().recorded, sink.dead) == (sink.delivered, 0)
    return [event["id"] for event in receiver.events]


def heard(process: subprocess.Popen[str], pattern: str) -> str:
    """What a server says on stderr up to and with a line of this pattern; the first group of it."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError("".join(said))


def asked(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=QUICK_S) as reply:
        return dict(json.loads(reply.read()))


@needs("gunicorn")
@pytest.mark.parametrize("network", ["up", "down"])
def test_workers_of_gunicorn_record_and_deliver_with_a_client_that_their_master_made(
    network: str, outbox_path: Path, receiver: Receiver
) -> None:
    if network == "down":
        receiver.stop()
    command = ["-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "tests.faults.lives.web:app"]
    environment = {"LIFE_OUTBOX": str(outbox_path), "LIFE_URL": receiver.url}
    with running(*command, **environment) as server:
        url = heard(server, r"Listening at: (http://[0-9.:]+)")
        answers: list[dict[str, Any]] = []
        while len(answers) < 40 or len({each["pid"] for each in answers}) < 2:
            answers.append(asked(f"{url}/step-{len(answers)}"))
        assert all("orchclient-orchestrator" in each["threads"] for each in answers)
        first_workers = {each["pid"] for each in answers}
        os.kill(answers[-1]["pid"], signal.SIGKILL)
        while answers[-1]["pid"] in first_workers:  # until the one answers that the master forks in its place
            with suppress(OSError):  # of the one that was killed
                answers.append(asked(f"{url}/step-{len(answers)}"))
        acknowledged = {each["id"] for each in answers}
        if network == "up":
            assert receiver.wait_for(lambda r: acknowledged < {event["id"] for event in r.events}, QUICK_S)
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=QUICK_S)
        assert (server.returncode, "Traceback" in said) == (0, False), said
    receiver.start()
    arrived = deliver_the_rest(outbox_path, receiver)
    assert acknowledged < set(arrived)
    assert len(receiver.by_task()["master"]) == 1
    assert len(arrived) == len(set(arrived)) == recorded_in(outbox_path)


def has_completed(count: int) -> Callable[[Receiver], bool]:
    """Whether so many tasks were handed in."""
    return lambda receiver: sum(event["type"].endswith("completed.v1") for event in receiver.events) == count


@needs("celery")
@pytest.mark.parametrize("records_first", ["", "yes"])
def test_workers_of_celery_s_prefork_pool_record_and_deliver(
    records_first: str, outbox_path: Path, receiver: Receiver, tmp_path: Path
) -> None:
    broker = tmp_path / "broker"
    broker.mkdir()
    (tmp_path / "broker-control").mkdir()
    environment = {
        "LIFE_OUTBOX": str(outbox_path),
        "LIFE_URL": receiver.url,
        "LIFE_BROKER": str(broker),
        "LIFE_RECORDS_FIRST": records_first,
    }
    send = "from tests.faults.lives.queue import work\nfor n in range(12): work.delay(n)"
    without_client = {**environment, "LIFE_OUTBOX": str(tmp_path / "sender.db")}
    with running("-c", send, **{**without_client, "LIFE_RECORDS_FIRST": ""}) as sender:
        ended(sender)
    command = "-m celery -A tests.faults.lives.queue worker --pool prefork --concurrency 2 --loglevel WARNING"
    quiet = "--without-heartbeat --without-gossip --without-mingle"
    with running(*command.split(), *quiet.split(), **environment) as server:
        done = receiver.wait_for(has_completed(12), QUICK_S)
        server.send_signal(signal.SIGTERM)
        _, said = server.communicate(timeout=QUICK_S)
        assert (done, server.returncode, "Traceback" in said) == (True, 0, False), said
    arrived = deliver_the_rest(outbox_path, receiver)
    assert len(arrived) == len(set(arrived)) == 12 * 3 + bool(records_first)
    for events in receiver.by_task().values():
        assert [event["sequence"] for event in events] == sorted(event["sequence"] for event in events)


@needs("gevent")
@pytest.mark.parametrize("network", ["up", "hangs"])
def test_greenlets_record_and_deliver_and_go_on_while_the_receiver_hangs(
    network: str, outbox_path: Path, receiver: Receiver
) -> None:
    if network == "hangs":
        receiver.always(Fault.hang())
    with running("-m", "tests.faults.lives.greenlets", str(outbox_path), receiver.url, network) as agent:
        with Stopwatch() as watch:
            told = json.loads(ended(agent))
        took_s = time.monotonic() - told["ends_at"] - watch.late_s
    assert took_s < EXIT_S + TEARDOWN_S
    assert told["pause_s"] < 3.0  # a blocked loop would stand still for the whole flush, 5 s
    assert (told["delivered_all"], told["child"]) == (network == "up", 0)
    receiver.heal()
    assert set(told["ids"]) <= set(deliver_the_rest(outbox_path, receiver))


@needs("IPython")
def test_cells_of_a_notebook_record_and_deliver_and_print_nothing(outbox_path: Path, receiver: Receiver) -> None:
    with running("-m", "tests.faults.lives.notebook", str(outbox_path), receiver.url) as kernel:
        told = json.loads(ended(kernel))
    assert told["errors"] == ["", "", "", "", "ValueError", "", "KeyboardInterrupt", ""]
    assert (told["pending"], told["stderr"]) == (0, "")
    assert told["shown"].startswith("OrchestratorClient('notebook'")
    assert [event["type"].split(".")[2:4] for event in receiver.by_task()["cell"]][-2:] == [
        ["error", "escalated"],
        ["task", "completed"],
    ]
    assert recorded_in(outbox_path) == len(receiver.events)
