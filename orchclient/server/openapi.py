"""The description of the interface as OpenAPI 3.1, made of the schemas that the code itself checks with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from orchclient import __version__
from orchclient.server import people_api, shapes

_SOURCE: Final = {"$ref": "#/components/schemas/common.source"}
_OK: Final = {"description": "Done."}


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchclient orchestrator", "version": __version__},
        "paths": {path: {method: operation} for path, method, operation in _operations()},
        "security": [{"bearer": []}, {}],
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        ("/v1/events", "post", _events()),
        ("/v1/capabilities", "get", _operation("What the orchestrator takes.", _answer("capabilities"))),
        ("/v1/sources/{source}", "get", _source_report()),
        ("/v1/inbox", "get", _inbox()),
        ("/v1/inbox/ack", "post", _with_body("Items are stored.", _reference("inbox-ack"), {"204": _OK})),
        ("/api/needs", "get", _operation("What needs a person now.", _any_answer())),
        (
            "/api/tasks",
            "get",
            _looked("Tasks, the newest word first.", "status", "agent", "q", "before", "task", "limit"),
        ),
        ("/api/task", "get", _looked("A task with everything about it.", "id")),
        ("/api/question", "get", _looked("A question and its answers.", "id")),
        ("/api/review", "get", _looked("A review and its decisions.", "id")),
        ("/api/event", "get", _event()),
        ("/api/agents", "get", _operation("The agents that were heard of.", _any_answer())),
        ("/api/answers", "post", _acted("Answer a question.", "answer", _any_answer())),
        ("/api/decisions", "post", _acted("Decide a review.", "decision", _any_answer())),
        ("/api/seen", "post", _acted("A person looks at a question.", "seen", {"204": _OK})),
        ("/api/cancellations", "post", _acted("Ask an agent to stop.", "cancellation", {"204": _OK})),
        ("/api/dismissals", "post", _acted("Set an error aside.", "dismissal", {"204": _OK})),
        ("/api/messages", "post", _acted("Say something to an agent.", "message", {"204": _OK})),
        ("/healthz", "get", _operation("Whether requests can be served.", _any_answer())),
        ("/metrics", "get", _operation("For Prometheus.", {"200": {"description": "Text.", "content": _text()}})),
        ("/openapi.json", "get", _operation("This document.", _any_answer())),
    ]


def _events() -> dict[str, Any]:
    body = {"application/cloudevents-batch+json": {"schema": _reference("batch")}}
    return _operation("Take a batch in.", _answer("batch-reply")) | {"requestBody": {"required": True, "content": body}}


def _source_report() -> dict[str, Any]:
    source = {"name": "source", "in": "path", "required": True, "schema": _SOURCE}
    return _operation("What is held of a source.", _answer("source-report")) | {"parameters": [source]}


def _inbox() -> dict[str, Any]:
    source = {"name": "source", "in": "query", "required": True, "schema": _SOURCE}
    cursor = {"name": "cursor", "in": "query", "schema": {"type": "string", "maxLength": 512}}
    wait = {"name": "wait", "in": "query", "schema": {"type": "number", "minimum": 0, "maximum": 25}}
    return _operation("The next items of an inbox.", _answer("inbox-page")) | {"parameters": [source, cursor, wait]}


def _event() -> dict[str, Any]:
    answers = {"200": {"description": "The event.", "content": {"application/cloudevents+json": {"schema": {}}}}}
    place = {"name": "place", "in": "query", "required": True, "schema": {"type": "string"}}
    return _operation("An event as it came.", answers) | {"parameters": [place]}


def _looked(words: str, *parameters: str) -> dict[str, Any]:
    given = [
        {"name": each, "in": "query", "required": each == "id", "schema": {"type": "string"}} for each in parameters
    ]
    return _operation(words, _any_answer()) | {"parameters": given}


def _acted(words: str, body: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    return _with_body(words, {"$ref": f"#/components/schemas/{body}"}, answers)


def _with_body(words: str, schema: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return _operation(words, answers) | {"requestBody": {"required": True, "content": content}}


def _operation(words: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    trouble = {"description": "A problem.", "content": {"application/problem+json": {"schema": _reference("problem")}}}
    return {"summary": words, "responses": {**answers, "default": trouble}}


def _answer(schema: str) -> dict[str, Any]:
    return {"200": {"description": "The answer.", "content": {"application/json": {"schema": _reference(schema)}}}}


def _any_answer() -> dict[str, Any]:
    return {"200": {"description": "The answer.", "content": {"application/json": {"schema": {}}}}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _schemas() -> dict[str, Any]:
    """The schemas of the package under ``components``, with their references turned to there."""
    found: dict[str, Any] = {name: _turned(schema) for name, schema in people_api.BODIES.items()}
    for file in files("orchclient.core.schemas").iterdir():
        if file.name.endswith(".json"):
            name = file.name.removesuffix(".json")
            whole = shapes.document(file.name)
            found[name] = _turned(
                {key: value for key, value in whole.items() if key not in ("$id", "$schema", "$defs")}
            )
            found |= {f"{name}.{part}": _turned(schema) for part, schema in whole.get("$defs", {}).items()}
    del found["common"]
    return found


def _turned(value: Any) -> Any:
    if isinstance(value, list):
        return [_turned(item) for item in value]
    if not isinstance(value, dict):
        return value
    turned = {name: _turned(member) for name, member in value.items()}
    reference = value.get("$ref")
    if isinstance(reference, str):
        turned["$ref"] = "#/components/schemas/" + reference.replace(".json#/$defs/", ".").removesuffix(".json")
    return turned
