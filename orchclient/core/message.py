"""What a person is told of an event: one message for every dialect, in plain text. Pure.

The first line decides: who, what, what is needed, by when. Facts follow, then how to act. Everything is a summary that
says what it leaves out; the orchestrator holds the whole. Texts are clean (``core.texts``) but not escaped: what a
service would take for markup, its dialect neutralises. Nothing here ever mentions anybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import evolve, frozen

from orchclient.core.events import EventType, NotificationPriority
from orchclient.core.texts import counted, fitted, line, seen

Data = Mapping[str, Any]

PREFIX = "dev.orchclient."

NAME_CHARS = 64
STEP_CHARS = 300
QUESTION_CHARS = 700
OPTION_CHARS = 100
VALUE_CHARS = 200
ERROR_CHARS = 1_200
QUESTIONS_SHOWN = 10
OPTIONS_SHOWN = 10
FACTS_SHOWN = 6
REMINDED_QUESTIONS = 3


class Kind(StrEnum):
    """What a message is about."""

    STATUS = "status"
    QUESTION = "question"
    WITHDRAWN = "withdrawn"
    ANSWERED = "answered"
    COMPLETION = "completion"
    ERROR = "error"
    RESOLVED = "resolved"
    REMINDER = "reminder"
    GAP = "gap"
    DIGEST = "digest"
    TEST = "test"


@frozen
class Look:
    """How urgent a message looks, where the service has colours and emoji."""

    colour: int
    emoji: str


LOOKS: Mapping[str, Look] = {
    NotificationPriority.LOW: Look(0x6B7280, "⚪"),
    NotificationPriority.MEDIUM: Look(0x2563EB, "🔵"),
    NotificationPriority.HIGH: Look(0xEA580C, "🟠"),
    NotificationPriority.CRITICAL: Look(0xDC2626, "🔴"),
}
EMOJI: Mapping[Kind, str] = {
    Kind.STATUS: "🔧",
    Kind.QUESTION: "❓",
    Kind.WITHDRAWN: "↩️",
    Kind.ANSWERED: "💬",
    Kind.COMPLETION: "✅",
    Kind.ERROR: "🚨",
    Kind.RESOLVED: "🟢",
    Kind.REMINDER: "⏰",
    Kind.GAP: "🕳️",
    Kind.DIGEST: "📰",
    Kind.TEST: "🧪",
}
PRIORITIES = tuple(NotificationPriority)
_PAGE = re.compile(r"[\w-]{1,64}\Z", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z\Z", re.ASCII)


@frozen
class Fact:
    """A name and a short value."""

    name: str
    value: str


@frozen
class Link:
    """A label of ours and an http(s) address that is safe to put into markup."""

    label: str
    url: str


@frozen
class Message:
    """What one person reads. ``title`` is one line; ``lines`` may hold several each; ``footer`` names the event."""

    kind: Kind
    priority: NotificationPriority
    title: str
    lines: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    links: tuple[Link, ...] = ()
    footer: str = ""
    time: str = ""  # RFC 3339, when the event was recorded
    event_id: str = ""
    task_id: str = ""
    asks: bool = False  # somebody is to act
    is_repeat: bool = False  # it may have been told before

    @property
    def is_for_everybody(self) -> bool:
        """Whether it is to be seen where everybody looks, not only by those who follow the task's thread."""
        return self.asks or self.priority in (NotificationPriority.HIGH, NotificationPriority.CRITICAL)

    @property
    def emoji(self) -> str:
        """The kind's; that of the priority when it is urgent whatever it is about."""
        is_urgent = self.kind is Kind.QUESTION and self.priority is NotificationPriority.CRITICAL
        return LOOKS[self.priority].emoji if is_urgent else EMOJI[self.kind]

    @property
    def colour(self) -> int:
        """24 bits of RGB."""
        return LOOKS[self.priority].colour

    @property
    def is_silent(self) -> bool:
        """Whether nobody's device needs to sound: news that asks for nothing."""
        return self.priority is NotificationPriority.LOW

    @property
    def headline(self) -> str:
        """The first line, with its emoji."""
        repeat = "(possible repeat) " if self.is_repeat else ""
        return f"{self.emoji} {repeat}{self.title}"


def message_of(event: Mapping[str, Any], public_url: str = "", *, count: int = 1) -> Message | None:
    """What a person is told of a CloudEvent; None for what is for machines only (a heartbeat, an unknown type).

    ``public_url`` is where people answer: ``{public_url}/q/{id}`` for a question, ``/r/{id}`` for a review. ``count``
    tells how many events this is the newest of, or how often the same error came.
    """
    data = event.get("data")
    teller = _TELLERS.get(_text(event.get("type")).removeprefix(PREFIX))
    if teller is None or not isinstance(data, Mapping):
        return None
    said = _Said(event, data, public_url.rstrip("/"), max(count, 1))
    message = teller(said)
    return evolve(
        message,
        footer=f"event {line(said.id)[-12:]}",
        time=time if _INSTANT.match(time := _text(event.get("time"))) else "",
        event_id=said.id,
        task_id=_text(event.get("subject")),
    )


