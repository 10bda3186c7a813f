"""Histograms of how long requests took, in buckets that double.

Bucket 0 holds what took less than 1,024 ns, bucket k what took from 2**(k - 1) to 2**k times that.
There is a bucket for every time that 63 bits of nanoseconds can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

__all__ = ["BUCKETS", "SHIFT", "Histogram", "bound_ns", "sum_of"]

SHIFT = 10
BUCKETS = 63 - SHIFT + 1


def bound_ns(bucket: int) -> int:
    """Nanoseconds that everything in a bucket took less than."""
    return 1 << SHIFT + bucket


@dataclass(frozen=True)
class Histogram:
    """How many requests took how long: `counts` by bucket, and nanoseconds in all."""

    counts: tuple[int, ...] = (0,) * BUCKETS
    total_ns: int = 0

    @property
    def count(self) -> int:
        """Requests."""
        return sum(self.counts)

    def below(self, bucket: int) -> int:
        """Requests that took less than `bound_ns(bucket)`."""
        return sum(self.counts[: bucket + 1])

    def since(self, before: Histogram) -> Histogram:
        """The requests that `before`, which was noted earlier, does not have yet."""
        counts = zip_longest(self.counts, before.counts, fillvalue=0)
        return Histogram(tuple(new - old for new, old in counts), self.total_ns - before.total_ns)

    def quantile_us(self, share: float) -> float:
        """Microseconds that this share of the requests took at most; 0 if there were none.

        Within a bucket they are taken to be spread evenly, as Prometheus' histogram_quantile does.
        """
        wanted = share * self.count
        for bucket, count in enumerate(self.counts):
            if count and wanted <= count:
                least = bound_ns(bucket - 1) if bucket else 0
                return (least + (bound_ns(bucket) - least) * wanted / count) / 1000
            wanted -= count
        return 0.0

    @property
    def max_us(self) -> float:
        """Microseconds that every request took less than: the bound of the last bucket in use."""
        used = self.used
        return bound_ns(len(used) - 1) / 1000 if used else 0.0

    @property
    def used(self) -> tuple[int, ...]:
        """The counts up to the last that is not 0."""
        return self.counts[
            : max((at for at, count in enumerate(self.counts, 1) if count), default=0)
        ]


def sum_of(histograms: Iterable[Histogram]) -> Histogram:
    """All of them in one."""
    all_of_them = list(histograms)
    counts: Sequence[Iterable[int]] = [one.counts for one in all_of_them]
    return Histogram(
        tuple(map(sum, zip((0,) * BUCKETS, *counts, strict=True))),
        sum(one.total_ns for one in all_of_them),
    )
