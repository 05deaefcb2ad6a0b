"""The wire contract over HTTP (docs/wire.md): what agents' outboxes ask for. A dialect of ``Orchestrator``."""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, Response, current_app, request

from orchclient.core import signing
from orchclient.core.jsontext import encode
from orchclient.server import shapes
from orchclient.server.calling import agent, orchestrator
from orchclient.server.ingest import Taken
from orchclient.server.metrics import Counters
from orchclient.server.orchestrator import MAX_WAIT_S
from orchclient.server.reading import Limits, Refused, parsed, read_batch

wire = Blueprint("wire", __name__, url_prefix="/v1")

_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?\Z")
_SOURCE: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_REPLY_ROOM: Final = 65_000  # a reply of more than 64 KiB counts as none
_LEAST_DETAIL: Final = 20


@wire.before_request
def check_signature() -> None:
    """Before anything is inflated or read; only with a signing secret."""
    keys = current_app.config["ORCH_SIGNING"]
    if not keys or request.method != "POST":
        return
    given = request.headers
    now_s = orchestrator().now_us() / 1e6
    trouble = signing.trouble_with(keys, lambda name: given.get(name, ""), request.get_data(), now_s)
    if trouble:
        raise Refused(401, f"{trouble}: this orchestrator takes requests that are signed with its secret only")


@wire.post("/events")
def events() -> Response:
    """Take a batch in; answered when it is committed."""
    owner = agent().name
    limits: Limits = current_app.config["ORCH_LIMITS"]
    batch = read_batch(
        request.get_data(cache=False),
        request.headers.get("Content-Type", ""),
        request.headers.get("Content-Encoding", ""),
        limits,
    )
    taken = orchestrator().ingest(batch, owner)
    counters: Counters = current_app.extensions["orchclient-counters"]
    counters.count_events(result.status for result in taken.results)
    return _json(_reply(taken))


def _reply(taken: Taken) -> str:
    """The reply to a batch; details are cut, or left out, so that it stays within its limit."""
    if not any(each.detail or each.code for each in taken.results):
        plain = ",".join([f'{{"id":"{each.id}","status":"{each.status}"}}' for each in taken.results])  # UUIDs, words
        return f'{{"results":[{plain}],"inbox":{{"pending":{taken.pending}}}}}'
    bare = encode({"results": [each._replace(detail="").members() for each in taken.results]})
    detailed = sum(bool(each.detail) for each in taken.results)
    room = (_REPLY_ROOM - len(bare)) // max(1, detailed) // 2 - _LEAST_DETAIL  # a character may be escaped
    cut = room if room >= _LEAST_DETAIL else 0
    results = [each._replace(detail=_ascii(each.detail)[:cut]).members() for each in taken.results]
    return encode({"results": results, "inbox": {"pending": taken.pending}})


def _ascii(text: str) -> str:
    return text if text.isascii() else text.encode("ascii", "replace").decode()


@wire.get("/capabilities")
def capabilities() -> Response:
    """What this orchestrator takes."""
    agent()
    limits: Limits = current_app.config["ORCH_LIMITS"]
    said = {
        "protocol": ["1.0"],
        "batch": {"max_events": limits.max_events, "max_bytes": limits.max_bytes},
        "encodings": ["gzip"],
        "inbox": {"max_wait_s": MAX_WAIT_S},
    }
    return _json(encode(said))


@wire.get("/sources/<source>")
def source_report(source: str) -> Response:
    """What is held of a source."""
    return _json(encode(orchestrator().report(_checked(source), agent().name)))


@wire.get("/inbox")
def inbox_page() -> Response:
    """The next items of a source's inbox; waits for some when asked to."""
    owner = agent().name
    source, wait = _checked(request.args.get("source", "")), request.args.get("wait", "0")
    if not _SECONDS.match(wait):
        raise Refused(400, "wait must be a number of seconds")
    return _json(orchestrator().page(source, request.args.get("cursor", ""), float(wait), owner).text)


@wire.post("/inbox/ack")
def inbox_ack() -> Response:
    """Items are stored at the agent's."""
    owner = agent().name
    value = parsed(request.get_data(cache=False))
    trouble = shapes.shape("inbox-ack.json")(value)
    if trouble:
        raise Refused(400, f"${trouble}"[:200])
    orchestrator().acknowledge(value["source"], value["cursor"], owner)
    return Response(status=204)


def _checked(source: str) -> str:
    if not _SOURCE.match(source):
        raise Refused(400, "source must be urn:uuid: and a UUID in lower case")
    return source


def _json(text: str) -> Response:
    return Response(text, content_type="application/json")
