"""Questions that ask a person for a secret are refused, and those that only speak of one are not."""

from __future__ import annotations

import pytest

from orchclient.core.asking_secrets import secret_asked_for
from orchclient.core.errors import InvalidEvent
from orchclient.core.questions import checked_questions

ASKS = [
    "What is the database password?",
    "What's the API key for the staging account?",
    "Please send me the GitHub token.",
    "I need your AWS secret access key",
    "Could you paste the private key here?",
    "Give me the credentials of the test user",
    "Deployment is blocked. Please provide the ssh key.",
    "Can you share the Slack bot token?",
    "Reply with the OTP",
    "Enter the passphrase of the signing certificate",
    "Tell me your PIN code, please",
    "Which password do I use for the admin account?",
    "We need the recovery codes to go on",
]
SPEAKS_OF = [
    "What is the password policy?",
    "Should passwords be hashed with bcrypt or argon2?",
    "Where is the API key stored?",
    "Which token format do you prefer, JWT or opaque?",
    "Should we send the token in a header?",
    "How long is an access token valid?",
    "What is the token lifetime?",
    "Should GET /api/users require authentication?",
    "Which rate limit, in requests a minute?",
    "Do we give users a password reset page?",
    "Who owns the credentials?",
    "Which secret manager do we use?",
    "What is the name of the column?",
    "Is a private key needed here?",
    "Can we share the API key across environments?",
    "May I rotate the signing keys now?",
    "Give the table a better name?",
    "What should happen when the credentials are wrong?",
    "Which keyboard shortcut opens the menu?",
]


@pytest.mark.parametrize("text", ASKS)
def test_what_asks_for_a_secret_is_found(text: str) -> None:
    assert secret_asked_for(text)


@pytest.mark.parametrize("text", SPEAKS_OF)
def test_what_only_speaks_of_one_is_not(text: str) -> None:
    assert secret_asked_for(text) is None


def test_it_is_refused_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(InvalidEvent, match=r"asks a person for a secret .password.*options"):
        checked_questions(["Which colour?", "What is the database password?"], None, None)


def test_what_is_chosen_from_options_is_no_secret() -> None:
    assert checked_questions("Which password do I use?", ["the old one", "the new one"], None)


def test_a_long_text_is_looked_through_in_time_that_grows_with_it() -> None:
    assert secret_asked_for("give " * 3_000) is None
