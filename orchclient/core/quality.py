"""How good a result is: the product's quality score, from the numbers of a test report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchclient.core.errors import InvalidEvent

TESTS_WEIGHT = 80
BONUS = 10
COVERAGE_ABOVE = 80
LINT_ABOVE = 8
WITHOUT_TESTS = 50.0
BEST = 100.0


def quality_score(test_results: Mapping[str, Any]) -> float:
    """0 to 100: the share of passed tests times 80, plus 10 for coverage over 80, plus 10 for lint over 8.

    The total is ``total_tests``, else passed + failed; without any tests the base is 50. A given ``security_score``
    is the ceiling. Raises ``InvalidEvent`` when one of these members is not a finite number of at least 0.
    """
    passed = _number(test_results, "tests_passed")
    total = _total(test_results, passed)
    score = min(passed / total, 1.0) * TESTS_WEIGHT if total > 0 else WITHOUT_TESTS
    score += BONUS * (_number(test_results, "code_coverage") > COVERAGE_ABOVE)
    score += BONUS * (_number(test_results, "lint_score") > LINT_ABOVE)
    ceiling = BEST if test_results.get("security_score") is None else _number(test_results, "security_score")
    return min(score, ceiling, BEST)


def _total(test_results: Mapping[str, Any], passed: float) -> float:
    if test_results.get("total_tests") is not None:
        return _number(test_results, "total_tests")
    return passed + _number(test_results, "tests_failed")


def _shown(value: object) -> str:
    """A number, or the kind of anything else: a text in its place may be a secret."""
    return repr(value) if isinstance(value, int | float) else type(value).__name__


def _number(test_results: Mapping[str, Any], member: str) -> float:
    value = test_results.get(member)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidEvent("test_results", f"must be a number of at least 0, not {_shown(value)}", f"$.{member}")
    return float(value)
