"""How urgent an error is: the product's priority matrix."""

from __future__ import annotations

from orchclient.core.events import NotificationPriority

CRITICAL_ERROR_TYPES = frozenset({"github_api_auth", "database_connection", "security_violation"})

# (at least so many recovery attempts, priority), first match counts.
_BY_ATTEMPTS = (
    (3, NotificationPriority.HIGH),
    (1, NotificationPriority.MEDIUM),
    (0, NotificationPriority.LOW),
)


def escalation_priority(error_type: str, recovery_attempts: int) -> NotificationPriority:
    """Critical for the three error types that block everything, otherwise by the number of recovery attempts."""
    if error_type in CRITICAL_ERROR_TYPES:
        return NotificationPriority.CRITICAL
    return next(priority for least, priority in _BY_ATTEMPTS if recovery_attempts >= least)
