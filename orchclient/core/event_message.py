"""What a person is told of an event. Pure; knows every type that people are told of, and no service.

The first line decides, and may be all that a phone shows: who, about what, what is needed, by when, and the question or
the error itself as far as it fits. Facts follow, then how to act. Everything is a summary that says what it leaves out;
the orchestrator holds the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from attrs import evolve, frozen

from orchclient.core.events import EventType, NotificationPriority
from orchclient.core.message import PREFIX, PRIORITIES, Fact, Kind, Link, Message, web_address
from orchclient.core.texts import brief, counted, fitted, line, seen
from orchclient.core.wording import (
    VALUE_CHARS,
    duration,
    listed,
    minute,
    number_of,
    percent,
    plain,
    text_of,
    worded,
)

Data = Mapping[str, Any]

NAME_CHARS = 64
STEP_CHARS = 300
QUESTION_CHARS = 700
OPTION_CHARS = 100
ERROR_CHARS = 1_200
IN_TITLE_CHARS = 100
QUESTIONS_SHOWN = 10
OPTIONS_SHOWN = 10
FACTS_SHOWN = 6
REMINDED_QUESTIONS = 3

_PAGE = re.compile(r"[\w-]{1,64}\Z", re.ASCII)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z\Z", re.ASCII)


def message_of(event: Mapping[str, Any], public_url: str = "", *, count: int = 1) -> Message | None:
    """What a person is told of a CloudEvent; None for what is for machines only (a heartbeat, an unknown type).

    ``public_url`` is where people look and answer: ``{public_url}/q/{id}`` for a question, ``/r/{id}`` for a review,
    ``/task?id=`` and ``/error?task=&id=``. ``count`` tells how many events this is the newest of, or how often the same
    error came.
    """
    data = event.get("data")
    teller = _TELLERS.get(text_of(event.get("type")).removeprefix(PREFIX))
    if teller is None or not isinstance(data, Mapping):
        return None
    said = _Said(event, data, public_url.rstrip("/"), max(count, 1))
    message = teller(said)
    return evolve(
        message,
        footer=f"event {line(said.id)[-12:]}",
        time=time if _INSTANT.match(time := text_of(event.get("time"))) else "",
        event_id=said.id,
        task_id=text_of(event.get("subject")),
    )


@frozen
class _Said:
    """One event while it is told."""

    event: Mapping[str, Any]
    data: Data
    public_url: str
    count: int

    @property
    def id(self) -> str:
        return text_of(self.event.get("id"))

    @property
    def agent(self) -> str:
        return fitted(line(text_of(self.event.get("agentid"))), NAME_CHARS) or "an agent"

    @property
    def task(self) -> str:
        return fitted(line(text_of(self.event.get("subject"))), NAME_CHARS) or "a task"

    @property
    def priority(self) -> NotificationPriority:
        word = text_of(self.data.get("priority")) or text_of(self.event.get("priority"))
        return NotificationPriority(word) if word in PRIORITIES else NotificationPriority.LOW

    def text(self, member: str) -> str:
        return text_of(self.data.get(member))

    def number(self, member: str) -> float | None:
        return number_of(self.data.get(member))

    def page(self, folder: str, id_: str, label: str) -> tuple[Link, ...]:
        """The page where a person acts, when there is one."""
        if not self.public_url or not _PAGE.match(id_):
            return ()
        return (Link(label, f"{self.public_url}/{folder}/{id_}"),)

    def task_page(self) -> tuple[Link, ...]:
        """Where the task stands."""
        return self._asked_page("task", {"id": text_of(self.event.get("subject"))}, "See the task")

    def error_page(self, first_id: str) -> tuple[Link, ...]:
        """The error and what came of it."""
        return self._asked_page("error", {"task": text_of(self.event.get("subject")), "id": first_id}, "See the error")

    def _asked_page(self, name: str, values: Mapping[str, str], label: str) -> tuple[Link, ...]:
        if not self.public_url or not all(values.values()):
            return ()
        asked = "&".join(f"{key}={quote(value.encode(errors='replace'), safe='')}" for key, value in values.items())
        address = web_address(f"{self.public_url}/{name}?{asked}")
        return (Link(label, address),) if address else ()


# --- Tasks ------------------------------------------------------------------------------------------------------------


def _status(said: _Said) -> Message:
    state = line(said.text("status")).replace("_", " ") or "at work"
    done = said.number("progress_percentage")
    step = seen(said.text("current_step")).strip()
    title = f"{said.agent}: {said.task} is {fitted(state, 40)}" + (f", {percent(done)}" if done is not None else "")
    lines = [fitted(step, STEP_CHARS)] if step else []
    if said.count > 1:
        lines.append(f"The newest of {said.count:,} updates.")
    priority = NotificationPriority.HIGH if state == "failed" else said.priority
    return Message(Kind.STATUS, priority, title, tuple(lines), links=said.task_page())


def _completion(said: _Said) -> Message:
    is_review = said.data.get("review") is True
    score, results = said.number("quality_score"), said.data.get("test_results")
    failed = number_of(results.get("tests_failed")) if isinstance(results, Mapping) else None
    parts = [
        f"{said.agent} completed {said.task}",
        *([f"quality {score:.0f} of 100"] if score is not None else []),
        *([f"{plain(failed)} tests failed"] if failed else []),
    ]
    links = said.page("r", said.text("review_id") or said.id, "Review here") if is_review else said.task_page()
    needed = "a review is wanted" if is_review else "nothing is needed"
    facts = [*_test_facts(results), *_artifacts(said.data.get("artifacts"))]
    pr_url = said.text("pr_url")
    address = web_address(pr_url)
    if address:
        links = (*links, Link("Pull request", address))
    elif pr_url:
        facts.append(Fact("Pull request", fitted(line(pr_url), VALUE_CHARS)))
    title = f"{', '.join(parts)}: {needed}"
    return Message(Kind.COMPLETION, said.priority, title, (), tuple(facts), links, asks=is_review)


def _test_facts(results: object) -> Iterator[Fact]:
    if not isinstance(results, Mapping):
        return
    passed, failed = number_of(results.get("tests_passed")), number_of(results.get("tests_failed"))
    total = number_of(results.get("total_tests"))
    if passed is not None:
        rest = f", {plain(failed)} failed" if failed is not None else ""
        yield Fact("Tests", f"{plain(passed)} passed{rest}" + (f" of {plain(total)}" if total is not None else ""))
    for member, name, unit in (
        ("code_coverage", "Coverage", " %"),
        ("lint_score", "Lint", " of 10"),
        ("security_score", "Security", " of 100"),
    ):
        number = number_of(results.get(member))
        if number is not None:
            yield Fact(name, f"{plain(number)}{unit}")


def _artifacts(artifacts: object) -> Iterator[Fact]:
    if isinstance(artifacts, Mapping) and artifacts:
        names = ", ".join(fitted(line(str(name)), NAME_CHARS) for name in list(artifacts)[:FACTS_SHOWN])
        more = f", … and {len(artifacts) - FACTS_SHOWN:,} more" if len(artifacts) > FACTS_SHOWN else ""
        yield Fact(f"Artifacts ({len(artifacts):,})", names + more)


# --- Questions --------------------------------------------------------------------------------------------------------


def _question(said: _Said) -> Message:
    questions = _questions(said.data)
    deadline = minute(said.text("deadline"))
    needed = f"answer by {deadline}" if deadline else "an answer is needed"
    only = _in_title(questions)
    if only:
        title = f"{said.agent} asks about {said.task}, {needed}: {only}"
    else:
        title = f"{said.agent} asks {counted(len(questions), 'question')} about {said.task}: {needed}"
    lines = [*_asked(questions, QUESTIONS_SHOWN), _without_answer(said, deadline)]
    links = said.page("q", said.text("clarification_id") or said.id, "Answer here")
    facts = (Fact("Priority", said.priority.value), *_facts(said.data.get("context")))
    return Message(Kind.QUESTION, said.priority, title, tuple(lines), facts, links, asks=True)


def _questions(data: Data) -> list[Data]:
    return [each for each in listed(data.get("questions")) if isinstance(each, Mapping)]


def _in_title(questions: list[Data]) -> str:
    """The question itself when there is one only: a person may decide on the first line."""
    return brief(line(text_of(questions[0].get("text"))), IN_TITLE_CHARS) if len(questions) == 1 else ""


def _asked(questions: list[Data], most: int) -> Iterator[str]:
    """Each question with its options; one that stands whole in the title is not said again."""
    is_said = len(questions) == 1 and _in_title(questions) == text_of(questions[0].get("text"))
    for number, question in enumerate(questions[:most], 1):
        text = fitted(seen(text_of(question.get("text"))).strip(), QUESTION_CHARS)
        rows = [f"{number}. {text}" if len(questions) > 1 else text, *_options(question)]
        yield from ["\n".join(rows[is_said:])] if rows[is_said:] else []
    if len(questions) > most:
        left = sum(len(text_of(each.get("text"))) for each in questions[most:])
        yield f"… and {counted(len(questions) - most, 'more question')} ({left:,} characters)"


def _options(question: Data) -> Iterator[str]:
    options = [text_of(option) for option in listed(question.get("options"))]
    recommended = question.get("recommended")
    for option in options[:OPTIONS_SHOWN]:
        mark = " (recommended)" if option == recommended else ""
        yield f"• {fitted(line(option), OPTION_CHARS)}{mark}"
    if len(options) > OPTIONS_SHOWN:
        yield f"• … and {counted(len(options) - OPTIONS_SHOWN, 'more option')}"
    if isinstance(recommended, str) and recommended not in options[:OPTIONS_SHOWN]:
        yield f"Recommended: {fitted(line(recommended), OPTION_CHARS)}"


def _without_answer(said: _Said, deadline: str) -> str:
    default = said.data.get("default")
    if default is None:
        return f"Without an answer by {deadline} it expires." if deadline else "It waits until somebody answers."
    until = f"Without an answer by {deadline}" if deadline else "Without an answer"
    return f"{until} the agent goes on with its default: {worded(default)}"


def _withdrawn(said: _Said) -> Message:
    reason = fitted(seen(said.text("reason")).strip(), STEP_CHARS)
    title = f"{said.agent} withdrew its question about {said.task}: nothing is needed any more"
    about = said.text("clarification_id")
    return Message(Kind.WITHDRAWN, NotificationPriority.LOW, title, (reason,) if reason else (), about=about)


def _consumed(said: _Said) -> Message:
    title = f"{said.agent} has the answer about {said.task}: nothing is needed any more"
    return Message(Kind.ANSWERED, NotificationPriority.LOW, title, about=said.text("clarification_id"))


# --- Errors -----------------------------------------------------------------------------------------------------------


def _error(said: _Said) -> Message:
    attempts, traceback = said.number("recovery_attempts"), said.text("traceback")
    text, first_id = fitted(seen(said.text("error_message")).strip(), ERROR_CHARS), said.text("first_id") or said.id
    in_title = brief(line(text), IN_TITLE_CHARS)
    facts = [
        Fact("Priority", said.priority.value),
        Fact("Task", "failed" if said.data.get("fatal") is True else "goes on"),
        Fact("Recovery attempts", plain(attempts or 0)),
        *([Fact("Happened", f"{said.count:,} times, this is the newest")] if said.count > 1 else []),
        *_facts(said.data.get("context")),
    ]
    if traceback:
        facts.append(Fact("Traceback", f"left out here ({len(traceback):,} characters)"))
    return Message(
        Kind.ERROR,
        said.priority,
        f"{_trouble(said)}" + (f": {in_title}" if in_title else ""),
        (text,) if text != in_title else (),
        tuple(facts),
        said.error_page(first_id),
        about=first_id,
        asks=said.priority is NotificationPriority.CRITICAL,
    )


def _trouble(said: _Said) -> str:
    """``backend-1 needs help now, task-42 failed: network (3 times)``."""
    is_fatal, is_critical = said.data.get("fatal") is True, said.priority is NotificationPriority.CRITICAL
    happened = {
        (True, True): f"needs help now, {said.task} failed",
        (True, False): f"needs help now with {said.task}",
        (False, True): f"failed on {said.task}",
        (False, False): f"has trouble with {said.task}",
    }[is_critical, is_fatal]
    kind = fitted(line(said.text("error_type")), NAME_CHARS) or "error"
    return f"{said.agent} {happened}: {kind}" + (f" ({said.count:,} times)" if said.count > 1 else "")


def _resolved(said: _Said) -> Message:
    key = fitted(line(said.text("dedup_key")), NAME_CHARS)
    title = f"{said.agent}: the error {key} of {said.task} is over".replace("  ", " ")
    return Message(Kind.RESOLVED, NotificationPriority.LOW, title, about=said.text("error_id"))


# --- What was told before ---------------------------------------------------------------------------------------------


def _reminder(said: _Said) -> Message:
    about = said.data.get("about")
    about = about if isinstance(about, Mapping) else {"id": about}
    data, id_ = about.get("data"), text_of(about.get("id"))
    data = data if isinstance(data, Mapping) else {}
    number, waited_s = said.number("number"), said.number("waited_s")
    waited = duration(waited_s) if waited_s is not None else "a while"
    type_ = text_of(about.get("type")).removeprefix(PREFIX)
    title = _REMINDED.get(type_, _REMINDED[""]).format(agent=said.agent, task=said.task, waited=waited)
    what = _in_title(_questions(data)) or brief(line(": ".join(_error_told(data))), IN_TITLE_CHARS)
    lines = [*_reminded_of(data), *([f"Reminder {number:.0f}."] if number is not None else [])]
    if said.data.get("escalated"):
        lines.append("Nobody answered elsewhere: this destination is told as the next one.")
    return Message(
        Kind.REMINDER,
        said.priority,
        f"{title}: {what}" if what else title,
        tuple(lines),
        (Fact("Priority", said.priority.value),),
        _reminder_pages(said, type_, id_),
        about=id_,
        asks=True,
    )


_REMINDED = {
    EventType.CLARIFICATION_REQUESTED: "{agent} has waited {waited} for an answer about {task}",
    EventType.TASK_COMPLETED: "{agent} has waited {waited} for a review of {task}",
    EventType.ERROR_ESCALATED: "{agent} has needed help with {task} for {waited}",
    "": "{agent} has waited {waited} for somebody to look at {task}",
}


def _reminder_pages(said: _Said, type_: str, id_: str) -> tuple[Link, ...]:
    if type_ == EventType.CLARIFICATION_REQUESTED:
        return said.page("q", id_, "Answer here")
    if type_ == EventType.TASK_COMPLETED:
        return said.page("r", id_, "Review here")
    return said.error_page(id_) if type_ == EventType.ERROR_ESCALATED else said.task_page()


def _reminded_of(data: Data) -> Iterator[str]:
    """The questions or the error again: who is reminded need not look for them."""
    yield from _asked(_questions(data), REMINDED_QUESTIONS)
    error = ": ".join(_error_told(data))
    if len(line(error)) > IN_TITLE_CHARS:
        yield fitted(seen(error).strip(), STEP_CHARS)


def _error_told(data: Data) -> list[str]:
    return [part for part in map(text_of, (data.get("error_type"), data.get("error_message"))) if part]


def _gap(said: _Said) -> Message:
    count, reason = said.number("count") or 0, line(said.text("reason"))
    why = {
        "dead": "a destination refused them",
        "folded": "newer ones tell the same",
        "expired": "they were forgotten before they could be delivered",
    }.get(reason, reason)
    title = f"{said.agent}: {counted(int(count), 'event')} will not come, {fitted(why, VALUE_CHARS)}"
    return Message(Kind.GAP, NotificationPriority.LOW, title)


def _facts(context: object) -> Iterable[Fact]:
    """The first members of a context, and how many there are besides."""
    if not isinstance(context, Mapping):
        return
    for name, value in list(context.items())[:FACTS_SHOWN]:
        yield Fact(fitted(line(str(name)), NAME_CHARS) or "-", worded(value))
    if len(context) > FACTS_SHOWN:
        yield Fact("More", f"{len(context) - FACTS_SHOWN:,} left out here")


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
