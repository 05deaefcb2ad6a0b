"""Trace context: captured when an event is recorded, carried as an attribute, never a reason to fail or to import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, use_span

from orchclient import OrchestratorClient
from orchclient.core.errors import ConfigError
from orchclient.testing import Receiver
from orchclient.tracing import OPENTELEMETRY
from tests.conftest import MakeClient

SOON_S = 20.0
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NONE_AT_ALL = ("", "00", PARENT.upper(), PARENT + "-x", PARENT + "\n", "ff" + PARENT[2:], PARENT.replace("4bf9", "x"))
ZEROS = (f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01")


@pytest.fixture(autouse=True)
def _no_trace_of_the_person_who_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACEPARENT", raising=False)


@pytest.fixture
def client(make_client: MakeClient, receiver: Receiver) -> OrchestratorClient:
    return make_client(url=receiver.url)


def traced(client: OrchestratorClient, receiver: Receiver) -> list[str | None]:
    """The trace context of each event that arrived."""
    assert client.flush(SOON_S)
    return [event.get("traceparent") for event in receiver.events]


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    yield made
    made.shutdown()


def test_an_event_names_the_span_in_which_it_was_recorded(
    client: OrchestratorClient, receiver: Receiver, exporter: InMemorySpanExporter
) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("test").start_as_current_span("work"):
        client.update_task_status("t", "testing")
    client.update_task_status("t", "testing")
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    named = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    assert traced(client, receiver) == [named, None]


def test_a_span_that_is_not_sampled_says_so(client: OrchestratorClient, receiver: Receiver) -> None:
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("test").start_as_current_span("work"):
        client.update_task_status("t", "testing")
    (text,) = traced(client, receiver)
    assert text is not None
    assert text.endswith("-00")


@pytest.mark.parametrize("ids", [(0, 7), (7, 0), (2**128, 7)])
def test_a_context_that_is_not_valid_is_none(
    client: OrchestratorClient, receiver: Receiver, ids: tuple[int, int]
) -> None:
    with use_span(NonRecordingSpan(SpanContext(*ids, is_remote=False))):
        client.update_task_status("t", "testing")
    assert traced(client, receiver) == [None]


@pytest.mark.parametrize("api", [SimpleNamespace(), SimpleNamespace(get_current_span=lambda: None)])
def test_an_api_that_is_half_imported_or_unknown_fails_no_record_call(
    client: OrchestratorClient, receiver: Receiver, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, OPENTELEMETRY, api)
    client.update_task_status("t", "testing")
    assert traced(client, receiver) == [None]


def test_the_environment_gives_the_trace_of_a_whole_process(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    client = make_client(url=receiver.url)
    client.update_task_status("t", "testing")
    with TracerProvider().get_tracer("test").start_as_current_span("work"):
        client.update_task_status("t", "testing")
    outside, inside = traced(client, receiver)
    assert outside == PARENT
    assert inside not in (None, PARENT)  # a span of this process knows better


def test_a_keyword_goes_before_the_environment(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", PARENT)
    mine = PARENT.replace("4bf9", "aaaa")
    client = make_client(url=receiver.url, traceparent=mine)
    client.update_task_status("t", "testing")
    assert traced(client, receiver) == [mine]


@pytest.mark.parametrize("text", [*NONE_AT_ALL, *ZEROS])
def test_what_is_no_trace_context_is_refused_as_a_keyword_and_passed_over_in_the_environment(
    make_client: MakeClient, receiver: Receiver, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="traceparent is not usable"):
        make_client(traceparent=text)
    monkeypatch.setenv("TRACEPARENT", text)
    client = make_client(url=receiver.url)
    client.update_task_status("t", "testing")
    assert traced(client, receiver) == [None]


RECORDS = """
import sys
from orchclient import OrchestratorClient
with OrchestratorClient("agent", outbox=sys.argv[1], mode="offline") as client:
    client.update_task_status("t", "testing")
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def test_recording_never_imports_opentelemetry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RECORDS, str(tmp_path / "private" / "outbox.db")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "[]\n"
