"""Lets Atheris look for an answer that breaks a law: ``python -m tests.faults.atheris_replies SECONDS``."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris  # type: ignore[import-untyped,unused-ignore]

with atheris.instrument_imports(include=["orchclient", "http.client", "json", "email", "requests"]):
    from tests.faults.fuzzed_replies import fuzzed

SEEDS = (
    b'\x00HTTP/1.1 200 OK\r\n\r\n{"results": [{"id": "<id-0>", "status": "accepted", "code": "x"}]}',
    b"\x00HTTP/1.1 429 X\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\nDate: x\r\n\r\n",
    b"\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[[[[\r\n0\r\n\r\n",
    b'\x00HTTP/1.1 422 X\r\n\r\n{"title": "\\u001b[31m", "detail": "\xc3\xa9"}',
    b'\xffHTTP/1.1 200 OK\r\n\r\n{"protocol": ["1.0"], "batch": {"max_events": 2}, "encodings": ["gzip"]}',
)


def main(seconds: str) -> None:
    with fuzzed() as place, TemporaryDirectory() as corpus:
        for n, seed in enumerate(SEEDS):
            (Path(corpus) / str(n)).write_bytes(seed)

        def one(data: bytes) -> None:
            broken = place.meet(data[1:], greeting=data[:1] > b"\x80").broken_laws()
            assert not broken, broken

        atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=600", "-timeout=20", corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1])
