"""The page, without JavaScript: what people see and do, whatever agents say, and who comes in."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import requests
from flask import Flask

from orchclient.core.errors import ConfigError
from orchclient.core.event_message import message_of
from orchclient.server import access
from orchclient.server.app import create_app
from orchclient.server.dismissing import Dismissal
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.page import urgency
from orchclient.server.page.guesses import EACH_S, MOST, Guesses
from orchclient.server.people import IncidentView, Needs, QuestionView, ReviewView
from orchclient.server.questions import Decision
from orchclient.server.serving import Listening, Server
from tests.server.browsing import Browser, Page, findings
from tests.server.conftest import Clock
from tests.server.events import BEGIN_US, Event, Outbox, at
from tests.server.test_questions import items
from tests.server.test_tasks import take


@pytest.fixture(params=["sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    """What stands here is the same over any database."""
    return str(request.param)


@pytest.fixture
def app(orchestrator: Orchestrator) -> Flask:
    return create_app(orchestrator, trusted_hosts=["orch.example"])


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)


def token(orchestrator: Orchestrator, name: str = "ada", kind: access.Kind = "person") -> str:
    return orchestrator.writing(lambda session: access.add_token(session, name, kind, 1))


def signed_in(app: Flask, text: str, base: str = "http://localhost") -> Browser:
    browser = Browser(app, base)
    browser.open("/login")
    browser.send("/login", token=text, headers={"Origin": base})
    assert browser.reply.status_code == 200, browser.reply.text
    return browser


CHOICE = {"id": "q1", "text": "Which database?", "options": ["PostgreSQL", "SQLite"], "recommended": "SQLite"}


def asked(orchestrator: Orchestrator, outbox: Outbox, *questions: dict[str, Any], **more: Any) -> Event:
    question = outbox.question(questions=list(questions or (CHOICE,)), **more)
    take(orchestrator, question)
    return question


def answers(orchestrator: Orchestrator, outbox: Outbox) -> list[Any]:
    return [item for item in items(orchestrator, outbox) if item["type"] == "clarification.answered.v1"]


def taken(outbox: Outbox, question: Event, answer_id: str) -> Event:
    return outbox.event("clarification.consumed.v1", clarification_id=question["id"], answer_id=answer_id)


# --- Whatever agents say ------------------------------------------------------------------------------------------

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(1)></textarea></title>{{7*7}}\u202e"
LINE = EVIL.replace("\u202e", "")


def hostile(orchestrator: Orchestrator) -> list[str]:
    """Everything that an agent or a person can say, said badly; the address of every page about it."""
    outbox, other = Outbox(agent=LINE), Outbox(agent="other")
    question = outbox.question(
        LINE,
        questions=[
            {"id": LINE[:60], "text": EVIL, "options": [EVIL, "b"], "recommended": EVIL},
            {"id": "q2", "text": EVIL, "recommended": EVIL},
        ],
        context={EVIL: EVIL, "url": "javascript:alert(1)", "deep": {EVIL: [EVIL]}, "list": [EVIL]},
        default={LINE[:60]: EVIL},
        key=LINE,
        priority="critical",
        deadline="2099-01-01T00:00:00.000000Z",
    )
    plain, withdrawn, expired = (
        outbox.question(LINE, EVIL, default=EVIL, key=f"{n}", **more)
        for n, more in enumerate(({}, {}, {"deadline": at(1)}))
    )
    completion = outbox.completion(
        LINE,
        review=True,
        pr_url="javascript:alert(1)//" + EVIL,
        test_results={EVIL: EVIL, "tests_passed": 1},
        artifacts={EVIL: EVIL},
    )
    decided = outbox.completion(LINE, review=True, pr_url="data:text/html,<script>alert(1)</script>")
    error = outbox.error(
        LINE,
        error_type=EVIL,
        error_message=EVIL,
        priority="critical",
        traceback=EVIL,
        context={EVIL: EVIL},
        recovery_history=[{EVIL: EVIL}],
        dedup_key=LINE,
    )
    aside = outbox.error(LINE, error_type=EVIL, error_message=EVIL, fatal=False, priority="low")
    take(
        orchestrator,
        outbox.status(LINE, current_step=EVIL, metadata={EVIL: EVIL}, progress_percentage=10),
        *(question, plain, withdrawn, expired),
        outbox.event("clarification.withdrawn.v1", LINE, clarification_id=withdrawn["id"], reason=EVIL),
        *(completion, decided, error),
        aside,
        outbox.event("error.resolved.v1", LINE, error_id=error["id"], count=1, note=EVIL),
        outbox.error(LINE, error_type=EVIL, error_message=EVIL, priority="critical"),
        outbox.heartbeat(3, 2),
        other.status("missing", sequence=9),
    )
    orchestrator.expire()
    who = {"kind": "human", "id": EVIL[:200], "display": EVIL[:200]}
    said = [{"question_id": "q1", "text": EVIL}]
    for _ in range(2):
        orchestrator.answer(plain["id"], Decision("answered", who, said, EVIL, LINE[:60], None, BEGIN_US))
        orchestrator.decide(decided["id"], Decision("rejected", who, None, EVIL, "web", None, BEGIN_US))
    assert orchestrator.dismiss(Dismissal(LINE, aside["id"], who, EVIL, LINE[:60]))
    asked_ = (question, plain, withdrawn, expired)
    with orchestrator.reading() as session:
        from orchclient.server import people

        logs = people.task_page(session, LINE)
    assert logs is not None
    return [
        "/",
        "/tasks",
        f"/tasks?q={quoted('script')}&agent={quoted(LINE)}&status={quoted(EVIL)}",
        f"/tasks?q={quoted(EVIL)}",
        f"/task?id={quoted(LINE)}",
        f"/task?id={quoted(LINE)}&before={logs.logs[1].place}",
        *(f"/q/{each['id']}" for each in asked_),
        *(f"/r/{each['id']}" for each in (completion, decided)),
        *(f"/error?task={quoted(LINE)}&id={each.id}" for each in logs.incidents),
        "/agents",
        "/health",
        f"/{quoted(LINE)}",
        f"/q/{quoted(LINE)}",
        f"/task?id={quoted(EVIL)}&told={quoted(EVIL)}",
    ]


def quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


def test_no_text_of_an_agent_or_a_person_becomes_markup_on_any_page(
    orchestrator: Orchestrator, browser: Browser
) -> None:
    addresses, shown = hostile(orchestrator), 0
    for address in addresses:
        page = browser.open(address)
        assert browser.reply.status_code in (200, 404), (address, browser.reply.text)
        assert findings(page) == [], address
        assert "49" not in page.words.split()
        assert "\u202e" not in browser.reply.text
        shown += "<script>alert(1)" in page.words
    assert shown >= len(addresses) - 4  # it is there, as text, where a page is about it


def test_a_template_that_does_not_escape_would_be_found(
    orchestrator: Orchestrator, app: Flask, browser: Browser
) -> None:
    app.jinja_env.autoescape = False
    bad = [found for address in hostile(orchestrator) for found in findings(browser.open(address))]
    assert {"<script>", "<img onerror>"} <= set(bad)
    assert len(bad) > 20


def test_every_answer_forbids_scripts_frames_and_guessing(orchestrator: Orchestrator, browser: Browser) -> None:
    for address in [*hostile(orchestrator), "/static/page.css", "/static/page.js", "/event?place=1-1", "/api/needs"]:
        browser.open(address)
        headers = browser.reply.headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    browser.open(next(link for link in _links(browser.open(f"/task?id={quoted(LINE)}")) if "/event" in link))
    assert browser.reply.mimetype == "text/plain"
    assert "alert(1)" in browser.reply.text


def test_only_web_addresses_are_links(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    take(
        orchestrator,
        outbox.completion("good", pr_url="https://github.com/a/b/pull/1"),
        outbox.completion("bad", pr_url="javascript:alert(1)"),
        outbox.completion("odd", pr_url="https://user:pw@evil.example/"),
    )
    links = {name: _links(browser.open(f"/task?id={name}")) for name in ("good", "bad", "odd")}
    assert "https://github.com/a/b/pull/1" in links["good"]
    assert not [each for name in ("bad", "odd") for each in links[name] if not each.startswith("/")]


def _links(page: Page) -> list[str]:
    return [given["href"] for tag, given in page.elements if tag == "a" and not given["href"].startswith("#")]


# --- What needs people --------------------------------------------------------------------------------------------


def test_who_has_no_agents_yet_is_told_what_to_do_first(orchestrator: Orchestrator, browser: Browser) -> None:
    assert "ORCHCLIENT_URL=http://localhost" in browser.open("/").words
    take(orchestrator, Outbox().status())
    words = browser.open("/").words
    assert "Nothing needs you" in words
    assert "1 agent reported within the last two minutes" in words
    assert "1 task is under way" in words


def test_silence_of_all_agents_does_not_look_like_peace(
    orchestrator: Orchestrator, browser: Browser, clock: Clock
) -> None:
    take(orchestrator, Outbox().status())
    clock.pass_(3600)
    assert "No agent reported within the last two minutes" in browser.open("/").words


def test_what_is_most_urgent_stands_first(orchestrator: Orchestrator, browser: Browser, clock: Clock) -> None:
    outbox = Outbox()
    soon = (clock.now_us - BEGIN_US) / 1e6 + 300
    take(
        orchestrator,
        outbox.question("t1", "low?", key="1", priority="low"),
        outbox.completion("t2", review=True),
        outbox.question("t3", "high?", key="3", priority="high"),
        outbox.question("t4", "soon?", key="4", priority="low", deadline=at(soon)),
        outbox.error("t5", priority="critical", error_type="burning"),
        outbox.error("t6", priority="low", error_type="can wait"),
    )
    page = browser.open("/")
    places = [page.words.index(word) for word in ("soon?", "burning", "high?", "result of t2", "low?", "can wait")]
    assert places == sorted(places)
    assert "(5) Needs you" in page.words


def test_urgency_is_priority_then_deadline_then_age() -> None:
    def question(name: str, priority: str, deadline: int | None, asked: int) -> QuestionView:
        shown: Any = dict.fromkeys(each.name for each in QuestionView.__attrs_attrs__)  # type: ignore[attr-defined]
        return QuestionView(**shown | {"id": name, "priority": priority, "deadline_us": deadline, "asked_us": asked})

    hour = 3_600_000_000
    questions = [
        question("old", "medium", None, 1),
        question("new", "medium", None, 2),
        question("ends", "medium", hour, 3),
        question("ends later", "medium", 2 * hour, 0),
        question("ends now", "low", 1, 9),
        question("critical", "critical", None, 8),
    ]
    found = urgency.queue(Needs(questions, [], [], 0), now_us=0).urgent
    assert [each.id for each in found] == ["ends now", "critical", "ends", "ends later", "old", "new"]
    assert {QuestionView, ReviewView, IncidentView}


# --- Questions ----------------------------------------------------------------------------------------------------


def test_a_question_is_answered_with_an_option_and_the_page_follows_it(
    orchestrator: Orchestrator, browser: Browser
) -> None:
    outbox = Outbox()
    question = asked(orchestrator, outbox, default="SQLite", deadline="2099-01-01T00:00:00.000000Z", context={"a": "b"})
    page = browser.open(f"/q/{question['id']}")
    for words in ("Which database?", "backend-7", "2099-01-01", "the agent goes on with SQLite", "recommended"):
        assert words in page.words
    after = browser.send(**{"option-1": "1"})
    assert browser.path == f"/q/{question['id']}"
    (item,) = answers(orchestrator, outbox)
    assert item["answers"] == [{"question_id": "q1", "options": ["PostgreSQL"]}]
    assert (item["channel"], item["responder"]["id"], item["late"]) == ("web", "local", False)
    assert "Answered by you" in after.words
    assert "Waiting for the agent to pick it up" in after.words
    assert not [form for form in after.forms if "/q/" in form.action]
    take(orchestrator, taken(outbox, question, item["answer_id"]))
    assert "Picked up by the agent" in browser.open(f"/q/{question['id']}").words


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"option-1": "2"}, {"options": ["SQLite"]}),
        ({"text-1": " Neither,\r\nuse files "}, {"text": "Neither,\nuse files"}),
        ({"option-1": "1", "text-1": "version 16"}, {"options": ["PostgreSQL"], "text": "version 16"}),
        ({"text-1": "a\x00b"}, {"text": "a�b"}),
    ],
)
def test_an_answer_is_an_option_or_words_or_both(
    orchestrator: Orchestrator, browser: Browser, fields: dict[str, str], expected: dict[str, Any]
) -> None:
    outbox = Outbox()
    browser.open(f"/q/{asked(orchestrator, outbox)['id']}")
    browser.send(**fields)
    assert [item["answers"] for item in answers(orchestrator, outbox)] == [[{"question_id": "q1", **expected}]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Choose an option or write an answer"),
        ({"option-1": "3"}, "not there any more"),
        ({"option-1": "x", "text-1": "kept"}, "not there any more"),
        ({"text-1": "x" * 16_385}, "16,385"),
        ({"digest": "sha256:0"}, "Nothing was sent"),
    ],
)
def test_an_answer_that_is_none_is_told_and_what_was_written_stays(
    orchestrator: Orchestrator, browser: Browser, fields: dict[str, str], words: str
) -> None:
    outbox = Outbox()
    browser.open(f"/q/{asked(orchestrator, outbox)['id']}")
    page = browser.send(**({"text-1": "", "option-1": ""} | ({"text-1": "y"} if "digest" in fields else {}) | fields))
    assert browser.reply.status_code == 400
    assert words in page.words
    assert [given["role"] for tag, given in page.elements if given.get("role") == "alert"]
    assert page.forms[-2].fields["text-1"] == (fields.get("text-1") or ("y" if "digest" in fields else ""))
    assert answers(orchestrator, outbox) == []


def test_several_questions_are_answered_at_once_and_some_may_stay_open(
    orchestrator: Orchestrator, browser: Browser
) -> None:
    outbox = Outbox()
    more = {"id": "when", "text": "When?"}
    question = asked(orchestrator, outbox, CHOICE, more, {"id": "who", "text": "Who?"}, default={"when": "now"},
                     deadline="2099-01-01T00:00:00.000000Z")  # fmt: skip
    page = browser.open(f"/q/{question['id']}")
    assert "3 questions" in page.words
    assert "With no answer: now" in " ".join(page.words.split())
    browser.send(**{"option-1": "2", "text-3": "Grace"})
    assert "When?" in browser.page.words
    (item,) = answers(orchestrator, outbox)
    assert item["answers"] == [
        {"question_id": "q1", "options": ["SQLite"]},
        {"question_id": "who", "text": "Grace"},
    ]


def test_who_cannot_answer_declines_and_that_is_no_answer(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    browser.open(f"/q/{asked(orchestrator, outbox)['id']}")
    page = browser.send(1, button="declined", comment="ask grace")
    (item,) = answers(orchestrator, outbox)
    assert (item["outcome"], item["comment"], item.get("answers")) == ("declined", "ask grace", None)
    assert "Declined by you" in page.words


def test_a_form_that_is_sent_twice_says_it_once(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    page = browser.open(f"/q/{asked(orchestrator, outbox)['id']}")
    browser.send(**{"option-1": "1"})
    browser.page = page
    again = browser.send(**{"option-1": "1"})
    assert len(answers(orchestrator, outbox)) == 1
    assert "Too late" not in again.words


def test_of_two_answers_the_first_counts_and_the_other_is_told_so(orchestrator: Orchestrator, app: Flask) -> None:
    outbox = Outbox()
    question = asked(orchestrator, outbox)
    ada, grace = (signed_in(app, token(orchestrator, name)) for name in ("ada", "grace"))
    for each in (ada, grace):
        each.open(f"/q/{question['id']}")
    grace.send(**{"option-1": "1"})
    page = ada.send(**{"option-1": "2"})
    assert "Answered by grace" in page.words
    assert "Too late: ada answered" in page.words
    assert "Answered by you" in grace.open(f"/q/{question['id']}").words
    assert [(item["responder"]["id"], item["late"]) for item in answers(orchestrator, outbox)] == [
        ("grace", False),
        ("ada", True),
    ]


def test_a_question_that_is_settled_otherwise_is_shown_as_what_it_is(
    orchestrator: Orchestrator, browser: Browser, clock: Clock
) -> None:
    outbox = Outbox()
    past = asked(orchestrator, outbox, deadline=at((clock.now_us - BEGIN_US) / 1e6 + 60), key="1")
    gone = asked(orchestrator, outbox, key="2")
    take(orchestrator, outbox.event("clarification.withdrawn.v1", clarification_id=gone["id"], reason="found it"))
    clock.pass_(61)
    page = browser.open(f"/q/{past['id']}")
    assert "Nobody answered in time" in page.words
    assert "not a no" in page.words
    page = browser.open(f"/q/{gone['id']}")
    assert "Withdrawn" in page.words
    assert "found it" in page.words
    assert [form for form in page.forms if "/q/" in form.action] == []


def test_looking_at_a_question_tells_its_agent_once(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    question = asked(orchestrator, outbox)
    browser.client.get(f"/q/{question['id']}", headers={"Sec-Purpose": "prefetch;prerender"})
    browser.client.head(f"/q/{question['id']}")
    assert items(orchestrator, outbox) == []
    for _ in range(2):
        browser.open(f"/q/{question['id']}")
    assert [item["type"] for item in items(orchestrator, outbox)] == ["clarification.seen.v1"]


@pytest.mark.parametrize("review", [False, True])
def test_links_in_messages_lead_to_the_page_where_one_answers(
    orchestrator: Orchestrator, browser: Browser, review: bool
) -> None:
    outbox = Outbox()
    event = outbox.completion(review=True) if review else outbox.question(text="Which one?")
    take(orchestrator, event)
    reminder = {"type": event["type"], "id": event["id"], "data": event["data"]}
    again = outbox.event("reminder.v1", about=reminder, number=1, waited_s=60, priority="low", escalated=False)
    for told in (event, again):
        message = message_of(told, "http://localhost/")
        assert message is not None
        page = browser.open(message.links[0].url.removeprefix("http://localhost"))
        assert browser.reply.status_code == 200
        assert ("Is the result of task-1 good?" if review else "Which one?") in page.words


# --- Reviews, tasks, errors, agents -------------------------------------------------------------------------------


def test_a_review_is_decided_with_a_comment(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    completion = outbox.completion(review=True, quality_score=85.0)
    take(orchestrator, completion)
    page = browser.open(f"/r/{completion['id']}")
    assert "85 of 100" in page.words
    assert "With no answer" in page.words
    assert "Choose a decision" in browser.send().words
    assert "Say which changes" in browser.send(outcome="changes_requested").words
    assert items(orchestrator, outbox) == []
    page = browser.send(outcome="changes_requested", comment="name it better")
    (item,) = items(orchestrator, outbox)
    assert (item["type"], item["outcome"], item["comment"]) == (
        "review.decided.v1",
        "changes_requested",
        "name it better",
    )
    assert "Changes requested by you" in page.words
    assert "Waiting for the agent to pick it up" in page.words
    assert "With no answer" not in page.words
    orchestrator.decide(
        completion["id"], Decision("rejected", {"kind": "human", "id": "bo"}, None, None, "web", None, 1)
    )
    orchestrator.acknowledge(outbox.source, orchestrator.page(outbox.source, "", 0).cursor)
    orchestrator.decide(
        completion["id"], Decision("approved", {"kind": "human", "id": "cy"}, None, None, "web", None, 1)
    )
    page = browser.open(f"/r/{completion['id']}")  # only the first decision counts; a late one may wait
    assert "Picked up by the agent" in page.words
    assert "Waiting for the agent" not in page.words


def test_an_agent_is_written_to_and_asked_to_stop_on_the_page_of_its_task(
    orchestrator: Orchestrator, browser: Browser
) -> None:
    outbox = Outbox()
    take(orchestrator, outbox.status("a/b?c#d"))
    address = "/task?id=a%2Fb%3Fc%23d"
    browser.open(address)
    assert "Write a message" in browser.send("/message").words
    assert "on its way" in browser.send("/message", comment="Hi", urgent="on").words
    browser.open(address)
    assert "asked to stop" in browser.send("/cancel", comment="No longer needed").words
    said, stop = items(orchestrator, outbox)
    assert (said["text"], said["urgent"], said["task_id"]) == ("Hi", True, "a/b?c#d")
    assert (stop["type"], stop["reason"]) == ("task.cancel_requested.v1", "No longer needed")


def test_tasks_are_filtered_by_the_address_and_paged(orchestrator: Orchestrator, browser: Browser) -> None:
    one, two = Outbox(agent="one"), Outbox(agent="two")
    take(
        orchestrator,
        *(one.status(f"task-{n:03}") for n in range(60)),
        one.status("odd", "failed", current_step="100 %"),
    )
    take(orchestrator, two.status("other"))
    rows = _rows(browser.open("/tasks?agent=one"))
    assert len(rows) == 50
    older = next(link for link in _links(browser.page) if "before=" in link)
    assert "agent=one" in older
    assert sorted({*rows, *_rows(browser.open(older))}) == sorted([*(f"task-{n:03}" for n in range(60)), "odd"])
    assert _rows(browser.open("/tasks?status=failed")) == ["odd"]
    assert _rows(browser.open("/tasks?q=100+%25")) == ["odd"]
    assert _rows(browser.open("/tasks?agent=two")) == ["other"]
    page = browser.open("/tasks?q=nowhere&status=failed")
    assert "No task like this" in page.words
    assert next(given for _, given in page.elements if given.get("id") == "q")["value"] == "nowhere"


def _rows(page: Page) -> list[str]:
    from urllib.parse import parse_qs, urlsplit

    return [parse_qs(urlsplit(link).query)["id"][0] for link in _links(page) if link.startswith("/task?")]


def test_the_history_of_a_task_is_paged_to_its_beginning(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    take(orchestrator, *(outbox.status(current_step=f"step-{n:03}.") for n in range(230)))
    found, address = [], "/task?id=task-1"
    while address:
        page = browser.open(address)
        found += [n for n in range(229, -1, -1) if f": step-{n:03}." in page.words]
        address = next((link.split("#")[0] for link in _links(page) if "before=" in link), "")
    assert found == list(range(229, -1, -1))


def test_an_error_is_shown_with_what_the_agent_tried(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    first = outbox.error(error_message="once", dedup_key="k", traceback="File one", fatal=False)
    other = outbox.error(error_message="elsewhere", traceback="File else")
    last = outbox.error(
        error_message="twice", dedup_key="k", first_id=first["id"], count=2, traceback="File two", context={"a": "b"}
    )
    take(orchestrator, first, last, other)
    page = browser.open(f"/error?task=task-1&id={first['id']}")
    for words in ("twice", "2 times", "File two", "failed"):
        assert words in page.words
    assert "File else" not in page.words
    orchestrator.prune(2**60)
    assert "beyond the retention" in browser.open(f"/error?task=task-1&id={first['id']}").words
    assert browser.open(f"/error?task=task-2&id={first['id']}").words.count("Not found")


def test_an_error_is_set_aside_on_its_page_and_leaves_what_needs_people(
    orchestrator: Orchestrator, browser: Browser
) -> None:
    outbox = Outbox()
    error = outbox.error(priority="critical", error_message="no entry", dedup_key="k")
    take(orchestrator, error)
    assert "no entry" in browser.open("/").words
    browser.open(f"/error?task=task-1&id={error['id']}")
    assert "At most 4,096" in browser.send("/error", comment="x" * 5000).words
    assert browser.reply.status_code == 400
    page = browser.send("/error", comment="the agent is gone")
    assert "set aside" in page.words
    assert "by you, just now" in page.words
    assert [form.action for form in page.forms if form.method == "post"] == []
    assert "Nothing needs you" in browser.open("/").words
    page = browser.open("/task?id=task-1")
    assert "aside: the agent is gone" in page.words
    assert page.words.count("The event as it came") == 1
    again = outbox.error(priority="critical", error_message="again", dedup_key="k", first_id=error["id"], count=2)
    take(orchestrator, again)
    assert "again" in browser.open("/").words


def test_agents_are_shown_with_their_outboxes_and_what_is_missing(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox(agent="lossy")
    take(orchestrator, outbox.status(sequence=1), outbox.status(sequence=4), outbox.status(sequence=9))
    outbox.event("task.status.v1", status="pending")
    take(orchestrator, outbox.event("agent.heartbeat.v1", "lossy", sequence=10, agent_id="lossy",
                                    outbox={"pending": 7, "dead": 2, "oldest_age_s": 75.0}))  # fmt: skip
    words = browser.open("/agents").words
    for expected in ("lossy", "7 pending", "1 min", "2 dead", "6 missing", "2 to 3", "5 to 8"):
        assert expected in words


def test_health_tells_what_is_open_and_the_keys(orchestrator: Orchestrator, browser: Browser, kind: str) -> None:
    asked(orchestrator, Outbox())
    words = browser.open("/health").words
    assert "The database answers" in words
    assert {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[kind] in words


@pytest.mark.parametrize(
    "address",
    ["/nothing", "/q/nothing", "/r/nothing", "/task?id=x", "/error?task=x&id=y", "/event?place=1-9", "/event?place=x"],
)
def test_what_is_not_there_is_told_in_words(browser: Browser, address: str) -> None:
    page = browser.open(address)
    assert browser.reply.status_code == 404
    assert "Not found" in page.words


@pytest.mark.parametrize("address", ["/cancel", "/message", "/logout"])
def test_an_address_that_only_takes_forms_says_so_to_a_person_and_a_problem_to_a_program(
    browser: Browser, address: str
) -> None:
    page = browser.open(address)
    assert (browser.reply.status_code, set(browser.reply.allow)) == (405, {"OPTIONS", "POST"})
    assert "Nothing was done" in page.words
    told = browser.client.get(address)
    assert (told.status_code, told.mimetype, set(told.allow)) == (405, "application/problem+json", {"OPTIONS", "POST"})


@pytest.mark.parametrize("address", ["/v1/events", "/v1/nothing", "/api/answers", "/api/nothing"])
def test_a_browser_at_an_address_for_programs_gets_a_problem(browser: Browser, address: str) -> None:
    browser.open(address)
    assert (browser.reply.status_code, browser.reply.mimetype) in (
        (404, "application/problem+json"),
        (405, "application/problem+json"),
    )


def test_a_page_that_has_not_changed_is_not_sent_again(orchestrator: Orchestrator, browser: Browser) -> None:
    outbox = Outbox()
    take(orchestrator, outbox.status())
    browser.open("/tasks")
    etag = browser.reply.headers["ETag"]
    assert browser.client.get("/tasks", headers={"If-None-Match": etag}).status_code == 304
    take(orchestrator, outbox.status("new"))
    assert browser.client.get("/tasks", headers={"If-None-Match": etag}).status_code == 200


def test_a_database_that_does_not_answer_is_told_in_words(
    orchestrator: Orchestrator, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    def away() -> Any:
        raise OperationalError("SELECT", {}, Exception("gone"))

    browser.open("/")
    with (
        monkeypatch.context() as patch
    ):  # not until the orchestrator is closed, which lets go of the reader's connections
        patch.setattr(orchestrator, "reader", away)
        page = browser.open("/")
    assert browser.reply.status_code == 503
    assert "The database does not answer" in page.words


# --- Who comes in -------------------------------------------------------------------------------------------------


def test_a_link_from_a_chat_survives_the_login(orchestrator: Orchestrator, app: Flask) -> None:
    question = asked(orchestrator, Outbox())
    text, browser = token(orchestrator), Browser(app)
    page = browser.open(f"/q/{question['id']}?from=chat")
    assert "Sign in" in page.words
    assert "Which database?" not in page.words
    page = browser.send("/login", token=text)
    assert browser.path == f"/q/{question['id']}?from=chat"
    assert "Which database?" in page.words
    browser.send(**{"option-1": "1"})
    assert "Answered by you" in browser.page.words


def test_nobody_sees_or_does_anything_without_signing_in(orchestrator: Orchestrator, app: Flask) -> None:
    addresses = hostile(orchestrator)
    token(orchestrator)
    browser = Browser(app)
    for address in addresses:
        page = browser.open(address)
        assert "Sign in" in page.words or browser.reply.status_code == 404
        assert "alert(1)" not in page.words
    csrf = browser.page.forms[0].fields["csrf"] if browser.page.forms else ""
    browser.open("/login")
    csrf = browser.page.forms[0].fields["csrf"]
    for path, back in (("/cancel", "/"), ("/message", "/"), ("/q/x", "/q/x"), ("/r/x", "/r/x")):
        reply = browser.client.post(path, data={"csrf": csrf, "task": "task-1", "comment": "x"})
        assert (reply.status_code, reply.headers["Location"]) == (303, f"/login?next={back}")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tasks?status=failed", "/tasks?status=failed"),
        ("//evil.example/", "/"),
        ("/\\evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("", "/"),
    ],
)
def test_the_login_leads_back_to_own_paths_only(
    orchestrator: Orchestrator, app: Flask, path: str, expected: str
) -> None:
    text, browser = token(orchestrator), Browser(app)
    browser.open("/login")
    form = browser.page.forms[0].fields | {"token": text, "next": path}
    assert browser.client.post("/login", data=form).headers["Location"] == expected


def test_the_cookie_is_closed_to_scripts_and_other_sites_and_only_its_hash_is_kept(
    orchestrator: Orchestrator, app: Flask, tmp_path: Any
) -> None:
    text = token(orchestrator)
    for base, name, secure in (
        ("http://localhost:8765", "orchclient-8765", False),
        ("http://orch.example", "__Host-orchclient", True),
    ):
        browser = Browser(app, base)
        browser.open("/login")
        before = [each.value for each in browser.client._cookies.values()]
        form = browser.page.forms[0].fields | {"token": text}
        origin = base.replace("http:", "https:") if secure else base
        reply = browser.client.post("/login", data=form, base_url=base, headers={"Origin": origin})
        cookie = next(each for each in reply.headers.getlist("Set-Cookie") if each.startswith(f"{name}="))
        assert ("; Secure" in cookie, "; HttpOnly" in cookie, "SameSite=Lax" in cookie) == (secure, True, True)
        value = cookie.partition("=")[2].partition(";")[0]
        assert value not in before
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("orchestrator.db*"))
        assert value.encode() not in kept


def test_a_sign_in_ends_with_its_token_with_time_and_at_will(
    orchestrator: Orchestrator, app: Flask, clock: Clock
) -> None:
    text = token(orchestrator)
    first, second = signed_in(app, text), signed_in(app, text)
    assert "Needs you" in first.open("/").words
    cookies = {each.key: each.value for each in first.client._cookies.values()}
    assert "Sign in" in first.send("/logout").words
    for name, value in cookies.items():
        first.client.set_cookie(name, value)
    assert "Sign in" in first.open("/").words
    orchestrator.writing(lambda session: access.revoke(session, "ada", 2))
    assert "Sign in" in second.open("/").words
    third = signed_in(app, token(orchestrator, "grace"))
    clock.pass_(14 * 86_400 + 1)
    assert "Sign in" in third.open("/").words


@pytest.mark.parametrize(("given", "words"), [("", "Enter a token"), ("orch_x", "not good"), ("AGENT", "for agents")])
def test_a_token_that_is_not_a_persons_is_refused_in_words(
    orchestrator: Orchestrator, app: Flask, given: str, words: str
) -> None:
    token(orchestrator)
    agent, browser = token(orchestrator, "backend-7", "agent"), Browser(app)
    browser.open("/login")
    assert words in browser.send("/login", token=agent if given == "AGENT" else given).words
    assert browser.reply.status_code == 403
    assert "Sign in" in browser.open("/").words


def test_guesses_are_limited(orchestrator: Orchestrator, app: Flask) -> None:
    text, browser = token(orchestrator), Browser(app)
    browser.open("/login")
    for _ in range(MOST):
        browser.send("/login", token="orch_guess")
        assert browser.reply.status_code == 403
    browser.send("/login", token="orch_guess")
    assert browser.reply.status_code == 429
    assert int(browser.reply.headers["Retry-After"]) <= EACH_S + 1
    assert text


def refused_logins(url: str, *addresses: str) -> list[int]:
    """What one bad login for each of these words of a proxy is answered with."""
    with requests.Session() as session:
        form = Page(session.get(f"{url}/login", headers={"Accept": "text/html"}, timeout=30).text).forms[0].fields
        data = form | {"token": "orch_guess"}
        return [
            session.post(f"{url}/login", data=data, headers={"X-Forwarded-For": each}, timeout=30).status_code
            for each in addresses
        ]


@pytest.mark.parametrize(("proxies", "is_believed"), [(["127.0.0.1"], True), (["10.0.0.1"], False), ([], False)])
def test_behind_a_proxy_that_is_trusted_each_person_has_a_limit_of_their_own(
    orchestrator: Orchestrator, proxies: list[str], is_believed: bool
) -> None:
    token(orchestrator)
    server = Server(orchestrator, Listening(port=0, trusted_proxies=proxies))
    running = threading.Thread(target=server.run)
    running.start()
    try:
        claimed = [f"198.51.100.{n}, 203.0.113.7" for n in range(MOST + 1)]  # what a client claims comes first
        *_, last, other = refused_logins(server.url, *claimed, "203.0.113.8")
    finally:
        server.stop()
        running.join()
    assert (last, other) == (429, 403 if is_believed else 429)


def test_a_proxy_that_is_no_address_is_refused(orchestrator: Orchestrator) -> None:
    with pytest.raises(ConfigError, match=r"trusted proxy is named by its IP address.*'proxy\.example'"):
        create_app(orchestrator, trusted_proxies=["proxy.example"])


def test_a_limit_wears_off_and_holds_for_one_address() -> None:
    guesses = Guesses()
    for _ in range(MOST):
        assert guesses.wait_s("a", 0.0) == 0
        guesses.failed("a", 0.0)
    assert guesses.wait_s("a", 0.0) == EACH_S
    assert guesses.wait_s("b", 0.0) == 0
    assert guesses.wait_s("a", EACH_S) == 0
    for n in range(10_000):
        guesses.failed(str(n), 0.0)
    assert len(guesses._spent_until) <= 4_096


def test_a_cookie_opens_the_page_only(orchestrator: Orchestrator, app: Flask) -> None:
    browser = signed_in(app, token(orchestrator))
    for path in ("/api/needs", "/v1/capabilities", "/metrics"):
        assert browser.client.get(path).status_code == 401


def test_a_form_of_somebody_elses_making_does_nothing(orchestrator: Orchestrator, app: Flask, browser: Browser) -> None:
    outbox = Outbox()
    question = asked(orchestrator, outbox)
    address = f"/q/{question['id']}"
    browser.open(address)
    data = browser.page.forms[0].fields | {"option-1": "1", "outcome": "answered"}
    other = Browser(app)
    other.open(address)
    attempts: list[tuple[Browser, dict[str, str], dict[str, str]]] = [
        (browser, data | {"csrf": ""}, {}),
        (browser, data | {"csrf": "0" * 64}, {}),
        (browser, data | {"csrf": "é"}, {}),
        (browser, data | {"csrf": other.page.forms[0].fields["csrf"]}, {}),
        (Browser(app), data, {}),
        (browser, data, {"Origin": "http://evil.example"}),
        (browser, data, {"Origin": "null"}),
        (browser, data, {"Sec-Fetch-Site": "cross-site"}),
        (browser, data, {"Host": "evil.example"}),
    ]
    for each, sent, headers in attempts:
        reply = each.client.post(address, data=sent, headers=headers)
        assert reply.status_code in (400, 403), (sent, headers)
    assert answers(orchestrator, outbox) == []
    assert browser.client.post(address, data=data).status_code == 303
    assert len(answers(orchestrator, outbox)) == 1


def test_without_any_token_the_page_is_open_to_this_machine_and_to_no_other_name(browser: Browser) -> None:
    assert "Needs you" in browser.open("/").words
    assert browser.client.get("/", headers={"Host": "evil.example"}).status_code == 400
    browser.open("/login")
    assert browser.path == "/"


def test_an_application_may_have_pages_of_its_own(orchestrator: Orchestrator) -> None:
    client = create_app(orchestrator, has_page=False).test_client()
    assert client.get("/").status_code == 404
    assert client.get("/healthz").status_code == 200
