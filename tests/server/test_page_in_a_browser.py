"""The page in a real browser: keys, what follows by itself, accessibility, and that nothing of an agent's is run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchclient import OrchestratorClient
from orchclient.server import app as application
from orchclient.server.orchestrator import Orchestrator
from orchclient.server.serving import Listening, Server
from tests.server.chromium import WAIT_MS, chromium, missing
from tests.server.events import Outbox
from tests.server.scenes import answered, working_day
from tests.server.test_page import CHOICE, asked, hostile, items, token
from tests.server.test_tasks import take
from tests.stopwatch import Stopwatch

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing() or "there is one")]
WAIT_S = WAIT_MS / 1000


@contextmanager
def serving(orchestrator: Orchestrator, port: int = 0) -> Iterator[Server]:
    """A server in a thread of this process."""
    server = Server(orchestrator, Listening(port=port))
    running = threading.Thread(target=server.run)
    running.start()
    try:
        yield server
    finally:
        server.stop()
        running.join(WAIT_S)


@pytest.fixture
def orchestrator(tmp_path: Path) -> Iterator[Orchestrator]:
    """In real time."""
    made = Orchestrator.open(str(tmp_path / "o.db"))
    yield made
    made.close()


@pytest.fixture
def server(orchestrator: Orchestrator) -> Iterator[Server]:
    with serving(orchestrator) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


OpenTab = Callable[..., Any]


@pytest.fixture
def new_tab(browser: Any, server: Server) -> Iterator[OpenTab]:
    """Opens tabs, each in a browser of its own; no error and no breach of the policy may show in any console."""
    contexts: list[Any] = []
    heard: list[str] = []

    def make(**settings: Any) -> Any:
        contexts.append(browser.new_context(base_url=server.url, **settings))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(WAIT_MS)
        _hear(tab, heard)
        return tab

    yield make
    for each in contexts:
        each.close()
    assert heard == []


def _hear(tab: Any, heard: list[str]) -> None:
    """Everything in which a browser tells that something is wrong, or that a script of somebody else's ran."""
    tab.on("console", lambda message: heard.append(message.text) if _is_trouble(message) else None)
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.add_init_script("window.alert = (word) => console.error(`a script says ${word}`)")


def _is_trouble(message: Any) -> bool:
    """A form that is refused is a 400, which a browser tells too; that is no trouble."""
    return message.type in ("error", "warning") and "status of 400" not in message.text


def wait_for(tab: Any, words: str) -> None:
    """Wait until the page says so, by itself."""
    tab.get_by_text(words).first.wait_for()


def look_again(tab: Any) -> None:
    """As when a person comes back to the tab: the page asks at once what is new."""
    tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


# --- Ten seconds --------------------------------------------------------------------------------------------------


def test_a_person_signs_in_answers_by_keys_and_sees_the_agent_take_it(
    orchestrator: Orchestrator, server: Server, new_tab: OpenTab, tmp_path: Path
) -> None:
    """With a real agent that waits for the answer."""
    agent_token, person_token = token(orchestrator, "backend-7", "agent"), token(orchestrator, "ada")
    with OrchestratorClient(
        "backend-7", outbox=tmp_path / "outbox.db", url=server.url, token=agent_token
    ) as client, ThreadPoolExecutor(1) as pool:  # fmt: skip
        question = client.request_clarification("task-1", "Which database?", options=["PostgreSQL", "SQLite"])
        assert client.flush(WAIT_S)
        tab = new_tab()
        tab.goto(f"/q/{question.id}")
        tab.keyboard.type(person_token)
        tab.keyboard.press("Enter")
        tab.locator("body.has-keys form.answer").wait_for()
        tab.keyboard.press("2")
        tab.keyboard.press("Enter")
        wait_for(tab, "Waiting for the agent to pick it up")
        assert tab.url.endswith(f"/q/{question.id}")
        tab.evaluate("window.isTheSamePage = true")
        answer = pool.submit(question.wait, WAIT_S).result(WAIT_S)
        wait_for(tab, "Picked up by the agent")
        assert tab.evaluate("window.isTheSamePage")
        assert tab.get_by_role("status").first.inner_text() == "Picked up by backend-7"
    assert answer is not None
    assert (answer.choice, answer.responder.id, answer.channel) == ("SQLite", "ada", "web")


