"""The page of ``orchclient report``, opened from disk in a browser: light and dark, wide and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchclient.testing import Receiver
from tests.cli.inside import Inside
from tests.conftest import MakeClient
from tests.server.chromium import chromium, missing

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")]

LOOKS: list[dict[str, Any]] = [
    {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    {"color_scheme": "dark", "viewport": {"width": 390, "height": 800}},
    {"color_scheme": "light", "viewport": {"width": 320, "height": 700}},
]
LEAST_PX = 11


@pytest.fixture
def page(make_client: MakeClient, receiver: Receiver, outbox_path: Path, tmp_path: Path) -> Path:
    """A task with everything: progress, a question answered and one that is open, an error, attempts, a result."""
    client = make_client(url=receiver.url, background=False)
    with client.task("build-42") as task:
        task.progress(10, "Reading " + "x" * 120)
        question = task.ask("Which port?", options=["80", "8080"], recommended="8080")
        task.ask("Which name?")
        assert client.flush(10)
        receiver.answer(question, "8080")
        assert question.wait(10)
        task.escalate("network", "no route", fatal=False)
        task.complete("https://example.com/pull/1", {"tests_passed": 3}, review=True)
    assert client.flush(10)
    path = tmp_path / "page.html"
    assert Inside(outbox_path)("report", "build-42", "-o", str(path)).code == 0
    return path


def test_it_keeps_the_rules_of_accessibility_and_fits_and_can_be_read(page: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    trouble = []
    with chromium() as browser:
        for look in LOOKS:
            tab = browser.new_page(**look)
            asked: list[str] = []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.goto(page.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
            trouble += [each["id"] for each in Axe().run(tab).response["violations"]]
            trouble += ["too wide"] * tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            heights = tab.evaluate(
                "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height)"
            )
            trouble += [f"{height} px" for height in heights if height < LEAST_PX]
            frame, *texts = tab.evaluate(
                "[...document.querySelectorAll('svg, svg text')].map(each => each.getBoundingClientRect().x)"
            )
            trouble += ["cut off"] * any(x < frame for x in texts)
            assert asked == [page.as_uri()]
    assert trouble == []
