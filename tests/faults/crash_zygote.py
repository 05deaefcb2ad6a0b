"""A zygote: a process without threads that has imported everything once and forks children on request.

A child costs milliseconds in place of an interpreter. It speaks in lines through a pipe of its own, which ends when the
child does, however it does. Knows processes and pipes, nothing of outboxes.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec

from attrs import frozen

P = ParamSpec("P")

REPOSITORY = Path(__file__).resolve().parents[2]
LARGEST_REQUEST = 1 << 16
NEWLINE, LINE_BREAK = "\n", "\x1e"
STACKS = signal.SIGUSR1
TOO_LONG_S = 30.0  # no wait of these harnesses is that long unless something hangs


@frozen
class Line:
    """One thing that a child said."""

    kind: str
    text: str


class Voice:
    """How a child speaks to its parent. Threads may share it: a line of less than 4 KiB is written in one piece."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def say(self, kind: str, text: str = "") -> None:
        """One line, out of this process's hands when the call returns."""
        data = f"{kind} {text.replace(NEWLINE, LINE_BREAK)}\n".encode()
        while data:
            data = data[os.write(self.pipe, data) :]

    def stay(self) -> None:
        """Wait to be killed; returns only when the parent is gone."""
        poll = select.poll()
        poll.register(self.pipe, 0)  # an error shows when nobody reads any more
        poll.poll()


class Child:
    """A child as its parent sees it: what it said, and whether it is gone."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self.said: list[Line] = []
        self.is_gone = False
        self._pipe = pipe
        self._rest = b""

    def fileno(self) -> int:
        return self._pipe

    def texts(self, kind: str) -> list[str]:
        """Everything of one kind that it said."""
        return [line.text for line in self.said if line.kind == kind]

    def listen(self) -> None:
        """Take in what it says next. Half a line is nothing: the child died while it spoke."""
        data = os.read(self._pipe, 1 << 20)
        if not data:
            os.close(self._pipe)
            self.is_gone = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.said += [Line(*line.decode().replace(LINE_BREAK, NEWLINE).partition(" ")[::2]) for line in lines]

    def stacks(self) -> str:
        """Where its threads are, for a message about a hang."""
        known = len(self.said)
        os.kill(self.pid, STACKS)
        hear([self], lambda: False, 0.5)
        return "\n".join(f"{line.kind} {line.text}" for line in self.said[known:])

    def kill(self) -> bool:
        """SIGKILL; false when it was gone before. Its number cannot be another process's: only ``fork`` reaps."""
        if self.is_gone:
            return False
        os.kill(self.pid, signal.SIGKILL)
        return True


def hear(children: Sequence[Child], until: Callable[[], bool], timeout_s: float = TOO_LONG_S) -> bool:
    """Take in what these say until something holds; false when the time is up, or all are gone, before."""
    due = time.monotonic() + timeout_s
    while not until():
        alive = [child for child in children if not child.is_gone]
        left_s = due - time.monotonic()
        if not alive or left_s <= 0:
            return False
        speaking = select.poll()  # not select.select: its descriptors end at 1023
        by_descriptor = {child.fileno(): child for child in alive}
        for descriptor in by_descriptor:
            speaking.register(descriptor, select.POLLIN)
        for descriptor, _ in speaking.poll(left_s * 1000):
            by_descriptor[descriptor].listen()
    return True


class Zygote:
    """Forks children that run functions of importable modules; ``preload`` names what they need."""

    def __init__(self, *preload: str) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._home = tempfile.TemporaryDirectory(prefix="zygote")
        with theirs:
            program = f"from {__name__} import serve; serve({theirs.fileno()}, {preload!r})"
            self._process = subprocess.Popen(
                [sys.executable, "-c", program], cwd=REPOSITORY, env=self._environment(), pass_fds=[theirs.fileno()]
            )

    def _environment(self) -> dict[str, str]:
        """Without any setting of the person who runs the tests."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHCLIENT_")}
        return kept | dict.fromkeys(("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"), self._home.name)

    def fork(self, role: Callable[Concatenate[Voice, P], None], *args: P.args, **kwargs: P.kwargs) -> Child:
        """A child that runs ``role(voice, ...)`` and ends."""
        reading, writing = os.pipe()
        try:
            socket.send_fds(self._line, [pickle.dumps((role, args, kwargs))], [writing])
        finally:
            os.close(writing)
        answer = self._line.recv(LARGEST_REQUEST)
        assert answer, "the zygote died; its last words are on stderr"
        return Child(int(answer), reading)

    def close(self) -> None:
        """End the zygote; a child that lives finds out when it speaks or stays."""
        self._line.close()
        self._process.wait(TOO_LONG_S)
        self._home.cleanup()


def serve(line_fd: int, preload: Sequence[str]) -> None:
    """The zygote's life: until its parent hangs up."""
    for module in preload:
        import_module(module)
    with socket.socket(fileno=line_fd) as line:
        while True:
            request, pipes, *_ = socket.recv_fds(line, LARGEST_REQUEST, 1)
            if not request:
                return
            _reap()
            # A child forked beside a thread may inherit a lock that nobody will ever release.
            assert threading.active_count() == 1, threading.enumerate()
            pid = os.fork()
            if pid == 0:
                line.close()
                _live(Voice(pipes[0]), request)
            os.close(pipes[0])
            line.send(str(pid).encode())


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _live(voice: Voice, request: bytes) -> NoReturn:
    """A child's life: every way out of the role ends here, and nothing of the zygote's runs at exit."""
    try:
        _confess_to(voice)
        role, args, kwargs = pickle.loads(request)
        role(voice, *args, **kwargs)
    except BaseException:
        with suppress(OSError):
            voice.say("error", traceback.format_exc())
    finally:
        os._exit(0)


def _confess_to(voice: Voice) -> None:
    """What goes wrong in a thread, or is logged as an error, is said and not only written somewhere."""
    faulthandler.register(STACKS, voice.pipe)
    threading.excepthook = lambda args: voice.say("error", f"{args.thread}: {args.exc_type} {args.exc_value!r}")
    logging.getLogger().addHandler(_Telling(voice))


class _Telling(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__(logging.WARNING)
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        with suppress(OSError):
            self._voice.say("log", f"{record.levelname} {text[:4000]}")
