"""How long requests take, from their receipt to their reply, in buckets that double.

Each thread that answers has a `Latency` for each kind of request, and nobody else writes to it:
so it takes no lock, and noting a request costs two looks at the clock and two additions, 0.3 us
in all (`bench latency`). Who wants to know copies them and adds the copies up.

Bucket 0 holds what took less than 1,024 ns, bucket k what took from 2**(k - 1) to 2**k times that.
There is a bucket for every time that 63 bits of nanoseconds can say, so none needs a look at
whether it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from time import perf_counter_ns

__all__ = ["BUCKETS", "Histogram", "Latencies", "Latency", "bound_ns", "sum_of"]

_SHIFT = 10
BUCKETS = 63 - _SHIFT + 1


def bound_ns(bucket: int) -> int:
    """Nanoseconds that everything in a bucket took less than."""
    return 1 << _SHIFT + bucket


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
        used = [bucket for bucket, count in enumerate(self.counts) if count]
        return bound_ns(used[-1]) / 1000 if used else 0.0


class Latency:
    """What one thread notes of one kind of request."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._counts = [0] * BUCKETS
        self._total_ns = 0

    def note(self, received_ns: int) -> None:
        """A request has been answered that was received then, by `perf_counter_ns`."""
        took = perf_counter_ns() - received_ns
        self._counts[(took >> _SHIFT).bit_length()] += 1
        self._total_ns += took

    def histogram(self) -> Histogram:
        """A copy, for any thread. A request that is being noted may be in one half of it only."""
        return Histogram(tuple(self._counts), self._total_ns)


def sum_of(histograms: Iterable[Histogram]) -> Histogram:
    """All of them in one."""
    all_of_them = list(histograms)
    counts: Sequence[Iterable[int]] = [one.counts for one in all_of_them]
    return Histogram(
        tuple(map(sum, zip((0,) * BUCKETS, *counts, strict=True))),
        sum(one.total_ns for one in all_of_them),
    )


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
