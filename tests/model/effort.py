"""How hard property tests try.

As a rule they are deterministic: the same examples in every run, so that a failure is of the
change at hand. `VSWAP_EFFORT=20` tries twenty times as many, drawn anew each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

__all__ = ["effort"]

_FACTOR = int(os.environ.get("VSWAP_EFFORT", "0"))


def effort(examples: int, steps: int = 50) -> settings:
    """Settings for a test that usually tries `examples`, of `steps` each if it has steps."""
    return settings(
        derandomize=not _FACTOR,
        deadline=None,
        max_examples=examples * (_FACTOR or 1),
        stateful_step_count=steps,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
