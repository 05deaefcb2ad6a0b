"""The commented file that ``orchclient config init`` writes: every setting that may stand in one, with its default."""

from __future__ import annotations

SPOKEN: dict[str, str] = {
    "agent": "Who speaks, for commands such as orchclient update. Default: user@host.",
    "db": "The outbox file. Default: outbox.db in your state directory.",
    "url": "Base URL of the orchestrator; https, plain http to this machine only. Without it events wait.",
    "token": "The bearer token. Never in this file: ORCHCLIENT_TOKEN, or token_file.",
    "token_file": "A file with mode 0600 that holds the token.",
    "mode": "online; offline records and sends nothing; disabled does not even record.",
    "durability": "auto; full syncs progress too before a call returns.",
    "request_timeout": "One attempt, all phases together.",
    "shutdown_timeout": "The most that close() and an exit wait.",
    "retention": "How long delivered events are kept.",
    "reminders": "When people are reminded of what is critical and open; the last step is repeated. off: never.",
    "escalation": "Names of destinations that get only what two reminders did not help.",
    "heartbeat": "How often an agent with something under way tells orchestrators that it lives. off: never.",
    "public_url": "Where people answer: messages in chats link there.",
    "max_event_bytes": "Largest event; 1048576 at most.",
    "max_pending": "Events that may wait.",
    "max_outbox_bytes": "Size of the outbox.",
    "min_free_bytes": "What must stay free on its file system.",
    "ca_file": "Authorities to trust, PEM. Default: certifi's.",
    "proxy": "An HTTP proxy. Those of the environment are not used.",
    "allow_network_filesystem": "Use a file system on which SQLite's WAL is not safe.",
    "redact_keys": "More names of keys whose values are secrets.",
    "discord_webhook_url": "People are told on Discord. Never in this file: ORCHCLIENT_DISCORD_WEBHOOK_URL.",
    "slack_webhook_url": "People are told on Slack. Never in this file: ORCHCLIENT_SLACK_WEBHOOK_URL.",
    "signing_secret": "Signs what goes to the orchestrator. Never in this file: ORCHCLIENT_SIGNING_SECRET.",
    "webhook_url": "A signed webhook. Never in this file: ORCHCLIENT_WEBHOOK_URL.",
    "webhook_secret": "Its whsec_ secret. Never in this file: ORCHCLIENT_WEBHOOK_SECRET.",
    "database_url": "The orchestrator's tables, without a server. Never in this file: ORCHCLIENT_DATABASE_URL.",
    "nats_url": "NATS JetStream. Never in this file: ORCHCLIENT_NATS_URL.",
    "sinks": "More destinations, by name.",
}
"""Every setting in the order in which people are shown them, and what it is in a line."""

EXAMPLES: dict[str, str] = {
    "agent": '"backend-7"',
    "db": '"~/.local/state/orchclient/outbox.db"',
    "url": '"https://orchestrator.example"',
    "token_file": '"~/.config/orchclient/token"',
    "mode": '"online"',
    "durability": '"auto"',
    "request_timeout": '"10s"',
    "shutdown_timeout": '"2s"',
    "retention": '"7d"',
    "reminders": '"15m,1h,4h"',
    "escalation": '["pager"]',
    "heartbeat": '"60s"',
    "public_url": '"https://answers.example"',
    "max_event_bytes": "262144",
    "max_pending": "1000000",
    "max_outbox_bytes": "1073741824",
    "min_free_bytes": "67108864",
    "ca_file": '"/etc/ssl/certs/ca-certificates.crt"',
    "proxy": '"http://proxy.example:3128"',
    "allow_network_filesystem": "false",
    "redact_keys": '["session", "pin"]',
}
"""What stands in the file, commented out: the default where there is one, else an example. Secrets have none."""

_HEAD = """\
# Settings of orchclient for this user. Lines that begin with # are off; take the # away to set one.
# Stronger than this file: flags and keywords, then the environment (ORCHCLIENT_URL ...). What holds, and where it
# comes from: orchclient config show
"""

_SINKS = """\
# More destinations, each with its own name; kind is orchestrator, database, discord, slack, webhook, ...
# Secrets stand in a file with mode 0600 (webhook_url_file, token_file) or in a variable (webhook_url_env, token_env).
#
# [sinks.team-chat]
# kind = "discord"
# webhook_url_env = "TEAM_CHAT_WEBHOOK"
"""


def _page() -> str:
    """The file's text."""
    parts = [f"# {SPOKEN[name]}\n# {name} = {example}\n" for name, example in EXAMPLES.items()]
    return "\n".join([_HEAD, *parts, _SINKS])


PAGE = _page()