def test_number_keys_write_numbers_into_texts_and_can_be_turned_off(
    orchestrator: Orchestrator, new_tab: OpenTab
) -> None:
    tab = new_tab()
    tab.goto(f"/q/{asked(orchestrator, Outbox(), CHOICE, CHOICE | {'id': 'q2'})['id']}")
    tab.evaluate("document.querySelector('form.answer').isTheSame = true")
    tab.locator("#live[data-is=live]").wait_for()
    assert tab.evaluate("document.querySelector('form.answer').isTheSame")  # nothing happened, nothing was replaced
    tab.keyboard.press("1")
    tab.keyboard.press("2")  # the question that has the focus
    assert [each.get_attribute("id") for each in tab.locator("input:checked").all()] == ["option-1-2"]
    tab.locator("#text-1").press("1")
    assert tab.locator("#text-1").input_value() == "1"
    tab.get_by_role("button", name="Turn them off").click()
    tab.reload()
    tab.get_by_role("button", name="Turn number keys on").wait_for()
    tab.keyboard.press("1")
    assert tab.locator("input:checked").count() == 0
    tab.get_by_role("button", name="Turn number keys on").click()


# --- What follows by itself ---------------------------------------------------------------------------------------


def test_a_form_in_use_stays_when_somebody_else_answers_and_one_that_is_not_goes(
    orchestrator: Orchestrator, new_tab: OpenTab
) -> None:
    outbox = Outbox()
    question = asked(orchestrator, outbox)
    used, focused, idle = new_tab(), new_tab(), new_tab()
    for tab in (used, focused, idle):
        tab.goto(f"/q/{question['id']}")
    used.locator("#text-1").fill("half a thou")
    used.locator("h1").click()  # edited, and without the focus
    focused.locator("#option-1-1").focus()
    answered(orchestrator, question)
    for tab in (used, focused, idle):
        wait_for(tab, "Answered by grace")
    assert used.locator("#text-1").input_value() == "half a thou"
    assert focused.evaluate("document.activeElement.id") == "option-1-1"
    idle.locator("form.answer").wait_for(state="detached")
    used.get_by_role("button", name="Send answer").click()
    wait_for(used, "Too late")
    told = [item["late"] for item in items(orchestrator, outbox) if "late" in item]
    assert told == [False, True]


