"""The application for a WSGI server that is not ours, made in each of its workers: by a call, after the fork.

    gunicorn --threads 48 'orchclient.server.wsgi:application()'

It cannot know where that server listens, so it refuses to be made while there is no token.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Final

from flask import Flask

from orchclient.core.errors import ConfigError
from orchclient.core.signing import keys_of
from orchclient.server import access, logs
from orchclient.server.app import create_app
from orchclient.server.keeping import Keeper
from orchclient.server.orchestrator import Orchestrator

SIGNING_VARIABLE: Final = "ORCHCLIENT_SERVE_SIGNING_SECRET"
_DAY_S: Final = 86_400


def application(environ: Mapping[str, str] | None = None) -> Flask:
    """The application, with a housekeeper beside it, as variables of the environment say (docs/deploying).

    Raises ``ConfigError`` when a variable is missing or not usable, or there is no token; ``StoreUnavailable`` when the
    database cannot be opened.
    """
    given = os.environ if environ is None else environ
    db = given.get("ORCHCLIENT_SERVE_DB", "")
    if not db:
        raise ConfigError("ORCHCLIENT_SERVE_DB is not set: a SQLite file, or postgresql://user@host/name")
    orchestrator = Orchestrator.open(db)
    try:
        _refuse_open_doors(orchestrator)
        signing = keys_of(SIGNING_VARIABLE, given.get(SIGNING_VARIABLE, ""))
        keeper = Keeper(orchestrator, _retention_s(given.get("ORCHCLIENT_SERVE_RETENTION", "90d")))
    except BaseException:
        orchestrator.close()
        raise
    logs.configure("json" if given.get("ORCHCLIENT_SERVE_LOG") == "json" else "text")
    keeper.start()
    atexit.register(orchestrator.close)
    return create_app(
        orchestrator,
        trusted_hosts=_words(given, "ORCHCLIENT_SERVE_TRUSTED_HOST"),
        trusted_proxies=_words(given, "ORCHCLIENT_SERVE_TRUSTED_PROXY"),
        signing=signing,
    )


def _words(given: Mapping[str, str], name: str) -> list[str]:
    return given.get(name, "").replace(",", " ").split()


def _retention_s(text: str) -> float:
    if not text.endswith("d") or not text[:-1].isdigit():
        raise ConfigError("ORCHCLIENT_SERVE_RETENTION is not usable: expected days, such as 90d")
    return float(int(text[:-1]) * _DAY_S)


def _refuse_open_doors(orchestrator: Orchestrator) -> None:
    with orchestrator.reading() as session:
        if not access.has_tokens(session):
            raise ConfigError(
                "refusing to serve without a token: anybody could read and answer. "
                "Make one first: orchclient serve token add NAME --kind person"
            )