def possibly_repeated(message: Message) -> Message:
    """The same message, marked as one that may have been told before."""
    return evolve(message, is_repeat=True)


def digest(messages: Sequence[Message], left_out: int = 0) -> Message:
    """One message for those that were held back while it was quiet, in their order."""
    shown = messages[:20]
    more = len(messages) - len(shown) + left_out
    lines = [f"{number}. {each.emoji} {fitted(each.title, 160)}" for number, each in enumerate(shown, 1)]
    asked = [(number, each.links[0].url) for number, each in enumerate(shown, 1) if each.links]
    return Message(
        Kind.DIGEST,
        max((each.priority for each in messages), key=PRIORITIES.index, default=NotificationPriority.LOW),
        f"While it was quiet: {counted(len(messages) + left_out, 'message')}",
        (*lines, *([f"… and {counted(more, 'more message')}"] if more else [])),
        links=tuple(Link(f"Open {number}", url) for number, url in asked[:5]),
        footer="orchclient",
    )


def trial() -> Message:
    """The harmless message by which an operator sees that a destination works."""
    return Message(
        Kind.TEST,
        NotificationPriority.LOW,
        "orchclient: a test message",
        ("This destination works. Nothing is asked of you.",),
        footer="orchclient doctor --send-test",
    )


# --- The events -----------------------------------------------------------------------------------------------------


@frozen
class _Said:
    """One event while it is told."""

    event: Mapping[str, Any]
    data: Data
    public_url: str
    count: int

    @property
    def id(self) -> str:
        return _text(self.event.get("id"))

    @property
    def agent(self) -> str:
        return fitted(line(_text(self.event.get("agentid"))), NAME_CHARS) or "an agent"

    @property
    def task(self) -> str:
        return fitted(line(_text(self.event.get("subject"))), NAME_CHARS) or "a task"

    @property
    def priority(self) -> NotificationPriority:
        word = _text(self.data.get("priority")) or _text(self.event.get("priority"))
        return NotificationPriority(word) if word in PRIORITIES else NotificationPriority.LOW

    def text(self, member: str) -> str:
        return _text(self.data.get(member))

    def number(self, member: str) -> float | None:
        return _number(self.data.get(member))

    def page(self, folder: str, id_: str, label: str) -> tuple[Link, ...]:
        """The page where a person acts, when there is one."""
        if not self.public_url or not _PAGE.match(id_):
            return ()
        return (Link(label, f"{self.public_url}/{folder}/{id_}"),)


def _status(said: _Said) -> Message:
    state = line(said.text("status")).replace("_", " ") or "at work"
    done = said.number("progress_percentage")
    step = seen(said.text("current_step")).strip()
    title = f"{said.agent}: {said.task} is {fitted(state, 40)}" + (f", {_percent(done)}" if done is not None else "")
    lines = [fitted(step, STEP_CHARS)] if step else []
    if said.count > 1:
        lines.append(f"The newest of {said.count:,} updates.")
    failed = NotificationPriority.HIGH if state == "failed" else said.priority
    return Message(Kind.STATUS, failed, title, tuple(lines))


def _question(said: _Said) -> Message:
    questions = [each for each in _list(said.data.get("questions")) if isinstance(each, Mapping)]
    deadline = _minute(said.text("deadline"))
    asks = f"asks {counted(len(questions), 'question')} about {said.task}"
    needed = f"answer by {deadline}" if deadline else "an answer is needed"
    lines = [_asked(each, number, len(questions)) for number, each in enumerate(questions[:QUESTIONS_SHOWN], 1)]
    if len(questions) > QUESTIONS_SHOWN:
        left = sum(len(_text(each.get("text"))) for each in questions[QUESTIONS_SHOWN:])
        more = counted(len(questions) - QUESTIONS_SHOWN, "more question")
        lines.append(f"… and {more} ({left:,} characters)")
    lines.append(_without_answer(said, deadline))
    links = said.page("q", said.text("clarification_id") or said.id, "Answer here")
    facts = (Fact("Priority", said.priority.value), *_facts(said.data.get("context")))
    title = f"{said.agent} {asks}: {needed}"
    return Message(Kind.QUESTION, said.priority, title, tuple(lines), facts, links, asks=True)


