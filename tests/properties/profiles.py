"""How long the machines search: one fixed search in the ordinary run, another one for each seed that is given."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, core, settings

MEMORY = "/dev/shm"

SEARCH = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    database=None,
    print_blob=True,
    # The same examples on every machine, unless pytest was given --hypothesis-seed.
    derandomize=core.global_force_seed is None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
LONG_SEARCH = settings(SEARCH, max_examples=5_000)
"""Before a release."""

CONTROL = settings(SEARCH, max_examples=500, phases=[Phase.generate])
"""For planted bugs: the first failure is enough, nobody reads it."""
PURE = settings(SEARCH, max_examples=200)
