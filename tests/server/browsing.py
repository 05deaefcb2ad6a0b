"""A browser without JavaScript: it keeps cookies, follows redirects, and sends the forms of a page as they stand."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field
from flask import Flask

VOID = frozenset(["input", "meta", "link", "br", "hr", "img"])
URLS = ("href", "src", "action", "formaction")


@define
class Form:
    """A form as it stands on a page."""

    action: str
    method: str
    fields: dict[str, str] = field(factory=dict)
    buttons: list[tuple[str, str]] = field(factory=list)
    controls: list[tuple[str, str]] = field(factory=list)


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.unclosed: list[str] = []
        self.broken: list[str] = []
        self._area = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag not in VOID:
            self.unclosed.append(tag)
        form = self.forms[-1] if self.forms else None
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get")))
        elif form is not None and "name" in given:
            self._control(form, tag, given)

    def _control(self, form: Form, tag: str, given: dict[str, str]) -> None:
        name, value = given["name"], given.get("value", "")
        form.controls.append((name, value))
        if tag == "button":
            form.buttons.append((name, value))
        elif tag == "textarea":
            self._area = name
            form.fields[name] = ""
        elif tag == "input" and (given.get("type") not in ("radio", "checkbox") or "checked" in given):
            form.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unclosed[-1:]:
            self.unclosed.pop()
        else:
            self.broken.append(f"</{tag}>")
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area:
            self.forms[-1].fields[self._area] += data
        self.words += data


class Browser:
    """One person's browser."""

    def __init__(self, app: Flask, base: str = "http://localhost") -> None:
        self.client = app.test_client()
        self.base = base
        self.reply: Any = None
        self.path = ""

    def open(self, path: str, **more: Any) -> Page:
        """Go to a path, and on to where that leads."""
        self.path = path
        return self._shown(self.client.get(path, base_url=self.base, headers={"Accept": "text/html"}, **more))

    def send(
        self, place: int | str = 0, *, button: str = "", headers: dict[str, str] | None = None, **fields: str
    ) -> Page:
        """Fill in a form of the page, by its number, not counting the one to sign out, or its action, and send it."""
        forms = [each for each in self.page.forms if each.method == "post"]
        if isinstance(place, int):
            form = [each for each in forms if each.action != "/logout"][place]
        else:
            form = next(each for each in forms if place in each.action)
        known = {name for name, _ in form.controls}
        assert fields.keys() <= known, f"no fields {fields.keys() - known} in the form"
        pressed = [each for each in form.buttons if not button or each[1] == button][:1]
        data = form.fields | fields | dict(pressed)
        return self._shown(self.client.post(form.action, data=data, base_url=self.base, headers=headers))

    def _shown(self, reply: Any) -> Page:
        self.reply = reply
        reply.get_data()
        reply.close()
        if reply.status_code in (302, 303):
            parts = urlsplit(reply.headers["Location"])
            return self.open(parts.path + (f"?{parts.query}" if parts.query else ""))
        self.page = Page(reply.text) if reply.mimetype == "text/html" else Page("")
        return self.page


def findings(page: Page) -> list[str]:
    """What could run a script or leave the site: elements, attributes and addresses that no page of ours has."""
    found = [*page.broken, *(f"<{tag}> without an end" for tag in page.unclosed)]
    for tag, given in page.elements:
        if tag in ("style", "iframe", "object", "embed", "img", "svg", "base") or (
            tag == "script" and not given.get("src")
        ):
            found.append(f"<{tag}>")
        found += [f"<{tag} {name}>" for name in given if name.startswith("on") or name == "style"]
        for name in URLS:
            address = given.get(name, "/")
            if not address.startswith(("/", "http://", "https://", "#")) or address.startswith("//"):
                found.append(f"<{tag} {name}={address!r}>")
            if tag in ("script", "link") and not address.startswith("/"):
                found.append(f"<{tag} {name}={address!r}>")
    return found
