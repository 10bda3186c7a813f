"""How much of everything is done."""

from __future__ import annotations

from dataclasses import dataclass

from bench.hog import Hog

__all__ = ["PLAN", "QUICK", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Sizes in MiB. `seconds` is how long each sort of request is measured."""

    seconds: float
    requests_mib: int
    hog_mib: int
    hog_limit_mib: int
    held_mib: int
    held_limit_mib: int

    def hog(self, order: str) -> Hog:
        """The hog that runs to its end: a quarter of it is rewritten between two passes."""
        return Hog(order, self.hog_mib, self.hog_limit_mib, passes=2, rewrite=0.25)

    def held(self) -> Hog:
        """The hog that waits, with nearly all of its pages on the device."""
        return Hog("seq", self.held_mib, self.held_limit_mib, passes=1, rewrite=0.0, hold=True)


PLAN = Plan(1.5, 512, 512, 192, 1024, 64)
QUICK = Plan(0.4, 64, 128, 48, 128, 24)
