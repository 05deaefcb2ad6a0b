"""Metrics: what an agent's OpenTelemetry reader collects is what ``health()`` says, while the client is open."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from orchclient import OrchestratorClient, otel
from orchclient.core.errors import ConfigError
from orchclient.testing import Fault, Receiver
from tests.conftest import MakeClient

SOON_S = 20.0
PAGE = (Path(__file__).parents[1] / "docs" / "observability.md").read_text()
Points = dict[tuple[str, ...], float]


@pytest.fixture
def reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader: InMemoryMetricReader) -> Iterator[MeterProvider]:
    made = MeterProvider([reader])
    yield made
    made.shutdown()


@pytest.fixture
def client(make_client: MakeClient, receiver: Receiver, provider: MeterProvider) -> OrchestratorClient:
    made = make_client(url=receiver.url)
    otel.observe(made, provider.get_meter("test"))
    return made


def metrics(reader: InMemoryMetricReader) -> dict[str, Any]:
    """Every metric of a collection, by name."""
    data = reader.get_metrics_data()
    scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


def collected(reader: InMemoryMetricReader) -> dict[str, Points]:
    """The points of each metric that has some, by the values of their attributes."""
    return {
        name: {tuple(point.attributes.values()): point.value for point in metric.data.data_points}
        for name, metric in metrics(reader).items()
    }


def test_the_metrics_say_what_health_says(
    client: OrchestratorClient, receiver: Receiver, reader: InMemoryMetricReader
) -> None:
    receiver.reject(lambda event: event["data"].get("current_step") == "poison")
    client.update_task_status("t", "testing")
    client.update_task_status("t", "testing", current_step="poison")
    client.flush(SOON_S)
    receiver.always(Fault.status(401))
    client.update_task_status("t", "testing")
    client.flush(SOON_S)
    got, (sink,) = collected(reader), client.health().sinks
    key = ("orchestrator",)
    assert (sink.pending, sink.dead, sink.state) == (1, 1, "paused")
    assert got["orchclient.outbox.recorded"] == {(): client.health().recorded}
    for field in ("pending", "delivered", "dead", "expired"):
        assert got[f"orchclient.destination.{field}"] == {key: getattr(sink, field)}
    assert got["orchclient.destination.oldest_age"][key] > 0
    assert got["orchclient.destination.served"] == {key: 1}
    assert got["orchclient.outbox.wal.size"][()] > 0
    states = got["orchclient.destination.status"]
    assert [state for (_, state), value in states.items() if value] == ["paused"]
    assert len(states) == 5


def test_every_collection_looks_anew(
    client: OrchestratorClient, receiver: Receiver, reader: InMemoryMetricReader
) -> None:
    told = []
    for _ in range(3):
        client.update_task_status("t", "testing")
        client.flush(SOON_S)
        told.append(collected(reader)["orchclient.destination.delivered"][("orchestrator",)])
    assert told == [1, 2, 3]


def test_a_collection_looks_once(
    client: OrchestratorClient, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    health = OrchestratorClient.health
    monkeypatch.setattr(OrchestratorClient, "health", lambda self: looks.append(1) or health(self))
    monkeypatch.setattr(otel, "SAME_LOOK_S", 60.0)  # on a busy machine a collection may take long
    collected(reader)
    collected(reader)
    assert len(looks) == 2


def test_names_and_units_are_those_of_the_conventions(client: OrchestratorClient, reader: InMemoryMetricReader) -> None:
    client.update_task_status("t", "testing")
    client.flush(SOON_S)
    got = metrics(reader)
    assert {name: metric.unit for name, metric in got.items()} == {each.name: each.unit for each in otel.INSTRUMENTS}
    assert all(metric.description for metric in got.values())
    assert got["orchclient.outbox.recorded"].data.is_monotonic
    assert not got["orchclient.destination.pending"].data.is_monotonic


def test_the_page_lists_every_instrument_with_its_unit() -> None:
    rows = re.findall(r"^\| `(orchclient\.[a-z._]+)` \| `([^`]+)` \|", PAGE, re.M)
    assert rows == [(each.name, each.unit) for each in otel.INSTRUMENTS]


def test_the_example_of_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHCLIENT_DB", str(tmp_path / "private" / "outbox.db"))
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(example, scope := {})
    names = {name for name, metric in metrics(scope["reader"]).items() if metric.data.data_points}
    assert "orchclient.outbox.recorded" in names
    scope["client"].close()
    scope["provider"].shutdown()


def test_a_client_that_is_closed_or_gone_is_read_no_more(
    make_client: MakeClient, provider: MeterProvider, reader: InMemoryMetricReader, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(mode="offline")
    otel.observe(client, provider.get_meter("test"))
    client.update_task_status("t", "testing")
    assert collected(reader)["orchclient.outbox.recorded"] == {(): 1}
    client.close()
    assert collected(reader) == {}
    assert not caplog.records


def test_observing_starts_no_thread(make_client: MakeClient, provider: MeterProvider) -> None:
    client = make_client()
    before = threading.active_count()
    otel.observe(client, provider.get_meter("test"))
    assert threading.active_count() == before


def test_without_opentelemetry_it_says_what_to_install(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    with pytest.raises(ConfigError, match=r"orchclient\[otel\]"):
        otel.observe(make_client())


def test_health_says_whether_somebody_delivers_and_who(make_client: MakeClient, receiver: Receiver) -> None:
    agent = make_client("agent-1", url=receiver.url)
    agent.update_task_status("t", "testing")
    agent.flush(SOON_S)
    looker = make_client("looker", mode="offline", background=False)
    (sink,) = looker.health().sinks
    assert sink.is_served
    assert sink.holder is not None
    assert sink.holder["agent"] == "agent-1"
    assert sink.last_success_at is not None
    agent.close()
    assert not looker.health().sinks[0].is_served
