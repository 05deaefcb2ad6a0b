"""Completion in the shells themselves: the script is loaded there, words are typed, and the shell makes the word."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.inside import Inside

TYPED = {
    "orchclient stat": "status",
    "orchclient -q flu": "flush",
    "orchclient update t tes": "testing",
    "orchclient list --task bui": "build-42",
    "orchclient flush --to orc": "orchestrator",
    "orchclient config ini": "init",
    "orchclient flush --tim": "--timeout",
}
"""What is typed before a TAB, and the word that every shell makes of the last one."""

UNTIL_S = 20.0


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def environment(outbox_path: Path) -> dict[str, str]:
    """A shell's, with the command on its path and an outbox that knows a task and a destination."""
    Inside(outbox_path, "http://127.0.0.1:1")("update", "build-42", "--flush=0")
    programs = outbox_path.parent / "bin"
    programs.mkdir()
    program = programs / "orchclient"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchclient "$@"\n')
    program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    own = {"PATH": path, "ORCHCLIENT_DB": str(outbox_path), "HOME": str(outbox_path.parent), "TERM": "dumb"}
    return {**os.environ, **own, "PYTHONPATH": ":".join(sys.path)}


def printed(shell: list[str], environment: dict[str, str]) -> list[str]:
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout.splitlines()


@needs("bash")
def test_bash_completes(environment: dict[str, str]) -> None:
    words = "\n".join(
        f"COMP_WORDS=({typed}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()\n"
        '_orchclient_completion orchclient; echo "${COMPREPLY[@]}"'
        for typed in TYPED
    )
    lines = printed(["bash", "-c", f'eval "$(orchclient completion bash)"\n{words}'], environment)
    assert lines == list(TYPED.values())


@needs("fish")
def test_fish_completes(environment: dict[str, str]) -> None:
    words = "\n".join(f'complete -C "{typed}"' for typed in TYPED)
    lines = printed(["fish", "-c", f"orchclient completion fish | source\n{words}"], environment)
    assert [line.split("\t")[0] for line in lines] == list(TYPED.values())


@needs("zsh")
def test_zsh_completes(environment: dict[str, str]) -> None:
    terminal, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i", "+m"], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    setup = 'autoload -U compinit; compinit -u -D; eval "$(orchclient completion zsh)"; PS1=; echo rea""dy\n'
    try:
        os.write(terminal, setup.encode())
        assert "ready" in heard(terminal, "ready")
        for typed, completed in TYPED.items():
            os.write(terminal, f"{typed}\t".encode())
            assert completed in heard(terminal, completed)
            os.write(terminal, b"\x15")  # the line is taken back
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def heard(terminal: int, word: str) -> str:
    """What comes from a terminal until a word is there."""
    text, due = "", time.monotonic() + UNTIL_S
    while word not in text and time.monotonic() < due:
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65_536).decode(errors="replace")
    return text
