"""Debian's Chromium by Playwright: the flags it needs here, and why it is not there when it is not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 30_000


def missing() -> str:
    """Why there can be no browser; empty when there can be one."""
    try:
        import axe_playwright_python
        import playwright  # noqa: F401
    except ModuleNotFoundError as error:
        return f"no {error.name}: pip install the dependency group browser of pyproject.toml"
    assert axe_playwright_python
    return "" if _program() else "no Chromium on this machine: install the package chromium"


def _program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
