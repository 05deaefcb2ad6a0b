"""Whether a question asks a person for a secret: answers travel through chats and stay in records, so it is refused.

A heuristic over single sentences: a request for a value (give, send, what is ...) and, close behind it, the name of a
secret. A question about a secret (where it is kept, how it is hashed, whether there is one) is none that asks for it.
What is chosen from options is no secret, so a question with options is never refused: that is the way to say so.
"""

from __future__ import annotations

import re

_WORDS = (
    r"passwords?|pass-?phrases?|passcodes?|api[ _-]?keys?|(?:access|auth|bearer|refresh|personal access|api|deploy|bot"
    r"|session|github|gitlab|slack|discord) tokens?|secret(?:[ _-](?:access[ _-])?keys?|[ _-]tokens?)?"
    r"|private keys?|ssh keys?|signing keys?|encryption keys?|(?:login )?credentials|pin(?: code)?|otp"
    r"|one[- ]time (?:code|password)s?|2fa codes?|mfa codes?|recovery codes?|webhook url|seed phrase"
    r"|card number|cvv|tokens?"
)
_WANTS = (
    r"what(?:'s|\s+is|\s+are)|which\s+(?=\S)|give|send|provide|paste|share|enter|tell|type\s+in|supply|post|dm|hand\s+over"
    r"|(?:i|we)\s+need|let\s+me\s+have|reply\s+with|answer\s+with"
)
_ABOUT = (
    r"polic(?:y|ies)|length|rules?|hash\w*|reset\w*|field|format|storage|store|manager|names?|rotation|expir\w*|lifetime"
    r"|ttl|types?|scopes?|form|input|strength|column|table|header|provider|generator|validation|algorithm|scheme|page"
    r"|prefix|variable|parameter|count|limits?|bucket|budget|usage|handling|module|backend|file|path|location|owner|for\s"
    r"tests|be|should|must|may|can|is|are|in\s+(?:the|a)\s+(?:header|body|url|query|cookie)"
)
_ASKS = re.compile(
    rf"\b(?:{_WANTS})\b[^.?!\n]{{0,40}}?\b(?P<secret>{_WORDS})\b(?![ _-]+(?:{_ABOUT})\b)(?!['’]s\s)", re.IGNORECASE
)
_DECIDES = re.compile(
    r"\s*(?:should|shall|do|does|did|is|are|may|must|will|has|have|where|when|why|how|who"
    r"|(?:can|could|would)\s+(?:we|i|it|they|the|users?)|(?:if|once|after|before)\b.*\bshould)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[^.?!\n]+[.?!]?")


def secret_asked_for(text: str) -> str | None:
    """The word for the secret that a question asks a person to tell; None when it asks for none."""
    for sentence in _SENTENCE.findall(text):
        found = None if _DECIDES.match(sentence) else _ASKS.search(sentence)
        if found:
            return found["secret"].lower()
    return None
