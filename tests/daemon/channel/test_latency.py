"""How long requests took: buckets that double, noted by one thread and read by any."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from time import perf_counter_ns
from typing import TYPE_CHECKING

import pytest

from vswap.geometry import PAGE_SIZE
from vswap.store import Parked
from vswapd.channel import Latencies, latency, receive_buffer
from vswapd.channel.done import Done
from vswapd.channel.fetchers import Fetchers
from vswapd.channel.latency import Latency
from vswapd.channel.outstanding import Outstanding
from vswapd.channel.router import Router
from vswapd.histogram import BUCKETS, Histogram, bound_ns, sum_of

if TYPE_CHECKING:
    from daemon.channel.conftest import Backed, Kernel

SECONDS = 10
PUNCH = 0x03
NOISE = random.Random(1).randbytes(PAGE_SIZE)


def histogram(**counts: int) -> Histogram:
    """By bucket, as `b5=3`."""
    values = [0] * BUCKETS
    for bucket, count in counts.items():
        values[int(bucket[1:])] = count
    return Histogram(tuple(values))


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What requests take from now on, in nanoseconds: those received at 0."""
    times: list[int] = []
    monkeypatch.setattr(latency, "perf_counter_ns", lambda: times.pop(0))
    return times


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (0, 0),
        (1023, 0),
        (1024, 1),
        (2047, 1),
        (2048, 2),
        (40_000, 6),
        ((1 << 63) - 1, BUCKETS - 1),
    ],
)
def test_a_time_falls_into_its_bucket(ns: int, bucket: int, took: list[int]) -> None:
    noting = Latency()
    took.append(ns)
    noting.note(0)
    found = noting.histogram()
    assert [at for at, count in enumerate(found.counts) if count] == [bucket]
    assert found.total_ns == ns < bound_ns(bucket)
    assert bucket == 0 or ns >= bound_ns(bucket - 1)


def test_a_copy_stays_as_it_is(took: list[int]) -> None:
    noting = Latency()
    took += [5000, 7000]
    noting.note(0)
    before = noting.histogram()
    noting.note(0)
    assert (before.count, before.total_ns) == (1, 5000)
    assert (noting.histogram().count, noting.histogram().total_ns) == (2, 12_000)


def test_nothing_is_0() -> None:
    none = Histogram()
    assert (none.count, none.quantile_us(0.5), none.max_us, none.below(BUCKETS)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("share", "us"), [(0.25, 24.576), (0.5, 32.768), (0.75, 49.152), (1, 65.536)]
)
def test_a_quantile_lies_within_its_bucket(share: float, us: float) -> None:
    assert histogram(b5=4, b6=4).quantile_us(share) == pytest.approx(us)


def test_quantiles_of_the_first_bucket_begin_at_0() -> None:
    assert histogram(b0=2).quantile_us(0.5) == pytest.approx(0.512)


def test_quantiles_skip_what_is_empty() -> None:
    found = histogram(b3=9, b20=1)
    assert found.quantile_us(0.9) == pytest.approx(8.192)
    assert found.quantile_us(0.99) > 524_288
    assert found.max_us == pytest.approx(1_048_576 * 1.024)


def test_what_was_below_a_bound_is_counted() -> None:
    found = histogram(b0=1, b5=10, b6=100)
    assert [found.below(bucket) for bucket in (0, 4, 5, 6, BUCKETS - 1)] == [1, 1, 11, 111, 111]


def test_sums_are_by_bucket() -> None:
    assert sum_of([histogram(b1=1, b2=2), histogram(b2=3)]) == histogram(b1=1, b2=5)
    assert sum_of([]) == Histogram()
    kinds = Latencies(histogram(b1=1), histogram(b2=1), Histogram())
    doubled = Latencies(histogram(b1=2), histogram(b2=2), Histogram())
    assert Latencies.sum_of([kinds, kinds]) == doubled


def test_reading_while_another_thread_notes_loses_nothing() -> None:
    noting = Latency()
    times = 20_000

    def note() -> None:
        for _ in range(times):
            noting.note(perf_counter_ns())

    thread = threading.Thread(target=note)
    thread.start()
    seen = [noting.histogram().count for _ in range(200)]
    thread.join(SECONDS)
    assert seen == sorted(seen)
    assert noting.histogram().count == times


# --- What the data plane notes ---------------------------------------------------------


