"""A full outbox: what goes first, what is refused and how, and that it works again when there is room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient, OutboxFull
from orchclient.testing import Receiver
from tests.conftest import MakeClient


def filled(make_client: MakeClient, **settings: Any) -> OrchestratorClient:
    """A client whose outbox has met one of its limits."""
    client = make_client(background=False, **settings)
    with pytest.raises(OutboxFull):
        record_progress(client, 10_000)
    return client


def record_progress(client: OrchestratorClient, count: int) -> None:
    for percent in range(count):
        client.update_task_status("t", "in_progress", {"pad": "x" * 500}, percent)


def record_errors(client: OrchestratorClient, count: int) -> None:
    for _ in range(count):
        client.escalate_error("t", "disk", "full")


def test_at_the_limit_of_pending_events_progress_is_refused_and_the_reserve_takes_what_matters(
    make_client: MakeClient,
) -> None:
    client = filled(make_client, max_pending=1000)
    recorded = client.health().recorded
    assert 1000 <= recorded <= 1000 + 50
    with pytest.raises(OutboxFull, match=r"1,000.*orchclient status.*max_pending"):
        client.update_task_status("t", "failed")
    assert client.report_completion("t", None, {})
    assert client.escalate_error("t", "disk", "full")
    assert client.request_clarification("t", "Clean up?")
    assert client.health().recorded == recorded + 3


def test_the_reserve_has_an_end(make_client: MakeClient) -> None:
    client = filled(make_client, max_pending=1000)
    with pytest.raises(OutboxFull):
        record_errors(client, 200)
    assert client.health().recorded <= 1051


def test_delivering_makes_room(make_client: MakeClient, receiver: Receiver) -> None:
    client = filled(make_client, max_pending=500, url=receiver.url)
    assert client.flush(30)
    assert client.update_task_status("t", "in_progress")
    assert len(receiver.events) == client.health().recorded - 1


def test_at_the_limit_of_bytes_delivered_history_goes_first(
    make_client: MakeClient, receiver: Receiver, outbox_path: Path
) -> None:
    client = filled(make_client, max_outbox_bytes=1_048_576, url=receiver.url)
    before = client.health()
    assert before.kept == before.recorded
    assert client.flush(30)
    for _ in range(5):
        record_progress(client, 200)
        assert client.flush(30)
    assert client.health().kept < client.health().recorded
    assert outbox_path.stat().st_size < 2 * 1_048_576


def test_a_disk_that_is_nearly_full_refuses_before_it_is_full(make_client: MakeClient) -> None:
    client = make_client(background=False, min_free_bytes=2**60)
    with pytest.raises(OutboxFull, match="must stay"):
        client.update_task_status("t", "in_progress")
