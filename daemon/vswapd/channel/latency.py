"""How long requests take, from their receipt to their reply, in buckets that double.

Each thread that answers has a `Latency` for each kind of request, and nobody else writes to it:
so it takes no lock, and noting a request costs two looks at the clock and two additions, 0.3 us
in all (`bench latency`). Who wants to know copies them and adds the copies up.

The histogram has a bucket for every time (`vswapd.histogram`), so none needs a look at whether it
fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from time import perf_counter_ns

from vswapd.histogram import BUCKETS, SHIFT, Histogram, sum_of

__all__ = ["Latencies", "Latency"]


class Latency:
    """What one thread notes of one kind of request."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._counts = [0] * BUCKETS
        self._total_ns = 0

    def note(self, received_ns: int) -> None:
        """A request has been answered that was received then, by `perf_counter_ns`."""
        took = perf_counter_ns() - received_ns
        self._counts[(took >> SHIFT).bit_length()] += 1
        self._total_ns += took

    def histogram(self) -> Histogram:
        """A copy, for any thread. A request that is being noted may be in one half of it only."""
        return Histogram(tuple(self._counts), self._total_ns)


@dataclass(frozen=True)
class Latencies:
    """By kind of request, of this worker: errors count too, and reads that wait for the disk."""

    read: Histogram
    write: Histogram
    discard: Histogram

    @staticmethod
    def sum_of(several: Iterable[Latencies]) -> Latencies:
        """Of several threads."""
        each = list(several)
        return Latencies(
            *(sum_of(getattr(one, kind.name) for one in each) for kind in fields(Latencies))
        )
