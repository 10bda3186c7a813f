"""Watching something while something else runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

__all__ = ["Samples", "sampling"]

_JOIN_SECONDS = 30.0


class Samples:
    """Rows of numbers by name, each with the seconds since the start."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self.rows: list[tuple[float, Mapping[str, int]]] = []

    def most(self, name: str) -> int:
        """The most that was seen; 0 if nothing was."""
        return max((row[name] for _, row in self.rows), default=0)

    def last(self, name: str) -> int:
        """What was seen last; 0 if nothing was."""
        return self.rows[-1][1][name] if self.rows else 0

    def share_changing(self, *names: str) -> float:
        """In what share of the time between samples any of these changed."""
        pairs = zip(self.rows, self.rows[1:], strict=False)
        spans = [
            (later[0] - sooner[0], any(sooner[1][name] != later[1][name] for name in names))
            for sooner, later in pairs
        ]
        whole = sum(span for span, _ in spans)
        return sum(span for span, changed in spans if changed) / whole if whole else 0.0


@contextmanager
def sampling(look: Callable[[], Mapping[str, int]], seconds: float) -> Iterator[Samples]:
    """Call `look` in a thread as often as that; the rows grow until the block ends.

    A look that fails with `OSError` is left out: what it looks at may be going away.
    """
    samples, ended, began = Samples(), threading.Event(), time.monotonic()

    def watch() -> None:
        while not ended.is_set():
            with suppress(OSError):
                samples.rows.append((time.monotonic() - began, look()))
            ended.wait(seconds)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join(_JOIN_SECONDS)
