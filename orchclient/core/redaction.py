"""Finds secrets in what an agent wants to record, and replaces them before anything is stored.

Knows nothing of events, files or settings: it gets values and gives values. A secret is found by the name of
its key, by its look inside a text, or because the client knows it (its token, its webhook URLs). In doubt it
is taken out: a person can ask again for a word, but nobody can take back a password.

Every pattern starts at a place that does not recur inside its own match, or gives nothing back (``++``, ``(?>``): the
work stays linear in hostile text. All are ASCII-only: the Kelvin sign is no ``k``, since JSON could hide it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import count
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from orchclient.core.limits import MARK, SHORTEST_SECRET

# --- Names: a key names a secret when its last words do (``db_password``, ``X-Api-Key``, ``newSecret``) ---

_KINDS_OF_KEY = ("api", "access", "private", "secret", "signing", "encryption", "master", "account")
_KINDS_OF_TOKENS = ("access", "auth", "refresh", "bearer", "api")  # any other ``tokens`` are a count
_HARMLESS_TOKENS = "per|first|next|last|page|eos|bos|pad|unk|sep|mask|stop|special"


def _not_after(word: str) -> str:
    """Not ``cost_per_token`` nor ``costPerToken``; but ``developer_token`` and ``helperToken`` are secret."""
    begins, camel = r"(?<![a-z])", rf"(?-i:(?<=[a-z]){word.title()})"
    return f"(?<!{begins}{word}token)(?<!{begins}{word}[-_ ]token)(?<!{camel}token)"


_NAMES = (
    r"pass[-_ ]?(?:words?|wd|phrases?)",
    r"pwd(?<=[a-z0-9_-]pwd)(?<!oldpwd)(?<!old[-_]pwd)",  # PWD alone is a directory
    r"secrets?",
    "token" + "".join(map(_not_after, _HARMLESS_TOKENS.split("|"))),
    *(f"{kind}[-_ ]?tokens" for kind in _KINDS_OF_TOKENS),
    *(f"{kind}[-_ ]?keys?" for kind in _KINDS_OF_KEY),
    r"authorization",
    r"bearer",
    r"cookies?",
    r"credentials?",
    r"conn(?:ection)?[-_ ]?str(?:ing)?s?",
    r"dsn",
    r"web[-_ ]?hook[-_ ]?ur[li]s?",
)
_NAME = rf"(?:{'|'.join(_NAMES)})(?>(?:[-_ ]?(?:value|hash|header|plain|raw|b64|base64|old|new|\d++))*)[-_]*+"
_NAMES_SECRET = re.compile(rf"{_NAME}\Z", re.ASCII | re.IGNORECASE).search

# --- Values: a pattern loses what it matches, except its group ``keep`` ---
# Groups repeat as ``(?>(?:...)+)``: Python 3.11.2 (Debian 12) ends ``(?:...)++`` one character too late.

_ADDRESS = r"[\w/?=&.%~:@+-]++"
_GAP = r"""[\\"'\] \t]{0,8}(?::=|=>|={1,3}|:(?!:|//))[ \t]{0,8}(?:[bfru]{1,2}(?=["']))?"""
_HARMLESS = (
    r"""(?![\[{(][\s"'\[\]{}()\\]|(?:null|none|true|false|undefined|str|bytes|string)\b"""
    r"|[!-/:-@[-`{-~]{1,2}(?:\s|\Z))"
)
_IN_QUOTES = r"""(?>(?:[^"'\\\n]|\\.|(?!(?P=quote))["'])+)"""
_BARE = rf"""{_HARMLESS}(?>(?:[^\s"'`&;,<>\\]|,(?=[^\s"'\\])|\\(?![\\"'nrt]))+)"""
_REST_OF_LINE = rf"""{_HARMLESS}(?>(?:[^\r\n"'\\]|["'](?=[\w;])|\\(?![\\"'nrt]))+)"""
_PROSE = r"(?:tokens?|auth\w*|schemes?|headers?|credentials?|realm|scope|error\w*|format|prefix|method)\b"
_PEM = "PRIVATE KEY(?: BLOCK)?-----"

_VENDOR_TOKENS = (
    r"gh[pousr]_[\w.-]{10,}+",  # GitHub
    r"github_pat_\w{10,}+",
    r"glpat-[\w.-]{10,}+",  # GitLab
    r"xox[abeoprs](?:\.xox[a-z])?-[\w-]{8,}+",  # Slack
    r"xapp-[\w-]{8,}+",
    r"sk-(?<![\w-]sk-)(?!learn)[\w-]{16,}+",  # OpenAI, Anthropic and their imitators
    r"[rs]k_(?:live|test)_\w{8,}+",  # Stripe
    r"whsec_[\w+/=]{8,}+",  # Standard Webhooks
    r"npm_[A-Za-z0-9]{20,}+",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    r"AIza[\w-]{30,}+",  # Google
    r"eyJ(?<![\w-]eyJ)[\w-]{5,}+\.[\w-]{2,}+(?:\.[\w-]*+){1,3}",  # JWT, JWE
)
_RULES = {
    "private key, to the end of the text if it was cut": (
        rf"(?s)-----BEGIN [A-Z0-9 ]{{0,40}}{_PEM}.*?(?:-----END [A-Z0-9 ]{{0,40}}{_PEM}|\Z)"
    ),
    "webhook address": (
        r"(?i)(?P<keep>discord(?:app)?\.com/api/(?:v\d++/)?webhooks/|hooks\.slack\.com/\w{1,20}/"
        rf"|hooks\.zapier\.com/hooks/|webhook\.office\.com/webhookb2/){_ADDRESS}"
    ),
    "path of a Discord webhook": r"(?P<keep>/api/(?:v\d++/)?webhooks/)\d{15,}+/[\w-]{30,}+",
    "path of a Slack webhook": r"(?P<keep>/services/)T\w++/B\w++/\w++",
    "user and password in a URL": r"""(?P<keep>://)(?!git@)[^\s/?#"'<>]+(?=@)""",
    "header": rf"""(?i)(?P<keep>(?:authorization|cookies?){_GAP}\\{{0,8}}["']?){_REST_OF_LINE}""",
    "Bearer": rf"(?i)(?<![a-z0-9])(?P<keep>bearer\s{{1,8}})(?!{_PROSE})[\w.~+/=-]{{6,}}+",
    "Basic, looking like base64": (
        r"(?<![A-Za-z0-9])(?P<keep>(?i:basic)\s{1,8})(?=[A-Z0-9+/]{0,200}[a-z])(?=.[a-z+/]{0,200}[A-Z0-9=])"
        r"[A-Za-z0-9+/]{8,}+={0,2}"
    ),
    "token of a vendor": rf"(?<![A-Za-z0-9])(?:{'|'.join(_VENDOR_TOKENS)})",
    "signature in a URL": r"""(?i)(?P<keep>[?&;](?:x-(?:amz|goog|oss)-)?sig(?:nature)?=)[^&#\s"'<>\\]++""",
    "assignment": (
        rf"""(?i)(?P<keep>{_NAME}{_GAP}(?:(?P<quote>["'])|(?P<escaped>\\{{1,8}}["']))?)"""
        rf"""(?(quote){_IN_QUOTES}|(?(escaped)[^"'\\\n]++|{_BARE}))"""
    ),
    "flag": rf"""(?i)(?<![\w-])(?P<keep>--[\w-]*?{_NAME}[ \t]{{1,8}}["']?)(?!-)[^\s"'`<>]{{6,}}+""",
}


def _compiled(pattern: str) -> tuple[Callable[[str, str], str], str]:
    rule = re.compile(pattern, re.ASCII)
    return rule.sub, (rf"\g<keep>{MARK}" if "keep" in rule.groupindex else MARK)


@cache
def _substitutions() -> tuple[tuple[Callable[[str, str], str], str], ...]:
    """The rules, ready for use. Compiled when a text is first suspected: it takes 8 ms, and most programs never do."""
    return tuple(map(_compiled, _RULES.values()))


# --- The prefilter: what every match contains ---
# A search that begins with a literal letter, the rarest of its words, runs at the speed of memchr. All together
# they cost 1 us for a text of 150 characters, where a test for each word, or one pattern of all, costs 3 us.


def _any_before(words: Iterable[str], word: str) -> str:
    ends = "|".join(sorted({before[-3:] for before in words}))
    return rf"(?:(?<=(?:{ends}){word})|(?<=(?:{ends})[-_ ]{word}))"


_K = re.compile(
    r"k(?:en(?<=token)(?!s|iz|[-_]?(?:count|usage|limit|budget))"
    rf"|ens{_any_before(_KINDS_OF_TOKENS, 'tokens')}|ey{_any_before(_KINDS_OF_KEY, 'key')}"
    r"|ie(?<=cookie)|s[./](?<=hooks.)|ur[li](?<=hookur.)|[-_ ]ur[li](?<=hook.ur.)|\.office|_(?:live|test)_"
    # Not ``task-``; but a new line before ``sk-`` is the letter n in JSON.
    r"|-(?<=sk-)(?:(?<![a-z0-9]sk-)|(?<=\\[bfnrt]sk-)|(?<=\\u[0-9a-f]{4}sk-)))"
).search
_W = re.compile(r"w(?:(?<=passw)|(?<=pass[-_ ]w)|d(?<=pwd)|hsec_)").search
_C = re.compile(r"c(?:ret(?<=secret)|redential|onn(?:ection)?[-_ ]?str|[\s\\](?<=basic[\s\\]))").search
_G = re.compile(r"g(?:h[pousr]_|lpat-|ithub_pat_)").search

# --- What the client itself knows ---

_LONG_PATH = 20  # urllib3 names host and path apart; a shorter path may be an ordinary word
_PLAIN_RUN = re.compile(r"[\w.~-]+", re.ASCII).findall  # looks the same in JSON and in a URL, quoted or not
_SEPARATORS = str.maketrans("", "", "-_")

Search = Callable[[str], object]


def _texts(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _spellings(known: Iterable[str]) -> tuple[str, ...]:
    """Every way to write what is known, the longest first, so that an address goes before its path."""
    found = {spelling for text in known if len(text) >= SHORTEST_SECRET for spelling in _spellings_of(text)}
    return tuple(sorted((text for text in found if text not in MARK), key=len, reverse=True))


def _spellings_of(literal: str) -> Iterator[str]:
    yield literal
    yield quote(literal, safe="", errors="replace")
    yield json.dumps(literal)[1:-1]
    path = literal.partition("://")[2].partition("/")[2]
    if len(path) >= _LONG_PATH:
        yield path


def _plain_parts(literals: Iterable[str]) -> tuple[str, ...]:
    """The longest plain run of each literal, if it contains no other one. No run: every text is suspect."""
    runs = {max(_PLAIN_RUN(literal), key=len, default="") for literal in literals}
    return tuple(run for run in sorted(runs) if not any(other in run for other in runs - {run}))


def _own_names(extra_keys: Iterable[str]) -> tuple[Search, Search]:
    """Two searches: one in a key, whose last words count as with built-in names; one in lowered JSON text."""
    names = [name for key in extra_keys if (name := key.translate(_SEPARATORS))]
    in_key = "|".join("[-_]*".join(map(re.escape, name)) for name in names)
    plain = (name.lower() if name.isascii() and name.isalnum() else "" for name in names)
    in_text = "|".join(map("[-_]*".join, plain))
    begin = r"(?:(?<![A-Za-z0-9])|(?<=[a-z0-9])(?=[A-Z]))"
    return re.compile(rf"{begin}(?i:{in_key})[-_]*\Z", re.ASCII).search, re.compile(in_text).search


# --- The redactor ---

_ROUNDS = 4


@frozen
class Redactor:
    """Takes secrets out of JSON-like values and of texts; immutable, shows no secret in its ``repr``.

    ``known`` are literals that are secrets, whatever they look like (those of less than 6 characters are
    ignored); ``extra_keys`` are further names of keys whose values are secrets.
    """

    known: tuple[str, ...] = field(default=(), converter=_texts, repr=lambda known: f"<{len(known)} secrets>")
    extra_keys: tuple[str, ...] = field(default=(), converter=_texts)
    _literals: tuple[str, ...] = field(init=False, repr=False, eq=False)
    _needles: tuple[str, ...] = field(init=False, repr=False, eq=False)
    _own: tuple[Search, Search] | None = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        literals = _spellings(self.known)
        named = any(key.translate(_SEPARATORS) for key in self.extra_keys)
        object.__setattr__(self, "_literals", literals)
        object.__setattr__(self, "_needles", _plain_parts(literals))
        object.__setattr__(self, "_own", _own_names(self.extra_keys) if named else None)

    def suspects(self, text: str) -> bool:
        """Whether ``text`` may hold a secret: False is certain, True is not.

        ``text`` is either a plain text or the JSON text of a value, in ASCII or not.
        """
        low = text.lower()
        if (
            _K(low)
            or _W(low)
            or _C(low)
            or _G(low)
            or "bearer" in low
            or "dsn" in low
            or "phrase" in low
            or "npm_" in low
            or ("@" in low and "://" in low)
            or ("=" in low and ("sig=" in low or "signature=" in low))
            or ("x" in low and ("xox" in low or "xapp-" in low))
            or ("z" in low and ("authoriz" in low or "AIza" in text))
            or ("I" in text and ("AKIA" in text or "ASIA" in text))
            or ("J" in text and "eyJ" in text)
            or ("/" in low and "services/t" in low)
        ):
            return True
        for needle in self._needles:
            if needle in text:
                return True
        return self._own is not None and self._own[1](low) is not None

    def redact(self, value: Any) -> Any:
        """The same JSON-like value without its secrets; what holds none is equal and of the same type.

        Dicts and lists are new (a tuple becomes a list), of any depth; other objects pass as they are.
        """
        holder = [value]
        todo: list[Any] = [holder]
        while todo:  # not by recursion: the depth is the agent's choice
            box = todo.pop()
            for slot, item in list(box.items() if isinstance(box, dict) else enumerate(box)):
                box[slot] = copy = self._outermost(item)
                if isinstance(copy, dict | list):
                    todo.append(copy)
        return holder[0]

    def _outermost(self, item: Any) -> Any:
        if isinstance(item, str):
            return self.redact_text(item)
        if isinstance(item, dict):
            return self._without_secret_keys(item)
        return list(item) if isinstance(item, list | tuple) else item

    def _without_secret_keys(self, members: dict[Any, Any]) -> dict[Any, Any]:
        marks = (mark for mark in _marks() if mark not in members)
        return {
            next(marks) if self._hides_secret(key) else key: self._without_secret(key, value)
            for key, value in members.items()
        }

    def _hides_secret(self, key: object) -> bool:
        return isinstance(key, str) and self.redact_text(key) != key

    def _without_secret(self, key: object, value: Any) -> Any:
        return MARK if _holds_something(value) and isinstance(key, str) and self._names_secret(key) else value

    def _names_secret(self, key: str) -> bool:
        return bool(_NAMES_SECRET(key) or (self._own and self._own[0](key)))

    def redact_text(self, text: str) -> str:
        """The same text without its secrets: for messages, tracebacks, logs."""
        if not self.suspects(text):
            return text
        for _ in range(_ROUNDS):
            before, text = text, self._after_one_round(text)
            if text == before:
                return text
        return MARK  # one secret keeps uncovering another: nobody writes so by accident

    def _after_one_round(self, text: str) -> str:
        for literal in self._literals:
            text = text.replace(literal, MARK)
        for substitute, kept in _substitutions():
            text = substitute(kept, text)
        return text


def _marks() -> Iterator[str]:
    yield MARK
    yield from (f"{MARK} ({number})" for number in count(2))


def _holds_something(value: Any) -> bool:
    return bool(value or isinstance(value, int | float)) and not isinstance(value, bool)