def _asked(question: Data, number: int, total: int) -> str:
    text = fitted(seen(_text(question.get("text"))).strip(), QUESTION_CHARS)
    rows = [f"{number}. {text}" if total > 1 else text]
    options = [_text(option) for option in _list(question.get("options"))]
    recommended = question.get("recommended")
    for option in options[:OPTIONS_SHOWN]:
        mark = " (recommended)" if option == recommended else ""
        rows.append(f"• {fitted(line(option), OPTION_CHARS)}{mark}")
    if len(options) > OPTIONS_SHOWN:
        rows.append(f"• … and {counted(len(options) - OPTIONS_SHOWN, 'more option')}")
    if isinstance(recommended, str) and recommended not in options[:OPTIONS_SHOWN]:
        rows.append(f"Recommended: {fitted(line(recommended), OPTION_CHARS)}")
    return "\n".join(rows)


def _without_answer(said: _Said, deadline: str) -> str:
    default = said.data.get("default")
    if default is None:
        return f"Without an answer by {deadline} it expires." if deadline else "It waits until somebody answers."
    until = f"Without an answer by {deadline}" if deadline else "Without an answer"
    return f"{until} the agent goes on with its default: {_value(default)}"


def _withdrawn(said: _Said) -> Message:
    reason = fitted(seen(said.text("reason")).strip(), STEP_CHARS)
    title = f"{said.agent} withdrew its question about {said.task}: nothing is needed any more"
    return Message(Kind.WITHDRAWN, NotificationPriority.LOW, title, (reason,) if reason else ())


def _consumed(said: _Said) -> Message:
    title = f"{said.agent} has the answer about {said.task}: nothing is needed any more"
    return Message(Kind.ANSWERED, NotificationPriority.LOW, title)


def _completion(said: _Said) -> Message:
    is_review = said.data.get("review") is True
    score = said.number("quality_score")
    quality = f", quality {score:.0f} of 100" if score is not None else ""
    needed = "a review is wanted" if is_review else "nothing is needed"
    pr_url, artifacts = said.text("pr_url"), said.data.get("artifacts")
    facts = [*_test_facts(said.data.get("test_results"))]
    links = [*said.page("r", said.text("review_id") or said.id, "Review here")] if is_review else []
    if pr_url:
        address = web_address(pr_url)
        if address:
            links.append(Link("Pull request", address))
        facts.append(Fact("Pull request", fitted(line(pr_url), VALUE_CHARS)))
    if isinstance(artifacts, Mapping) and artifacts:
        names = ", ".join(fitted(line(str(name)), NAME_CHARS) for name in list(artifacts)[:FACTS_SHOWN])
        more = f", … and {len(artifacts) - FACTS_SHOWN:,} more" if len(artifacts) > FACTS_SHOWN else ""
        facts.append(Fact(f"Artifacts ({len(artifacts):,})", names + more))
    title = f"{said.agent} completed {said.task}{quality}: {needed}"
    return Message(Kind.COMPLETION, said.priority, title, (), tuple(facts), tuple(links), asks=is_review)


def _test_facts(results: object) -> Iterable[Fact]:
    if not isinstance(results, Mapping):
        return
    passed, failed = _number(results.get("tests_passed")), _number(results.get("tests_failed"))
    total = _number(results.get("total_tests"))
    if passed is not None:
        rest = f", {_plain(failed)} failed" if failed is not None else ""
        yield Fact("Tests", f"{_plain(passed)} passed{rest}" + (f" of {_plain(total)}" if total is not None else ""))
    for member, name, unit in (
        ("code_coverage", "Coverage", " %"),
        ("lint_score", "Lint", " of 10"),
        ("security_score", "Security", " of 100"),
    ):
        number = _number(results.get(member))
        if number is not None:
            yield Fact(name, f"{_plain(number)}{unit}")


def _error(said: _Said) -> Message:
    is_fatal = said.data.get("fatal") is True
    kind = fitted(line(said.text("error_type")), NAME_CHARS) or "error"
    attempts, traceback = said.number("recovery_attempts"), said.text("traceback")
    happened = f"failed on {said.task}" if is_fatal else f"has trouble with {said.task}"
    asks = said.priority is NotificationPriority.CRITICAL
    needed = ": help is needed now" if asks else ""
    times = f" ({said.count:,} times)" if said.count > 1 else ""
    facts = [
        Fact("Priority", said.priority.value),
        Fact("Task", "failed" if is_fatal else "goes on"),
        Fact("Recovery attempts", _plain(attempts or 0)),
        *([Fact("Happened", f"{said.count:,} times, this is the newest")] if said.count > 1 else []),
        *_facts(said.data.get("context")),
    ]
    if traceback:
        facts.append(Fact("Traceback", f"left out here ({len(traceback):,} characters)"))
    text = fitted(seen(said.text("error_message")).strip(), ERROR_CHARS)
    title = f"{said.agent} {happened}: {kind}{times}{needed}"
    return Message(Kind.ERROR, said.priority, title, (text,) if text else (), tuple(facts), asks=asks)


