"""An agent that is careless with secrets: puts them wherever an agent can, fails in every way, and shows everything.

Run as a program by ``test_secrets``: one JSON document on stdin says where things are, the canaries, and which bug to
plant. Prints what orchclient's objects show, a line ``READY``, and after a line on stdin what its errors show.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from traceback import StackSummary, TracebackException
from typing import Any

from orchclient import InvalidEvent, OrchClientError, OrchestratorClient, config
from orchclient.core import policy
from orchclient.core.redaction import Redactor
from orchclient.core.secret import Secret
from orchclient.delivery import courier
from orchclient.recorder import Recorder
from orchclient.sinks.orchestrator import OrchestratorSink

Canaries = dict[str, str]

FLUSHES = 7


class Tokens:
    """A callable token that is another one at every second request, and refuses now and then."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._asked = 0

    def __call__(self) -> str:
        self._asked += 1
        text = self._texts[self._asked // 2 % len(self._texts)]
        if self._asked == 4:
            raise PermissionError(f"the vault does not know {text}")
        return text


def main() -> None:
    """Be careless, show everything, wait for the line to end; then end, and show what is left."""
    told: dict[str, Any] = json.loads(sys.stdin.readline())
    canaries: Canaries = told["canaries"]
    logging.basicConfig(filename=told["log"], level=logging.DEBUG, format="%(name)s %(message)s")
    plant(told["plant"])
    client = OrchestratorClient("careless", **keywords(told, canaries))
    handles = list(carelessly(client, canaries | {"next token": "nobody has it yet"}))
    reports = [client.flush(3) for _ in range(FLUSHES)]
    handles += list(carelessly(client, canaries))
    for each in (client, *handles, *reports, client.health(), client.get_communication_stats(), *inner(client)):
        show(each)
    print("READY", flush=True)
    sys.stdin.readline()
    with suppress(RuntimeError), client.task("t"):
        client.close(0)
        raise RuntimeError(f"escaped with {canaries['token']} when nothing can be recorded any more")
    for fail in failures(client, told["directory"], canaries):
        show_failure(fail)


def keywords(told: dict[str, Any], canaries: Canaries) -> dict[str, Any]:
    """How the client is made; a token of the environment or of a file is set by whoever started this program."""
    given: dict[str, Any] = {"outbox": told["outbox"], "request_timeout": 0.4, "shutdown_timeout": 0.2}
    if told["way"] == "keyword":
        given["token"] = canaries["token"]
    if told["way"] == "callable":
        given["token"] = Tokens([canaries["token"], canaries["next token"]])
    return given


def carelessly(client: OrchestratorClient, canaries: Canaries) -> Iterator[object]:
    """Every verb with a secret in every place; the receipts and handles that come back."""
    token, url = canaries["token"], f"https://me:{canaries['url']}@git.example/pull/1"
    header = f"Authorization: Bearer {canaries['header']}"
    hooks = [f"https://discord.com/api/webhooks/123456789012345678/{canaries['webhook']}", url]
    metadata = {
        "password": canaries["key"],
        token: f"as a key, and {token}",
        "curl": [{"-H": header}, {"hooks": hooks}],
    }
    yield client.update_task_status("t1", "in_progress", metadata, 10, f"calling with {token}")
    yield client.update_task_status("t1", "testing", {"others": [canaries["proxy"], canaries["next token"]]})
    yield client.request_clarification(
        "t1", [f"Is {token} right?"], "high", metadata, options=[f"take {token}", header], default=token, key=token
    )
    results = {"tests_passed": 1, "log": header, "env": {"API_KEY": canaries["key"]}}
    yield client.report_completion("t1", url, results, {"files": hooks, "notes": f"{token}\n{token}"})
    yield client.escalate_error("t2", token, f"{token} at {url}", 1, metadata, dedup_key=token, traceback=header)
    # Wherever a text is cut, it is cut in the middle of a token.
    long = f"{token} " * 9_000
    yield client.escalate_error("t2", "long", f"ab{long}", 1, traceback="")
    for shift in range(0, len(token), 4):
        with suppress(RuntimeError), client.task("t3") as task:
            task.recovery_attempted(ValueError(token), f"tried {token}")
            escape("x" * shift + long[:20_000], url)
    yield client.task("t3")


def escape(text: str, url: str) -> None:
    """Raise an exception that quotes secrets, from another that does so too."""
    try:
        raise KeyError(url)
    except KeyError as error:
        raise RuntimeError(text) from error


def inner(client: OrchestratorClient) -> list[object]:
    """What stands behind the public objects."""
    station: Any = client._station
    runners = list(station._flusher._runners)
    return [client._settings, client._recorder, station, *runners, *(runner.sink for runner in runners)]


def show(thing: object) -> None:
    """Everything by which an object ends in a log, a cache or an error report."""
    print(repr(thing), str(thing), f"{thing}", f"{thing!s:>3}")
    with suppress(TypeError):
        print(vars(thing))
    try:
        print(pickle.dumps(thing, protocol=0))
    except Exception as error:
        print(f"not pickled: {type(error).__name__}: {error}")


def failures(client: OrchestratorClient, directory: str, canaries: Canaries) -> Iterator[Callable[[], object]]:
    """Calls that fail with an error of ours while a secret is near."""
    token, outbox = canaries["token"], f"{directory}/another.db"
    make = OrchestratorClient
    binary = Path(directory) / "binary-token"
    binary.write_bytes(token.encode() + b"\xff")
    toml = Path(directory) / "wrong.toml"
    toml.write_text(f"token = '{token}'\n")
    shared = Path(directory) / "shared-token"
    shared.write_text(token)
    shared.chmod(0o644)
    yield lambda: client.update_task_status("t", "testing")
    yield lambda: make("a", outbox=outbox, token=f"{token} with a space")
    yield lambda: make("a", outbox=outbox, url=f"https://me:{token}@x.example/", token=token)
    yield lambda: make("a", outbox=outbox, url=f"gopher://{token}")
    yield lambda: make("a", outbox=outbox, token=token, token_file="/nowhere")
    yield lambda: make("a", outbox=outbox, token_file=str(binary))
    yield lambda: make("a", outbox=outbox, token_file=str(shared))
    yield lambda: make("a", outbox=outbox, proxy=f"http://me:{token}@[", url="http://127.0.0.1:1")
    yield lambda: make("a", outbox=outbox, token=token, durability="half")
    yield lambda: make("a", outbox=outbox, token=token, tokne=token)
    yield lambda: make("a", outbox="/proc/none/outbox.db", token=token, url="http://127.0.0.1:1")
    yield lambda: make("a", outbox="", token=lambda: token, url="http://127.0.0.1:1")
    yield lambda: make("a", outbox=outbox, token=lambda: refuse(token), url="http://127.0.0.1:1")
    yield lambda: make("a", outbox=outbox, token=lambda: f"{token} x", url="http://127.0.0.1:1")
    yield lambda: config.load({"ORCHCLIENT_TOKEN": token, "ORCHCLIENT_MODE": "x"})
    yield lambda: config.load({"ORCHCLIENT_TOKEN": token, "ORCHCLIENT_CONFIG": str(toml)})
    yield lambda: checked_progress(token)
    yield lambda: in_task_id(outbox, token)
    yield lambda: in_agent_id(outbox, token)


def refuse(token: str) -> str:
    """A vault that quotes what it was asked for."""
    raise PermissionError(f"{token} is not known")


def checked_progress(token: str) -> None:
    """Text where a number belongs: the error must not repeat it."""
    with OrchestratorClient("a", outbox=config.load().db, mode="disabled") as client:
        given: Any = token
        try:
            client.update_task_status("t", "testing", None, given)
        except InvalidEvent as error:
            raise error.with_traceback(None) from None


def in_task_id(outbox: str, token: str) -> None:
    """An id that quotes the token: the arguments of the call are the agent's, so only the words are looked at."""
    with OrchestratorClient("a", outbox=outbox, token=token, mode="offline") as client:
        try:
            client.update_task_status(f"task-{token}", "testing")
        except InvalidEvent as error:
            raise error.with_traceback(None) from None


def in_agent_id(outbox: str, token: str) -> None:
    """As in the id of a task."""
    try:
        OrchestratorClient(f"agent-{token}", outbox=outbox, token=token, mode="offline")
    except OrchClientError as error:
        raise error.with_traceback(None) from None


def show_failure(fail: Callable[[], object]) -> None:
    """Print an error with the locals of every frame that is ours, and those of its causes."""
    try:
        fail()
    except OrchClientError as error:
        print(repr(error), str(error), error.args, vars(error), pickle.dumps(error, protocol=0))
        print("".join(foreign(TracebackException.from_exception(error, capture_locals=True)).format()))
    else:
        raise AssertionError("nothing was raised")


def foreign(shown: TracebackException) -> TracebackException:
    """Without the frames of this program, which holds the secrets and may show them."""
    shown.stack = StackSummary.from_list([frame for frame in shown.stack if frame.filename != __file__])
    for cause in (shown.__cause__, shown.__context__):
        if cause is not None:
            foreign(cause)
    return shown


# --- Planted bugs: the search must find each -------------------------------------------------------------------------


def plant(bug: str) -> None:
    """Make orchclient leak in one way."""
    if bug:
        BUGS[bug]()


def _log_headers() -> None:
    honest = OrchestratorSink._headers

    def chatty(sink: OrchestratorSink) -> dict[str, str]:
        headers = honest(sink)
        logging.getLogger("orchclient").debug("sending %s", headers)
        return headers

    OrchestratorSink._headers = chatty  # type: ignore[method-assign]


def _suspect_nothing() -> None:
    Redactor.suspects = lambda _self, _text: False  # type: ignore[method-assign]


def _cut_first() -> None:
    Recorder.clean_text = lambda _self, text: text  # type: ignore[method-assign]


def _store_answers() -> None:
    policy._said = lambda parts, _redact: ": ".join(map(str, parts))
    courier.without_secrets = lambda verdict, _redact: verdict


def _show_secrets() -> None:
    Secret.__repr__ = Secret.reveal  # type: ignore[method-assign]


def _raise_with_all_frames() -> None:
    def load(environ: Any = None, config_file: str | None = None, **given: Any) -> config.Settings:
        return config._loaded(os.environ if environ is None else environ, config_file, given)

    config.load = load


BUGS: dict[str, Callable[[], None]] = {
    "a sink that logs its headers": _log_headers,
    "a redactor that suspects nothing": _suspect_nothing,
    "a text that is cut before its secrets are taken out": _cut_first,
    "an answer that is stored as it came": _store_answers,
    "a secret that shows in its repr": _show_secrets,
    "settings that raise with all their frames": _raise_with_all_frames,
}

if __name__ == "__main__":
    main()
