"""A Celery application whose client is made, and used, before the worker forks its pool."""

from __future__ import annotations

import os

import celery

from orchclient import OrchestratorClient

folder = os.environ["LIFE_BROKER"]
app = celery.Celery("lives", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": folder,
        "data_folder_out": folder,
        "control_folder": folder + "-control",
        "polling_interval": 0.05,
    },
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=False,
)
client = OrchestratorClient("celery", outbox=os.environ["LIFE_OUTBOX"], url=os.environ["LIFE_URL"])
if os.environ.get("LIFE_RECORDS_FIRST"):
    client.update_task_status("master", "in_progress")


@app.task(name="work", ignore_result=True)
def work(number: int) -> None:
    with client.task(f"task-{number}") as task:
        task.update("in_progress", progress_percentage=50, metadata={"pid": os.getpid()})
        task.complete(None, {"tests_passed": 1})
