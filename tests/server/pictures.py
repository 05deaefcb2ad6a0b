"""Makes the pictures in docs/images: ``python -m tests.server.pictures``. Look at them before you keep them."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from orchclient import OrchestratorClient
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.serving import Listening, Server
from orchclient.testing import ManualClock, Receiver
from tests.cli.inside import Inside
from tests.server.chromium import chromium, missing
from tests.server.scenes import working_day

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZES = ((1280, 760), (390, 780))
MOST_BYTES = 100_000


def main() -> None:
    """Three pages, light and dark, wide and on a phone; a report."""
    if missing():
        sys.exit(missing())
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        orchestrator = Orchestrator.open(f"{directory}/orchestrator.db")
        question = working_day(orchestrator)["question"]
        server = Server(orchestrator, Listening(port=0))
        running = threading.Thread(target=server.run)
        running.start()
        try:
            shoot(
                server.url,
                {"needs-you": "/", "question": f"/q/{question['id']}", "task": f"/task?id={question['subject']}"},
            )
        finally:
            server.stop()
            running.join()
            orchestrator.close()
        shoot_report(Path(directory))


def shoot(url: str, pages: dict[str, str]) -> None:
    """A picture of each page in each look."""
    with chromium() as browser:
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                for name, path in pages.items():
                    tab.goto(url + path)
                    tab.locator("#live[data-is=live]").wait_for()
                    target = IMAGES / f"{name}-{width}-{scheme}.png"
                    tab.screenshot(path=target)
                    assert target.stat().st_size < MOST_BYTES, target
                    print(target.relative_to(IMAGES.parents[1]), target.stat().st_size)


def shoot_report(directory: Path) -> None:
    """The beginning of the page that ``orchclient report`` writes of a morning's work."""
    outbox, page, clock = directory / "outbox.db", directory / "report.html", ManualClock()
    with Receiver() as receiver:
        client = OrchestratorClient("backend-7", outbox=outbox, url=receiver.url, clock=clock, background=False)
        with client.task("add-users-endpoint") as task:
            for percent, step in ((5, "Reading the repository"), (20, "Generating the routes"), (45, "Writing models")):
                task.progress(percent, step)
                clock.advance("9m")
            question = task.ask(
                "How do callers of the API log in?",
                options=["Session cookie", "JWT in the Authorization header"],
                recommended="JWT in the Authorization header",
            )
            client.flush(10)
            clock.advance("14m")
            receiver.answer(question, "JWT in the Authorization header", by={"kind": "human", "id": "ada"})
            question.wait(10)
            task.progress(70, "Writing migrations")
            clock.advance("12m")
            trouble = task.escalate("database_connection", "no route to db-1", fatal=False, dedup_key="db-1")
            clock.advance("6m")
            trouble.resolve("the cable was out")
            task.progress(85, "Running the tests")
            clock.advance("8m")
            task.complete("https://github.com/example/shop/pull/318", {"tests_passed": 23, "tests_failed": 1})
        client.flush(10)
        client.close()
    assert Inside(outbox)("report", "add-users-endpoint", "-o", str(page)).code == 0
    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1000, "height": 670})
        tab.goto(page.as_uri())
        target = IMAGES / "report-light.png"
        tab.screenshot(path=target)
        assert target.stat().st_size < MOST_BYTES, target


if __name__ == "__main__":
    main()
