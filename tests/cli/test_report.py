"""``orchclient report``: the page of a task is whole, tells what happened, and nothing in it is more than text."""

from __future__ import annotations

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from orchclient.cli.report_curve import WIDTH, Curve, svg, thinned
from orchclient.testing.receiver import Receiver
from tests.cli.inside import Inside, inside
from tests.conftest import MakeClient

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\" ' & \x1b[31m\u202e 任务"


class Page(HTMLParser):
    """A page as a browser reads it."""

    VOID = frozenset({"meta", "br", "line", "rect", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """What is read on it, in one line."""
        return " ".join(" ".join(self.texts).split())


def reported(outbox_path: Path, task: str = "t") -> str:
    ended = inside("--db", str(outbox_path), "report", task, "-o", "-")
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def test_a_task_is_told_from_its_start_to_its_deliveries(
    make_client: MakeClient, outbox_path: Path, receiver: Receiver
) -> None:
    receiver.reject(lambda event: event["type"].endswith("escalated.v1"), code="unknown_task", detail="no such task")
    client = make_client(url=receiver.url)
    with client.task("t") as task:
        for percent in (10, 20, 30):
            task.progress(percent, "Writing")
        question = task.ask("Which port?", options=["80", "8080"], recommended="8080")
        receiver.answer(question, "8080", by="ada", comment="the free one")
        assert question.wait(20)
        task.escalate("tests_failed", "3 of 120 fail", fatal=False)
        task.complete("https://example.com/pull/7", {"tests_passed": 120, "code_coverage": 91}, review=True)
    client.flush(20)
    text = reported(outbox_path)
    page = Page(text)
    for words in (
        "review ready at 100 %", "Quality 90 of 100", "Which port?", "● 8080 (recommended, chosen)", "○ 80",
        "answered by ada", "the free one", "Review of the result", "In progress 30 %", "Writing", "and 2 updates until",
        "Called for help, low: tests_failed", "3 of 120 fail", "dead: unknown_task: no such task",
        "The newest attempts", "Handed in the result", "quality 90",
    ):  # fmt: skip
        assert words in page.text, words
    assert {"svg", "table", "details", "time"} <= set(page.tags)
    assert ("a", "href", "https://example.com/pull/7") in page.attributes
    assert text.count('class="wait"') == 2
    assert text.count('class="error"') == 1


def test_nothing_that_anybody_wrote_is_more_than_text(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client("agent <b>")
    client.update_task_status("t<i>", "testing", {HOSTILE: HOSTILE}, 40, HOSTILE)
    question = client.request_clarification("t<i>", HOSTILE, options=[HOSTILE, "b"], context={"a": HOSTILE})
    inside("--db", str(outbox_path), "answer", question.id, "1", "--comment", HOSTILE, "--by", "<u>")
    client.escalate_error("t<i>", "<s>", HOSTILE, traceback=HOSTILE)
    client.report_completion("t<i>", "javascript:alert(1)", {}, {"x": HOSTILE}, review=True)
    text = reported(outbox_path, "t<i>")
    page = Page(text)
    assert set(page.tags) & {"script", "img", "i", "b", "u", "s", "iframe", "link", "object"} == set()
    assert {name for _, name, _ in page.attributes if name.startswith("on")} == set()
    for _, name, value in page.attributes:
        if name in ("href", "src"):
            assert re.match(r"https?://", value)
    assert "javascript:alert(1)" in page.text
    assert "default-src 'none'" in text
    assert not set(text) & {"\x1b", "\u202e"}
    assert "任务" in page.text


def test_the_page_needs_nothing_but_itself(make_client: MakeClient, outbox_path: Path) -> None:
    make_client().update_task_status("t", "testing", None, 40)
    text = reported(outbox_path)
    assert not re.search(r"( src=| href=|url\(|@import)", text)


def test_a_file_is_written_for_its_owner_and_never_over_another(
    make_client: MakeClient, outbox_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_client().update_task_status("../etc/a b", "testing")
    monkeypatch.chdir(outbox_path.parent)
    command = Inside(outbox_path)
    ended = command.json("report", "../etc/a b")
    path = outbox_path.parent / "etc-a-b.html"
    assert (ended["path"], stat.S_IMODE(path.stat().st_mode), ended["moments"]) == ("etc-a-b.html", 0o600, 1)
    path.write_text("mine")
    again = command("report", "../etc/a b")
    assert (again.code, path.read_text(), "--force" in again.err) == (1, "mine", True)
    assert command("report", "../etc/a b", "--force").code == 0
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert command("report", "../etc/a b", "-o", "/nowhere/at/all.html").code == 1
    assert [each.name for each in outbox_path.parent.glob(".*")] == []


def test_what_cannot_be_reported_is_told(make_client: MakeClient, outbox_path: Path, tmp_path: Path) -> None:
    make_client().update_task_status("t", "testing")
    assert "no events of task" in Inside(outbox_path)("report", "u").err
    assert "no outbox yet" in Inside(tmp_path / "none.db")("report", "t").err
    assert Inside(outbox_path)("report", "t", "-o", "-", "--json").code == 2


def test_a_long_task_is_cut_and_says_so(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client(background=False)
    with client.transaction():
        for number in range(2_050):
            client.update_task_status("t", "testing", {"n": number}, number / 21)
    text = reported(outbox_path)
    assert "Only the newest events are shown." in text
    assert text.count("<li ") == 2_000
    assert len(re.findall("H", re.findall(r'class="progress" d="([^"]*)"', text)[0])) <= 400


def test_a_task_without_progress_or_events_has_a_page(make_client: MakeClient, outbox_path: Path) -> None:
    client = make_client(background=False)
    client.update_task_status("t", "testing")
    assert "<svg" not in reported(outbox_path)
    inside("--db", str(outbox_path), "prune", "--older-than", "0s")
    Page(reported(outbox_path))


# --- the picture ------------------------------------------------------------------------------------------------------


def test_the_curve_keeps_within_its_frame() -> None:
    curve = Curve([(5, 50), (1, 120), (9, -3)], [(0, 20)], [99, -5], 2, 8, "<a>", "b&", "<told>")
    drawn = svg(curve)
    assert "<a>" not in drawn
    numbers = [float(number) for number in re.findall(r'(?:x|x1|x2)="(-?[\d.]+)"|[MH](-?[\d.]+)', drawn) for number in
               number if number]  # fmt: skip
    assert all(0 <= number <= WIDTH for number in numbers)


def test_points_are_thinned_evenly_with_both_ends() -> None:
    points = [(n, float(n)) for n in range(1_000)]
    kept = thinned(points, 7)
    assert (len(kept), kept[0], kept[-1]) == (7, points[0], points[-1])
    assert thinned(points[:7], 7) == points[:7]
