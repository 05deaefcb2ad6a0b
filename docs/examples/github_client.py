"""A GitHub client that tries again what passes, and calls a person for what does not.

Three kinds of failure, three answers: a server in trouble is tried again, a full quota is waited for, a login that is
refused is nobody's to mend but a person's. All of it is told, once, with the history of what was tried.

    python docs/examples/github_client.py          asks https://api.github.com for a repository that is public
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import requests

from orchclient import OrchestratorClient, Task

API = os.environ.get("GITHUB_API", "https://api.github.com")
REPOSITORY = "pallets/click"


class GitHubError(Exception):
    """GitHub could not answer: it is worth another try."""

    error_type = "github_api"


class GitHubLoginError(Exception):
    """GitHub does not accept who we say we are: no try will help. Critical, by its name."""

    error_type = "github_api_auth"


class GitHub:
    """The calls that an agent needs, for one task."""

    def __init__(self, task: Task, token: str | None = None) -> None:
        self._task = task
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/vnd.github+json"
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"  # stays here: what is told is redacted anyway

    def get(self, path: str) -> Mapping[str, Any]:
        """What is at a path; tried four times in all, with growing waits, before a person is called."""
        for attempt in self._task.recovering("github_api", attempts=3, on=GitHubError, context={"api_endpoint": path}):
            with attempt:
                return self._answer(path)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _answer(self, path: str) -> Mapping[str, Any]:
        try:
            reply = self._session.get(API + path, timeout=10)
        except requests.RequestException as error:
            raise GitHubError(f"no answer from GitHub ({type(error).__name__})") from None
        if reply.status_code == 401:
            raise GitHubLoginError(f"401 from GitHub for {path}")
        if reply.status_code >= 500 or reply.status_code in (403, 429):
            raise GitHubError(f"{reply.status_code} from GitHub for {path}")
        reply.raise_for_status()
        answer: Mapping[str, Any] = reply.json()
        return answer


def main() -> None:
    """Look at a repository; whatever leaves the block is escalated with its traceback."""
    with OrchestratorClient("backend-agent") as client, client.task("look-at-click") as task:
        found = GitHub(task, os.environ.get("GITHUB_TOKEN")).get(f"/repos/{REPOSITORY}")
        task.progress(100, f"{found['full_name']} is on branch {found['default_branch']}")
        print(task.snapshot().current_step)


if __name__ == "__main__":
    main()
