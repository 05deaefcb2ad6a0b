"""A WSGI application whose client is made, and used, before gunicorn forks its workers (``--preload``)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from orchclient import OrchestratorClient

client = OrchestratorClient("web", outbox=os.environ["LIFE_OUTBOX"], url=os.environ["LIFE_URL"])
client.update_task_status("master", "in_progress")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    receipt = client.update_task_status(f"worker-{os.getpid()}", "in_progress", current_step=environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json")])
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("orchclient-")]
    return [json.dumps({"pid": os.getpid(), "id": receipt.event_id, "threads": sorted(names)}).encode()]
