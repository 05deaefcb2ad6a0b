"""The page of ``orchclient report``. Pure text; what an agent or a person wrote is escaped, and no script runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from orchclient import __version__
from orchclient.cli.output import age, plural, printable
from orchclient.cli.report_curve import Curve, svg
from orchclient.cli.report_story import Moment, Story
from orchclient.core.judging import RequestKind
from orchclient.core.message import web_address
from orchclient.outbox.requests import Request

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --text: #1c1c1a; --quiet: #5f5e5a; --line: #dddcd6;
  --good: #1f7a3d; --soon: #8a5a00; --bad: #b3261e; --mark: #1f5fbf; --wait: #f0d9a8; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --card: #1f1f1d; --text: #ecebe6; --quiet: #a5a49d;
  --line: #3a3a36; --good: #6fd08c; --soon: #e5b454; --bad: #ff8a80; --mark: #8ab4f8; --wait: #5a4716; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } a { color: var(--mark); } .quiet, time { color: var(--quiet); font-size: .9rem; }
.word { font-weight: 600; } .good { color: var(--good); } .soon { color: var(--soon); } .bad { color: var(--bad); }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem;
  margin: .75rem 0; overflow-wrap: anywhere; } figure { padding: .5rem; } figcaption { padding: 0 .5rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--quiet); font-size: 12px; }
@media (max-width: 36rem) { svg text { font-size: 20px; } }
svg .grid { stroke: var(--line); } svg .progress { fill: none; stroke: var(--mark); stroke-width: 2.5; }
svg .wait { fill: var(--wait); opacity: .6; } svg .error { fill: var(--bad); }
ol.timeline { list-style: none; margin: 0; padding: 0 0 0 1.1rem; border-left: 2px solid var(--line); }
ol.timeline > li { position: relative; padding: .35rem 0 .5rem; overflow-wrap: anywhere; }
ol.timeline > li::before { content: ""; position: absolute; left: calc(-1.1rem - 6px); top: .85rem; width: 10px;
  height: 10px; border-radius: 50%; background: var(--mark); }
ol.timeline > li.bad::before { background: var(--bad); } ol.timeline > li.good::before { background: var(--good); }
ol.timeline > li.soon::before { background: var(--soon); } li.bad, li.good, li.soon { color: inherit; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: .8rem/1.45 ui-monospace, monospace; margin: .5rem 0; }
summary { cursor: pointer; color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; } .text { white-space: pre-wrap; }
"""

_TONES = {
    "completed": "good",
    "approved": "good",
    "answered": "good",
    "delivered": "good",
    "failed": "bad",
    "rejected": "bad",
    "dead": "bad",
    "cancelled": "soon",
    "clarification_needed": "soon",
    "changes_requested": "soon",
    "open": "soon",
    "seen": "soon",
    "declined": "soon",
    "expired": "soon",
    "pending": "soon",
    "parked": "soon",
}


