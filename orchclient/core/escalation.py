"""How urgent an error is: the product's priority matrix."""

from __future__ import annotations

from orchclient.core.events import NotificationPriority

CRITICAL_ERROR_TYPES = frozenset({"github_api_auth", "database_connection", "security_violation"})

# By the number of recovery attempts; more count as the last.
_BY_ATTEMPTS = (
    NotificationPriority.LOW,
    NotificationPriority.MEDIUM,
    NotificationPriority.MEDIUM,
    NotificationPriority.HIGH,
)


def escalation_priority(error_type: str, recovery_attempts: int) -> NotificationPriority:
    """Critical for the three error types that block everything, otherwise by the number of recovery attempts."""
    if error_type in CRITICAL_ERROR_TYPES:
        return NotificationPriority.CRITICAL
    return _BY_ATTEMPTS[min(recovery_attempts, 3)]
