"""Builds the shims with the system's compiler, once per test session, and runs Python programs under them.

A shim stands between a program and the C library (LD_PRELOAD). Where that cannot be, the tests that need one say so
and are skipped. What each does is told at the top of its source in ``shims``.
"""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

SHIMS = Path(__file__).with_name("shims")
REPOSITORY = Path(__file__).parents[2]
SOURCES = {"disk": ("disk.c", "journal.c", "faults.c"), "wallclock": ("wallclock.c",), "modes": ("modes.c",)}
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where scratch files are: in memory if possible, since no test here learns anything from a slow disk."""


def why_not() -> str:
    """Why shims cannot be used here; empty when they can."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return f"the shims are for Linux on x86-64 and aarch64, this is {sys.platform} on {platform.machine()}"
    if platform.libc_ver()[0] != "glibc":
        return "the shims are for glibc"
    return "" if shutil.which("cc") else "no C compiler (cc) to build the shims with"


needs_shims = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@cache
def library(name: str) -> Path:
    """The shared library of a shim, built now if this session has not built it yet."""
    directory = Path(tempfile.mkdtemp(prefix="orchclient-shims-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    built = directory / f"{name}.so"
    sources = [str(SHIMS / source) for source in SOURCES[name]]
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(built), *sources]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def command(module: str, *arguments: object) -> list[str]:
    """The command line of a module of these tests."""
    return [sys.executable, "-m", f"tests.faults.{module}", *map(str, arguments)]


def environment(shim: str, settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a program under a shim, without any setting of the person who runs the tests."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ORCHCLIENT_")}
    return clean | {"LD_PRELOAD": str(library(shim))} | {name: str(value) for name, value in settings.items()}