def page(story: Story) -> str:
    """The whole page."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer"><meta name="color-scheme" content="light dark">',
        f"<title>{_text(story.task)}: {_words(story.state.status)}</title><style>{STYLE}</style></head><body><main>",
        _head(story),
        _curve(story),
        *_section("What people were asked", (_request(story, *each) for each in story.asked)),
        "<h2>What happened</h2>",
        '<p class="quiet">Only the newest events are shown.</p>' if story.is_cut else "",
        '<ol class="timeline">',
        *map(_moment, story.moments),
        "</ol>",
        _deliveries(story),
        f'<p class="quiet">Written by orchclient {__version__}, {_instant(story.now_us)}. Times are UTC.</p>',
        "</main></body></html>",
        "",
    ]
    return "\n".join(part for part in parts if part != "") + "\n"


# --- the head ---------------------------------------------------------------------------------------------------------


def _head(story: Story) -> str:
    state = story.state
    first_us = story.moments[0].at_us if story.moments else state.updated_us
    progress = "" if state.progress_percentage is None else f" at {state.progress_percentage:g} %"
    lines = [
        f'<h1 dir="auto">{_text(story.task)}</h1>',
        f"<p>{_word(state.status)}{progress}"
        + (f': <span dir="auto">{_text(state.current_step)}</span>' if state.current_step else "")
        + "</p>",
        f'<p class="quiet">By {_text(state.agent_id)}, {plural(max(state.attempt, 1), "attempt")}. From '
        f"{_instant(first_us)} to {_instant(state.updated_us)}, {age((state.updated_us - first_us) / 1e6)} in all.</p>",
    ]
    results = [each for each in story.moments if each.type == "task.completed.v1"]
    if results:
        lines.append(_result(results[-1].data))
    return f"<header>{''.join(lines)}</header>"


def _result(data: Mapping[str, Any]) -> str:
    score = data.get("quality_score")
    quality = f"Quality {score:.0f} of 100" if isinstance(score, int | float) else "Handed in"
    return f"<p>{quality}{_link(data.get('pr_url'))}</p>"


def _link(url: Any) -> str:
    """An address of the web as a link; anything else as text."""
    if not isinstance(url, str) or not url:
        return ""
    address = web_address(url)
    if not address:
        return f": {_text(url)}"
    return f': <a href="{escape(address)}" rel="noopener noreferrer">{_text(url)}</a>'


def _curve(story: Story) -> str:
    if not story.points:
        return ""
    begin_us = min(each.at_us for each in story.moments)
    is_over = story.state.status in ("completed", "approved", "failed", "cancelled")
    end_us = max(story.state.updated_us if is_over else story.now_us, max(each.at_us for each in story.moments))
    last = story.points[-1][1]
    drawn = svg(
        Curve(
            story.points,
            [(request.asked_us, request.settled_us or end_us) for request, _ in story.asked],
            [each.at_us for each in story.moments if each.type == "error.escalated.v1"],
            begin_us,
            end_us,
            _clock(begin_us),
            _clock(end_us),
            f"Progress over time, last {last:g} %",
        )
    )
    legend = ["The line is progress."]
    if story.asked:
        legend.append("Shaded: people were waited for.")
    if any(each.type == "error.escalated.v1" for each in story.moments):
        legend.append("Triangles: calls for help.")
    return f'<figure>{drawn}<figcaption class="quiet">{" ".join(legend)}</figcaption></figure>'


# --- people -----------------------------------------------------------------------------------------------------------


def _section(title: str, parts: Iterable[str]) -> list[str]:
    found = list(parts)
    return [f"<h2>{title}</h2>", *found] if found else []


def _request(story: Story, request: Request, data: Mapping[str, Any]) -> str:
    waited = age(((request.settled_us or story.now_us) - request.asked_us) / 1e6)
    answered = request.answered or {}
    outcome = str(answered.get("outcome") or request.state.value)
    lines = []
    if request.kind is RequestKind.REVIEW:
        lines.append(f"<p>Review of the result{_link(data.get('pr_url'))}</p>")
    for question in data.get("questions", ()) if request.kind is RequestKind.QUESTION else ():
        lines.append(f'<p class="text" dir="auto"><strong>{_text(question.get("text"))}</strong></p>')
        lines += [_option(question, option, answered) for option in question.get("options", ())]
    words = (str(each.get("text") or "") for each in answered.get("answers", ()))
    lines += [f'<p class="text" dir="auto">{_text(each)}</p>' for each in words if each]
    if answered.get("comment"):
        lines.append(f'<p class="text" dir="auto">{_text(answered["comment"])}</p>')
    who = answered.get("responder") or {}
    by = who.get("display") or who.get("id") or who.get("kind")
    how_long = f"for {waited}" if request.state.is_open else f"after {waited}"
    told = f"{_word(outcome)}{f' by {_text(by)}' if by else ''} {how_long}. Asked {_instant(request.asked_us)}"
    if data.get("deadline") and request.kind is RequestKind.QUESTION:
        told += f", until {_text(data['deadline'])}"
    return f'<div class="card">{"".join(lines)}<p class="quiet">{told}.</p></div>'


def _option(question: Mapping[str, Any], option: Any, answered: Mapping[str, Any]) -> str:
    chosen = any(
        option in each.get("options", ()) and each.get("question_id") == question.get("id")
        for each in answered.get("answers", ())
    )
    notes = [*(["recommended"] if option == question.get("recommended") else []), *(["chosen"] if chosen else [])]
    note = f' <span class="quiet">({", ".join(notes)})</span>' if notes else ""
    mark = "●" if chosen else "○"
    return f'<p dir="auto">{mark} {_text(option)}{note}</p>'


# --- what happened ----------------------------------------------------------------------------------------------------


def _moment(each: Moment) -> str:
    word, text, tone = _told(each)
    more = f" and {plural(each.more, 'update')} until {_clock(each.until_us)}" if each.more else ""
    line = f'<span class="word">{_text(word)}</span>' + (
        f': <span class="text" dir="auto">{_text(text)}</span>' if text else ""
    )
    fates = ", ".join(f"{_text(name)} {_word(state)}" for name, state in each.fates.items())
    said = json.dumps(each.data, indent=2, ensure_ascii=False)
    return (
        f'<li class="{tone}"><time datetime="{_iso(each.at_us)}">{_instant(each.at_us)}{more}</time><br>{line}'
        + (f'<br><span class="quiet">{fates}</span>' if fates else "")
        + f"<details><summary>{_text(each.type)} {_text(each.id)}</summary><pre>{_text(said)}</pre></details></li>"
    )


def _told(each: Moment) -> tuple[str, str, str]:
    """A word, a text, and a tone for what happened."""
    data = each.data
    kind = each.type.removesuffix(".v1")
    if kind == "task.status":
        progress = "" if each.progress is None else f" {each.progress:g} %"
        status = str(data.get("status", ""))
        return f"{_words(status)}{progress}", str(data.get("current_step") or ""), _tone(status)
    if kind == "clarification.requested":
        texts = [str(question.get("text", "")) for question in data.get("questions", ()) if isinstance(question, dict)]
        return "Asked people", "\n".join(texts), "soon"
    if kind == "error.escalated":
        return (
            f"Called for help, {each.priority}: {data.get('error_type', '')}",
            str(data.get("error_message", "")),
            "bad",
        )
    if kind == "task.completed":
        score = data.get("quality_score")
        return "Handed in the result", f"quality {score:.0f}" if isinstance(score, int | float) else "", "good"
    if kind in ("clarification.answered", "review.decided"):
        return f"People: {_words(str(data.get('outcome', '')))}", str(data.get("comment") or ""), "good"
    word, member, tone = _OTHERS.get(kind, (kind, "", ""))
    return word, str(data.get(member) or "") if member else "", tone


_OTHERS: Mapping[str, tuple[str, str, str]] = {
    "clarification.seen": ("A person opened the question", "", ""),
    "clarification.withdrawn": ("Withdrew the question", "reason", ""),
    "clarification.consumed": ("Has the answer", "", "good"),
    "error.resolved": ("The trouble is over", "note", "good"),
    "reminder": ("People were reminded", "", "soon"),
    "gap": ("Some events will not come", "reason", "soon"),
    "task.cancel_requested": ("Somebody asks to stop", "reason", "bad"),
    "task.message": ("A message", "text", ""),
}


# --- deliveries -------------------------------------------------------------------------------------------------------


def _deliveries(story: Story) -> str:
    if not story.deliveries:
        return '<h2>Deliveries</h2><p class="quiet">No destination gets it yet: it waits in the outbox.</p>'
    names = ("delivered", "pending", "parked", "dead", "expired")
    head = "".join(f'<th class="number" scope="col">{name.capitalize()}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{_text(sink)}</th>'
        + "".join(f'<td class="number">{counts.get(name, 0)}</td>' for name in names)
        + "</tr>"
        for sink, counts in story.deliveries.items()
    )
    table = _table("Deliveries", f'<th scope="col">Destination</th>{head}', rows)
    return f"<h2>Deliveries</h2>{table}{_attempts(story)}"


def _table(name: str, head: str, rows: str) -> str:
    """A table that may be wider than a phone; whoever has no mouse scrolls it by the keys, when it has the focus."""
    table = f"<table><tr>{head}</tr>{rows}</table>"
    return f'<div class="scroll" role="region" aria-label="{name}" tabindex="0">{table}</div>'


def _attempts(story: Story) -> str:
    if not story.attempts:
        return ""
    rows = "".join(
        f'<tr><td>{_instant(each.at_us)}</td><td>{_text(each.sink)}</td><td class="number">{each.events}</td>'
        f'<td>{"no answer" if each.status is None else each.status}</td><td class="number">{each.took_ms:.0f} ms</td>'
        f"<td>{_text(each.action)} {_text(each.reason)}</td></tr>"
        for each in story.attempts
    )
    heads = (("When", ""), ("Destination", ""), ("Events", "number"), ("Status", ""), ("Took", "number"), ("Then", ""))
    head = "".join(f'<th class="{kind}" scope="col">{name}</th>' for name, kind in heads)
    table = _table("Attempts", head, rows)
    return f"<details><summary>The newest attempts to deliver some of it</summary>{table}</details>"


# --- words ------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    """Text of anybody as text of the page."""
    return escape(printable("" if value is None else str(value), keep="\n\t"))


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _tone(word: str) -> str:
    return _TONES.get(word.partition(":")[0], "")


def _word(state: str) -> str:
    """A state in its tone; the word says it, too. A reason behind it stays as it is."""
    word, mark, reason = state.partition(":")
    return f'<span class="word {_tone(state)}">{_text(word.replace("_", " ") + mark + reason)}</span>'


def _when(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def _instant(us: int) -> str:
    return f"{_when(us):%Y-%m-%d %H:%M:%S}"


def _clock(us: int) -> str:
    return f"{_when(us):%H:%M:%S}"


def _iso(us: int) -> str:
    return f"{_when(us):%Y-%m-%dT%H:%M:%SZ}"
