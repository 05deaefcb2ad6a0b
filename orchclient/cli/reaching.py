"""What ``orchclient doctor`` says of destinations: whether they answer, to whom, and what time they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import copysign

from orchclient import config
from orchclient.cli.finding import Finding
from orchclient.cli.output import age
from orchclient.core.http import HttpOutcome, HttpReply, HttpRequest
from orchclient.core.policy import Action
from orchclient.delivery.clock import SystemClock
from orchclient.destinations import configured
from orchclient.sinks.sink import AnySink, ChatSink, Checkable, is_chat, speaks_http
from orchclient.station import http_transport

CHECK_S = 5.0
SKEW_WARNING_S = 30.0
SKEW_PROBLEM_S = 600.0


def sinks_of(settings: config.Settings) -> list[AnySink]:
    """The destinations that are delivered to with these settings. Raises ``ConfigError``."""
    return configured(settings, settings.known_secrets()) if settings.mode == "online" else []


def answers(settings: config.Settings, sinks: Sequence[AnySink]) -> Iterator[Finding]:
    """A greeting to each destination that has one."""
    if not sinks and settings.mode == "online":
        what = "No destination is configured: events wait in the outbox"
        yield Finding("warning", what, "Set ORCHCLIENT_URL.", "destination")
    for sink in sinks:
        yield from _answer(settings, sink)


def _answer(settings: config.Settings, sink: AnySink) -> Iterator[Finding]:
    if isinstance(sink, Checkable):
        yield _checked(sink.name, sink.trouble(min(settings.request_timeout, CHECK_S)))
        return
    if is_chat(sink):
        yield _probed(settings, sink)
        return
    greeting = sink.greeting() if speaks_http(sink) else None
    if greeting is None:
        yield _cannot_be_asked(sink)
        return
    outcome = _outcome(settings, greeting)
    if not isinstance(outcome, HttpReply):
        what = f"{sink.name} does not answer: {outcome.reason} {outcome.detail}"
        yield Finding("problem", what, "Check the URL and the network.", "destination")
        return
    if outcome.status in (401, 403):
        what = f"{sink.name} refuses the token (HTTP {outcome.status})"
        yield Finding("problem", what, "Set ORCHCLIENT_TOKEN.", "destination")
    elif outcome.status >= 500:
        what = f"{sink.name} is in trouble (HTTP {outcome.status})"
        yield Finding("problem", what, "Tell whoever runs it; events wait meanwhile.", "destination")
    else:
        what = f"{sink.name} answers (HTTP {outcome.status} in {outcome.took_ms:.0f} ms)"
        yield Finding("ok", what, check="destination")
    yield from _clock(sink.name, outcome.headers.get("date", ""))


def _outcome(settings: config.Settings, request: HttpRequest) -> HttpOutcome:
    transport = http_transport(settings)
    try:
        return transport.send(request, deadline_s=min(settings.request_timeout, CHECK_S))
    finally:
        transport.close()


def _probed(settings: config.Settings, sink: ChatSink) -> Finding:
    """A question to a chat that shows nobody anything, where there is one."""
    probe = sink.probe()
    if probe is None:
        return _cannot_be_asked(sink)
    outcome = _outcome(settings, probe)
    verdict = sink.probed(outcome, SystemClock.now_us()).verdict
    if verdict.action is Action.SETTLE:
        return Finding("ok", f"{sink.name} answers ({outcome.took_ms:.0f} ms)", check="destination")
    what = f"{sink.name} takes no messages: {verdict.reason}"
    return Finding("problem", what, "Mend what it says; what is recorded meanwhile waits.", "destination")


def _cannot_be_asked(sink: AnySink) -> Finding:
    what = f"{sink.name}: a {sink.kind} cannot be asked without sending something"
    return Finding("ok", what, "Try it: orchclient doctor --send-test", "destination")


def _checked(name: str, trouble: str) -> Finding:
    if trouble:
        what = f"{name} does not answer: {trouble}"
        return Finding("problem", what, "Check its address and the network.", "destination")
    return Finding("ok", f"{name} answers", check="destination")


def _clock(name: str, date: str) -> Iterator[Finding]:
    """Its clock against ours, by the Date header (RFC 9110, 6.6.1): whole seconds, and some for the way."""
    try:
        theirs = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return  # none was sent, or no date
    skew_s = (datetime.now(UTC) - theirs.astimezone(UTC)).total_seconds()
    if abs(skew_s) < SKEW_WARNING_S:
        yield Finding("ok", f"{name}: its clock and ours agree", check="clock")
        return
    level = "problem" if abs(skew_s) >= SKEW_PROBLEM_S else "warning"
    word = "ahead of" if copysign(1, skew_s) > 0 else "behind"
    yield Finding(
        level,
        f"This host's clock is {age(abs(skew_s))} {word} that of {name}: times and deadlines are off by as much",
        "Set the clock: timedatectl set-ntp true",
        "clock",
    )