def test_what_was_refused_stays_to_be_mended(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    outbox, tab = Outbox(), new_tab()
    tab.goto(f"/q/{asked(orchestrator, outbox, CHOICE, {'id': 'q2', 'text': 'When?'})['id']}")
    tab.locator("#text-2").fill("at noon")
    tab.evaluate("document.querySelector('#option-1-1').value = 'gone'")
    tab.locator("#option-1-1").check()
    with tab.expect_navigation():
        tab.get_by_role("button", name="Send answers").click()
    wait_for(tab, "not there any more")
    tab.evaluate("document.activeElement.blur()")
    tab.locator("#live[data-is=live]").wait_for()
    assert tab.locator("#text-2").input_value() == "at noon"
    assert tab.get_by_text("not there any more").is_visible()


def test_what_needs_a_person_appears_and_is_announced(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    tab = new_tab()
    tab.goto("/")
    wait_for(tab, "No agent has reported yet")
    asked(orchestrator, Outbox())
    look_again(tab)
    wait_for(tab, "Which database?")
    assert tab.title() == "(1) Needs you · orchclient"
    assert tab.locator("#announce").inner_text() == "1 open. question from backend-7"


def test_times_are_the_reader_s_own_with_their_zone_and_utc_without_a_script(
    orchestrator: Orchestrator, new_tab: OpenTab
) -> None:
    outbox = Outbox()
    question = outbox.question(questions=[CHOICE], deadline="2099-01-01T22:30:00.000000Z")
    take(orchestrator, question)
    for settings, told in (
        ({"timezone_id": "Asia/Kolkata"}, "2 Jan 2099, 04:00 GMT+5:30"),
        ({"timezone_id": "Asia/Kolkata", "java_script_enabled": False}, "2099-01-01 22:30 UTC"),
    ):
        tab = new_tab(**settings)
        tab.goto(f"/q/{question['id']}")
        deadline = tab.locator("time[data-at=minute]").first
        assert deadline.inner_text() == told
        assert "2099-01-01 22:30:00 UTC" in deadline.get_attribute("title")
        tab.goto("/")
        assert tab.locator(".deadline time").inner_text() == told
        tab.goto(f"/task?id={question['subject']}")
        assert tab.locator("p.line time").first.inner_text().endswith(told.rpartition(" ")[2])
    tab = new_tab(timezone_id="Asia/Kolkata")
    tab.goto("/")
    tab.locator("#live[data-is=live]").wait_for()
    other = outbox.question("task-2", questions=[CHOICE], deadline="2099-01-01T22:31:00.000000Z")
    take(orchestrator, other)  # what comes while the page is open, too
    look_again(tab)
    wait_for(tab, "2 Jan 2099, 04:01 GMT+5:30")
    assert tab.locator(".card .meta time").first.inner_text().endswith(("just now", "ago"))


def test_details_that_are_open_stay_open_while_the_history_grows(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    outbox, tab = Outbox(), new_tab()
    take(orchestrator, outbox.status(current_step="first", metadata={"a": "b"}))
    tab.goto("/task?id=task-1")
    tab.locator(".log summary").click()
    take(orchestrator, outbox.status(current_step="second"))
    look_again(tab)
    wait_for(tab, "in_progress: second")
    assert tab.locator(".log details[open]").count() == 1
    assert ["second" in each for each in tab.locator(".log li").all_inner_texts()] == [True, False]
    assert tab.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_tasks_change_where_they_stand_and_new_ones_wait_to_be_asked_for(
    orchestrator: Orchestrator, new_tab: OpenTab
) -> None:
    outbox, tab = Outbox(), new_tab()
    take(orchestrator, outbox.status("one"))
    take(orchestrator, outbox.status("two"))
    tab.goto("/tasks")
    tab.locator("tbody a").first.focus()
    take(orchestrator, outbox.status("one", "testing"), outbox.status("two", "failed"), outbox.status("three"))
    look_again(tab)
    tab.get_by_role("link", name="The list has changed").wait_for()
    assert tab.locator("tbody tr").all_inner_texts()[0].startswith("two\tfailed")
    assert tab.locator("tbody tr").all_inner_texts()[1].startswith("one\ttesting")
    assert tab.evaluate("document.activeElement.innerText") == "two"
    tab.get_by_role("link", name="The list has changed").click()
    tab.get_by_role("link", name="three").wait_for()
    assert tab.locator("tbody tr").count() == 3


def test_a_server_ends_in_time_with_pages_open_and_they_come_back(orchestrator: Orchestrator, browser: Any) -> None:
    question = asked(orchestrator, Outbox())
    context = browser.new_context()
    tab = context.new_page()
    with ExitStack() as ends:
        server = ends.enter_context(serving(orchestrator))
        tab.goto(f"{server.url}/q/{question['id']}")
        tab.locator("#live[data-is=live]").wait_for()
        with Stopwatch() as took:
            ends.close()
    assert took.s < 2.5
    tab.locator("#live[data-is=reconnecting]").wait_for()
    again = Orchestrator.open(str(orchestrator.session_local.kw["bind"].url.database))  # type: ignore[attr-defined]
    with serving(again, server.port):
        look_again(tab)
        tab.locator("#live[data-is=live]").wait_for()
    context.close()
    again.close()


# --- Whatever agents say ------------------------------------------------------------------------------------------


def test_nothing_that_an_agent_says_is_run(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    addresses, tab = [each for each in hostile(orchestrator) if "told=" not in each], new_tab()
    for address in addresses:
        if not address.startswith(("/%", "/q/%")):  # those are no pages, and the console says 404
            tab.goto(address)
            assert tab.locator("img, main script").count() == 0


@pytest.mark.parametrize("has_policy", [True, False])
def test_a_template_that_does_not_escape_would_be_run_but_for_the_policy(
    orchestrator: Orchestrator, browser: Any, monkeypatch: pytest.MonkeyPatch, has_policy: bool
) -> None:
    real = application.create_app

    def careless(*args: Any, **settings: Any) -> Any:
        app = real(*args, **settings)
        app.jinja_env.autoescape = False
        return app

    monkeypatch.setattr("orchclient.server.serving.create_app", careless)
    if not has_policy:
        monkeypatch.delitem(application._GUARDS, "Content-Security-Policy")  # type: ignore[arg-type]
    addresses = hostile(orchestrator)
    context, heard = browser.new_context(), list[str]()
    tab = context.new_page()
    _hear(tab, heard)
    with serving(orchestrator) as server:
        for address in addresses[1:5]:
            tab.goto(server.url + address)
    context.close()
    assert any("Content Security Policy" in each for each in heard) == has_policy, heard
    assert any(each == "a script says 1" for each in heard) != has_policy, heard


# --- For everybody ------------------------------------------------------------------------------------------------


def test_every_page_keeps_the_rules_of_accessibility(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    """WCAG 2.2 AA as far as axe can tell, in both colour schemes, wide and on a phone, whose width holds it all."""
    from axe_playwright_python.sync_playwright import Axe

    axe, day = Axe(), working_day(orchestrator)
    addresses = [
        *("/", "/tasks", "/agents", "/health", "/tasks?q=nothing"),
        f"/task?id={day['question']['subject']}",
        *(f"/q/{day[name]['id']}" for name in ("question", "many")),
        f"/r/{day['completion']['id']}",
        f"/error?task={day['error']['subject']}&id={day['error']['id']}",
    ]
    looks: list[dict[str, Any]] = [
        {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
        {"color_scheme": "dark", "viewport": {"width": 320, "height": 700}},
    ]
    tabs = [new_tab(**look) for look in looks]
    trouble = [told for tab in tabs for address in addresses for told in _violations(axe, tab, address)]
    answered(orchestrator, day["question"])
    token(orchestrator)
    trouble += [told for tab in tabs for told in _violations(axe, tab, f"/q/{day['question']['id']}")]
    assert trouble == []


RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}


def _violations(axe: Any, tab: Any, address: str) -> list[str]:
    tab.goto(address)
    too_wide = tab.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    found = axe.run(tab, options=RULES).response["violations"]
    told = [f"{address}: {each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]
    return told + ([f"{address}: wider than the window"] if too_wide else [])


def test_a_page_that_breaks_the_rules_would_be_found(new_tab: OpenTab) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab = new_tab()
    tab.goto("/tasks")
    tab.evaluate("document.querySelector('label').remove(); document.querySelector('h1').style.color = '#bbb'")
    found = {each["id"] for each in Axe().run(tab, options=RULES).response["violations"]}
    assert {"color-contrast", "select-name"} <= found


def test_a_page_is_used_by_keyboard_alone_and_the_focus_is_seen(orchestrator: Orchestrator, new_tab: OpenTab) -> None:
    tab = new_tab()
    tab.goto(f"/q/{asked(orchestrator, Outbox())['id']}")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.innerText") == "Skip to the content"
    tab.keyboard.press("Enter")
    reached: list[str] = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.innerText"))
        assert tab.evaluate(SEEN), reached[-1]
    assert reached[:4] == ["task-1", "option-1-1", "text-1", "Send answer"]


SEEN = """(() => {
  const focused = document.activeElement;
  const shown = focused.type === "radio" ? focused.nextElementSibling : focused;
  const style = getComputedStyle(shown);
  return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
})()"""