class Plane:
    """A router whose reads of what is on disk are answered by fetchers that a test starts."""

    def __init__(self, kernel: Kernel, backed: Backed) -> None:
        state = backed.small.state
        outstanding = Outstanding(state.outstanding.view)
        self.kernel = kernel
        self.fetchers = Fetchers(
            kernel.fd, backed.store.fetch_lane, outstanding.answered, lambda: None
        )
        self.buffer = receive_buffer(state.buffer(0))
        self.router = Router(
            kernel.fd,
            self.buffer,
            backed.store.lane(),
            Done(state.buffer(0)),
            outstanding,
            lambda request: True,
            self.fetchers.answer,
        )

    def take(self, raw: bytes) -> None:
        self.buffer[: len(raw)] = raw
        request = self.router.decode(len(raw))
        assert request is not None
        self.router.serve(request, len(raw))

    def finish(self) -> None:
        self.fetchers.start()
        self.fetchers.stop()
        self.fetchers.join(SECONDS)

    def counts(self) -> tuple[int, int, int]:
        """Of reads, writes, discards."""
        found = self.router.latencies()
        return found.read.count, found.write.count, found.discard.count


@pytest.fixture
def plane(kernel: Kernel, backed: Backed) -> Iterator[Plane]:
    made = Plane(kernel, backed)
    yield made
    backed.disk.go()


def test_each_kind_is_counted_by_itself(plane: Plane, kernel: Kernel) -> None:
    for _ in range(3):
        plane.take(kernel.read(0, PAGE_SIZE))
    for _ in range(2):
        plane.take(kernel.write(0, bytes(PAGE_SIZE)))
    plane.take(kernel.fallocate(0, PAGE_SIZE, PUNCH))
    assert plane.counts() == (3, 2, 1)


def test_what_the_kernel_asks_besides_is_not_counted(plane: Plane, kernel: Kernel) -> None:
    plane.take(kernel.open())
    plane.take(kernel.lseek(0, 3))
    plane.take(kernel.lseek(1 << 40, 3))  # ENXIO
    plane.take(kernel.read(0, PAGE_SIZE, nodeid=3))  # of another file
    assert plane.counts() == (0, 0, 0)


def test_errors_take_time_too(plane: Plane, kernel: Kernel) -> None:
    plane.take(kernel.write(1 << 40, bytes(PAGE_SIZE)))
    plane.take(kernel.fallocate(0, PAGE_SIZE, 0x40))
    assert plane.counts() == (0, 1, 1)


def test_the_time_is_from_receipt_to_reply(
    plane: Plane, kernel: Kernel, took: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vswapd.channel.router.perf_counter_ns", lambda: 1000)
    took.append(41_000)
    plane.take(kernel.read(0, PAGE_SIZE))
    assert plane.router.latencies().read.total_ns == 40_000


def test_a_read_from_the_disk_is_counted_when_it_is_answered(
    plane: Plane, backed: Backed, kernel: Kernel
) -> None:
    """From the time it was received at, though another thread answers it."""
    backed.fill(0, NOISE)
    before = perf_counter_ns()
    plane.take(kernel.read(0, PAGE_SIZE))
    handed = perf_counter_ns()
    assert plane.counts() == (0, 0, 0)
    assert plane.fetchers.latency() == Histogram()
    waited = perf_counter_ns()
    plane.finish()
    found = plane.fetchers.latency()
    assert found.count == 1
    assert waited - handed < found.total_ns < perf_counter_ns() - before


def test_a_read_that_the_disk_fails_is_counted(
    plane: Plane, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, NOISE)
    backed.disk.error = OSError(errno.EIO, "scripted")
    plane.take(kernel.read(0, PAGE_SIZE))
    plane.finish()
    assert plane.fetchers.latency().count == 1


def test_a_read_that_a_predecessor_left_counts_from_the_takeover_on(
    plane: Plane, backed: Backed, kernel: Kernel
) -> None:
    backed.fill(0, NOISE)
    backed.fill(1, NOISE)
    before = perf_counter_ns()
    plane.router.serve_again(kernel.read(0, PAGE_SIZE))
    plane.router.serve_again(kernel.read(3 * PAGE_SIZE, PAGE_SIZE))  # in memory
    plane.finish()
    assert plane.counts() == (1, 0, 0)
    found = plane.fetchers.latency()
    assert found.count == 1
    assert found.total_ns <= perf_counter_ns() - before


def test_handed_over_reads_carry_their_time(plane: Plane, backed: Backed, kernel: Kernel) -> None:
    given: list[int] = []
    backed.fill(0, NOISE)

    def answer(unique: int, read: Parked, received_ns: int) -> None:
        given.append(received_ns)

    plane.router._answer = answer
    before = perf_counter_ns()
    plane.take(kernel.read(0, PAGE_SIZE))
    assert before <= given[0] <= perf_counter_ns()
