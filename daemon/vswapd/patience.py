"""How long to wait before a worker that died is followed by the next, and when to give up.

A worker that was killed from outside, or died after serving for a while, is followed at once: no
one is served meanwhile. Workers that fail by themselves again and again are followed ever more
slowly; after `MOST` of them in a row nothing is tried any more until somebody asks for it.
Requests wait then, and nothing is lost. Killing alone never makes us give up, but who is killed
before it serves, many times in a row, is followed a little later: the killer may be the kernel,
for want of memory.
"""

from __future__ import annotations

__all__ = ["MOST", "Patience"]

MOST = 12
"""So many failures in a row are enough."""

_AT_ONCE = 3
_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 10.0
_LONG_ENOUGH_SECONDS = 10.0
"""Who has served for so long before it failed had a reason of its own."""


class Patience:
    """Counts failures in a row. Times in seconds."""

    def __init__(self) -> None:
        """None so far."""
        self.failures = 0
        self._killed_early = 0

    def died(self, served: float | None, *, killed: bool) -> None:
        """A worker died that has served for so long; None if it had not come to that.

        `killed`: by SIGKILL, which is nothing a program does to itself.
        """
        if served is not None and served >= _LONG_ENOUGH_SECONDS:
            self.failures = 0
        self._killed_early = self._killed_early + 1 if killed and served is None else 0
        self.failures += not killed

    def asked(self) -> None:
        """Somebody wants it to be tried again."""
        self.failures = 0

    @property
    def given_up(self) -> bool:
        """Whether nothing is tried any more."""
        return self.failures >= MOST

    def delay(self) -> float:
        """How long to wait before the next attempt."""
        if self.failures <= _AT_ONCE:
            return _FIRST_SECONDS if self._killed_early > MOST else 0.0
        doubled: float = _FIRST_SECONDS * 2 ** (self.failures - _AT_ONCE - 1)
        return min(doubled, _LONGEST_SECONDS)
