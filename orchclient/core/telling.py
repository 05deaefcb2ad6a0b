"""What a chat service's answer means for a message that was sent to it.

The verdict is the one that delivery acts upon everywhere; what only messages know stands beside it.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from orchclient.core.policy import Verdict


class Remedy(StrEnum):
    """What may be done about a message that was not told."""

    NONE = ""
    PLAINER = "plainer"  # refused as it was rendered: once more as plain text
    POST_ANEW = "post_anew"  # the message to edit is gone: a new one
    DEPART = "depart"  # the thread is gone: once more, as the root of another one
    IT_MAY_HAVE_ARRIVED = "ambiguous"  # no answer to a whole request: whether people see it is unknown


@frozen
class Told:
    """One attempt. ``message_id`` names the message for later edits; ``rest_s`` is to pass before the next request."""

    verdict: Verdict
    message_id: str = ""
    remedy: Remedy = Remedy.NONE
    rest_s: float = 0.0
    is_for_all: bool = False  # the wait is for every destination that shares the limit
