"""The templates by their names in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchclient.sinks.templates.mattermost import MATTERMOST
from orchclient.sinks.templates.ntfy import NTFY
from orchclient.sinks.templates.pagerduty import PAGERDUTY
from orchclient.sinks.templates.teams import TEAMS
from orchclient.sinks.templates.template import Template

TEMPLATES: Final[Mapping[str, Template]] = {
    "teams": TEAMS,
    "mattermost": MATTERMOST,
    "ntfy": NTFY,
    "pagerduty": PAGERDUTY,
}
OWN: Final = "own"
