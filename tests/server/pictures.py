"""Makes the pictures in docs/images: ``python -m tests.server.pictures``. Look at them before you keep them."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

from orchclient.server.orchestrator import Orchestrator
from orchclient.server.serving import Listening, Server
from tests.server.chromium import chromium, missing
from tests.server.scenes import working_day

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SIZES = ((1280, 760), (390, 780))
MOST_BYTES = 100_000


def main() -> None:
    """Three pages, light and dark, wide and on a phone."""
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


if __name__ == "__main__":
    main()