def _resolved(said: _Said) -> Message:
    key = fitted(line(said.text("dedup_key")), NAME_CHARS)
    return Message(Kind.RESOLVED, NotificationPriority.LOW, f"{said.agent}: the error {key} of {said.task} is over")


def _reminder(said: _Said) -> Message:
    about = said.data.get("about")
    about = about if isinstance(about, Mapping) else {"id": about}
    type_ = _text(about.get("type")).removeprefix(PREFIX)
    what, folder, label = _REMINDED.get(type_, _REMINDED[""])
    number, waited_s = said.number("number"), said.number("waited_s")
    waits = f"has been waiting for {_duration(waited_s)}" if waited_s is not None else "still waits"
    lines = [f"Reminder {number:.0f}."] if number is not None else []
    if said.data.get("escalated"):
        lines.append("Nobody answered elsewhere: this destination is told as the next one.")
    lines += _reminded_of(about.get("data"))
    links = said.page(folder, _text(about.get("id")), label) if folder else ()
    title = f"{said.agent} {waits}: {what} about {said.task}"
    facts = (Fact("Priority", said.priority.value),)
    return Message(Kind.REMINDER, said.priority, title, tuple(lines), facts, links, asks=True)


def _reminded_of(data: object) -> Iterable[str]:
    """The questions or the error again: who is reminded need not look for them."""
    if not isinstance(data, Mapping):
        return
    questions = [each for each in _list(data.get("questions")) if isinstance(each, Mapping)]
    for number, question in enumerate(questions[:REMINDED_QUESTIONS], 1):
        yield _asked(question, number, len(questions))
    if len(questions) > REMINDED_QUESTIONS:
        yield f"… and {counted(len(questions) - REMINDED_QUESTIONS, 'more question')}"
    error = ": ".join(part for part in map(_text, (data.get("error_type"), data.get("error_message"))) if part)
    if error:
        yield fitted(seen(error).strip(), STEP_CHARS)


_REMINDED = {
    EventType.CLARIFICATION_REQUESTED: ("an answer is needed", "q", "Answer here"),
    EventType.TASK_COMPLETED: ("a review is wanted", "r", "Review here"),
    EventType.ERROR_ESCALATED: ("an error is open", "", ""),
    "": ("something is open", "", ""),
}


def _gap(said: _Said) -> Message:
    count, reason = said.number("count") or 0, line(said.text("reason"))
    why = {
        "dead": "a destination refused them",
        "folded": "newer ones tell the same",
        "expired": "they were forgotten before they could be delivered",
    }.get(reason, reason)
    title = f"{said.agent}: {counted(int(count), 'event')} will not come, {fitted(why, VALUE_CHARS)}"
    return Message(Kind.GAP, NotificationPriority.LOW, title)


_TELLERS: Mapping[str, Callable[[_Said], Message]] = {
    EventType.TASK_STATUS: _status,
    EventType.CLARIFICATION_REQUESTED: _question,
    EventType.CLARIFICATION_WITHDRAWN: _withdrawn,
    EventType.CLARIFICATION_CONSUMED: _consumed,
    EventType.TASK_COMPLETED: _completion,
    EventType.ERROR_ESCALATED: _error,
    EventType.ERROR_RESOLVED: _resolved,
    EventType.GAP: _gap,
    EventType.REMINDER: _reminder,
}


# --- Values ----------------------------------------------------------------------------------------------------------


def web_address(text: str) -> str:
    """``text`` as an http(s) address without a character that markup could end at; empty for anything else."""
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or not text.isascii():
        return ""
    address = quote(text, safe="/:?#@!$&'*+,;=%~._-")
    return address if len(address) <= 1_024 else ""


def _facts(context: object) -> Iterable[Fact]:
    """The first members of a context, and how many there are besides."""
    if not isinstance(context, Mapping):
        return
    for name, value in list(context.items())[:FACTS_SHOWN]:
        yield Fact(fitted(line(str(name)), NAME_CHARS) or "-", _value(value))
    if len(context) > FACTS_SHOWN:
        yield Fact("More", f"{len(context) - FACTS_SHOWN:,} left out here")


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, Mapping):
        value = ", ".join(f"{name}: {_inner(inner)}" for name, inner in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(_inner, value))
    return fitted(line(str(value)), VALUE_CHARS) or "-"


def _inner(value: object) -> str:
    return (
        counted(len(value), "entry").replace("entrys", "entries") if isinstance(value, Mapping | list) else str(value)
    )


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None  # also for NaN


def _plain(number: float | None) -> str:
    return "0" if number is None else f"{number:,.1f}".removesuffix(".0")


def _percent(number: float) -> str:
    return f"{_plain(number)} %"


def _minute(instant: str) -> str:
    """``2026-11-26 14:00 UTC`` of an instant of the wire."""
    return f"{line(instant)[:10]} {line(instant)[11:16]} UTC" if len(instant) >= 16 else ""


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
